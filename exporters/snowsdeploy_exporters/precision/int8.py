"""INT8 by ONNX Runtime's quantizer: QDQ nodes around the products with constant weights.

Weights are symmetric per output channel and activations symmetric per tensor, both QInt8: zero is stored as zero, so a
2:4 weight stays 2:4, and TensorRT takes such a file as it is. Where the whole model errs too much, the layers whose
quantization alone moves the output most stay in FP32. The ranges of activations are those of the FP32 model, so they
are measured once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from snowsdeploy_exporters.precision.converted import ASKED, Converted, Images, named
from snowsdeploy_exporters.precision.quantizer import PRODUCTS, Quantizer
from snowsdeploy_exporters.precision.values import run_model

LARGEST_ERROR = 0.1  # relative, of the worst of the model's outputs, L2
CHECKED = 16  # images on which errors are measured


def to_int8(model: ModelProto, batches: Sequence[Images], keep: Collection[str] = ()) -> Converted:
    """Quantize the products that have constant weights; inputs and outputs stay FP32.

    Args:
        model: An FP32 model; not changed.
        batches: Images `[batch, C, H, W]` from which the ranges of activations come.
        keep: Names of nodes that stay in FP32 whatever their error.
    """
    kept = {name: ASKED for name in _weighted(model) if name in keep}
    layers = [name for name in _weighted(model) if name not in kept]
    checked = _first(batches, CHECKED)
    expected = _outputs(model, checked)

    def error(candidate: ModelProto) -> float:
        return max(map(_relative, _outputs(candidate, checked), expected))

    quantizer = Quantizer.measure(model, batches)
    whole = quantizer.quantize(layers)
    found = error(whole)
    if found <= LARGEST_ERROR:
        return Converted(whole, kept)
    alone = {layer: error(quantizer.quantize([layer])) for layer in layers}
    for layer in sorted(alone, key=alone.__getitem__, reverse=True):
        if found <= LARGEST_ERROR:
            break
        kept[layer] = f"quantized alone it moves the output by {alone[layer]:.1%}"
        whole = quantizer.quantize([name for name in layers if name not in kept])
        found = error(whole)
    return Converted(whole, kept)


def _weighted(model: ModelProto) -> list[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in PRODUCTS and any(i in constants for i in n.input[:2])]


def _first(batches: Sequence[Images], count: int) -> list[Images]:
    """The first batches that have so many items together."""
    found, items = list[Images](), 0
    for batch in batches:
        if items < count:
            found.append(batch)
            items += len(next(iter(named(batch, "").values())))
    return found


def _outputs(model: ModelProto, batches: Sequence[Images]) -> list[NDArray[Any]]:
    """Every output over all batches; of those that are real numbers, where some are."""
    outputs = [np.concatenate([o.reshape(-1) for o in one]) for one in zip(*run_model(model, batches), strict=True)]
    return [o for o in outputs if np.issubdtype(o.dtype, np.floating)] or [o.astype(np.float64) for o in outputs]


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    error, scale = float(np.linalg.norm(found - expected)), float(np.linalg.norm(expected))
    return error / scale if scale else error
