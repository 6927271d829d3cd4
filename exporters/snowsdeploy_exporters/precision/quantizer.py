"""ONNX Runtime's static quantizer in two halves: ranges are measured once and used for any choice of layers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from snowsdeploy_exporters.precision.converted import Images, named

PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantizer:
    """A model and the ranges of its activations.

    Attributes:
        model: In FP32.
        inferred: The same with inferred shapes.
        ranges: ONNX Runtime's record of the smallest and largest value of each tensor.
    """

    model: ModelProto
    inferred: ModelProto
    ranges: Any

    @classmethod
    def measure(cls, model: ModelProto, batches: Sequence[Images]) -> Self:
        """Run the FP32 model on the images.

        Args:
            model: Not changed.
            batches: Images `[batch, C, H, W]`.
        """
        with tempfile.TemporaryDirectory() as folder:
            source, augmented = Path(folder) / "source.onnx", Path(folder) / "augmented.onnx"
            onnx.save(model, source)
            calibrator = create_calibrator(
                source,
                list(PRODUCTS),
                augmented_model_path=str(augmented),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Reader(model.graph.input[0].name, batches))
            ranges = calibrator.compute_data()
            inferred = load_model_with_shape_infer(source)
        return cls(model, inferred, ranges)

    def quantize(self, layers: Sequence[str]) -> ModelProto:
        """The model with the products of these names quantized; itself when there are none."""
        if not layers:  # the quantizer takes an empty list for all
            return self.model
        copy = ModelProto()
        copy.CopyFrom(self.inferred)  # the quantizer works in place
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=list(layers),
            nodes_to_exclude=[],
            op_types_to_quantize=list(PRODUCTS),
            # TensorRT adds biases in higher precision and takes symmetric scales only
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: ModelProto = quantizer.model.model
        del quantized.metadata_props[:]
        quantized.metadata_props.extend(self.model.metadata_props)
        return quantized


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds the images one batch at a time."""

    def __init__(self, name: str, batches: Sequence[Images]) -> None:
        self._feeds = iter([named(images, name) for images in batches])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch, None at the end."""
        return next(self._feeds, None)
