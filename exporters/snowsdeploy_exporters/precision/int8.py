"""INT8 by ONNX Runtime's quantizer: QDQ nodes around the products with constant weights.

Weights are symmetric per output channel and activations symmetric per tensor, both QInt8: zero is stored as zero, so a
2:4 weight stays 2:4, and TensorRT takes such a file as it is. Where the whole model errs too much, the layers whose
quantization alone moves the output most stay in FP32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from snowsdeploy_exporters.precision.converted import Converted, Images
from snowsdeploy_exporters.precision.values import run_model

PRODUCTS = ("Conv", "Gemm", "MatMul")
LARGEST_ERROR = 0.1  # relative, of the model's outputs, L2
CHECKED = 16  # images on which errors are measured


def to_int8(model: ModelProto, batches: Sequence[Images]) -> Converted:
    """Quantize the products that have constant weights; inputs and outputs stay FP32.

    Args:
        model: An FP32 model; not changed.
        batches: Images `[batch, C, H, W]` from which the ranges of activations come.
    """
    layers = _weighted(model)
    checked = _first(batches, CHECKED)
    expected = _outputs(model, checked)

    def error(candidate: ModelProto) -> float:
        return float(np.linalg.norm(_outputs(candidate, checked) - expected) / np.linalg.norm(expected))

    whole = _quantize(model, layers, batches)
    found = error(whole)
    if found <= LARGEST_ERROR:
        return Converted(whole)
    alone = {layer: error(_quantize(model, [layer], batches[:1])) for layer in layers}
    kept: dict[str, str] = {}
    for layer in sorted(alone, key=alone.__getitem__, reverse=True):
        if found <= LARGEST_ERROR:
            break
        kept[layer] = f"quantized alone it moves the output by {alone[layer]:.1%}"
        whole = _quantize(model, [name for name in layers if name not in kept], batches)
        found = error(whole)
    return Converted(whole, kept)


def _weighted(model: ModelProto) -> list[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in PRODUCTS and any(i in constants for i in n.input[:2])]


def _quantize(model: ModelProto, layers: Sequence[str], batches: Sequence[Images]) -> ModelProto:
    if not layers:
        return model
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _Reader(model.graph.input[0].name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=list(layers),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # TensorRT adds biases in higher precision and takes symmetric scales only
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


def _first(batches: Sequence[Images], count: int) -> list[Images]:
    together = np.concatenate(list(batches))[:count]
    return [together]


def _outputs(model: ModelProto, batches: Sequence[Images]) -> Any:  # noqa: ANN401 - numpy's concatenation is untyped
    return np.concatenate([output.reshape(-1) for outputs in run_model(model, batches) for output in outputs])


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds the images one batch at a time."""

    def __init__(self, name: str, batches: Sequence[Images]) -> None:
        self._feeds: Iterator[dict[str, Images]] = iter([{name: images} for images in batches])

    def get_next(self) -> dict[str, Images] | None:
        """The next batch, None at the end."""
        return next(self._feeds, None)
