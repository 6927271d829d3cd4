"""One rule an operator: how torch computes it."""

from snowsdeploy.models.onnx.rules import (
    activations as _activations,
)
from snowsdeploy.models.onnx.rules import (
    arithmetic as _arithmetic,
)
from snowsdeploy.models.onnx.rules import (
    convolutions as _convolutions,
)
from snowsdeploy.models.onnx.rules import (
    indexing as _indexing,
)
from snowsdeploy.models.onnx.rules import (
    normalization as _normalization,
)
from snowsdeploy.models.onnx.rules import (
    pooling as _pooling,
)
from snowsdeploy.models.onnx.rules import (
    products as _products,
)
from snowsdeploy.models.onnx.rules import (
    recurrent as _recurrent,
)
from snowsdeploy.models.onnx.rules import (
    reductions as _reductions,
)
from snowsdeploy.models.onnx.rules import (
    resize as _resize,
)
from snowsdeploy.models.onnx.rules import (
    shapes as _shapes,
)
from snowsdeploy.models.onnx.rules.registry import RULES, Rule

__all__ = ["RULES", "Rule"]
