"""One rule an operator: how torch computes it."""

from snowsdeploy.models.onnx.rules import (  # noqa: F401 - importing them fills the table
    activations,
    arithmetic,
    attention,
    convolutions,
    indexing,
    normalization,
    pooling,
    products,
    recurrent,
    reductions,
    resize,
    shapes,
)
from snowsdeploy.models.onnx.rules.registry import RULES, Rule

__all__ = ["RULES", "Rule"]
