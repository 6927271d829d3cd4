"""What a server wants inside the graph: pixels in, probabilities or the best classes out.

Requires a file that `OnnxExporter` wrote: one input `[batch, C, H, W]` in FP32, and for output ends a first output
`[batch, classes]` in FP32. Ensures the same nodes and weights between them, the same opset and metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from snowsdeploy.values import Preprocessing

PROBABILITIES, TOP_VALUES, TOP_CLASSES = "probabilities", "top_values", "top_classes"
_PREFIX = "serving"  # of the names of what is added


def add_ends(
    model: ModelProto, preprocessing: Preprocessing | None, *, uint8_input: bool, softmax: bool, top_k: int | None
) -> ModelProto:
    """The model with what is asked for around it.

    Args:
        model: Not changed.
        preprocessing: Its input size, mean and standard deviation; needed for pixels alone.
        uint8_input: The input becomes uint8 `[batch, H, W, C]`, and is scaled and normalised in the graph.
        softmax: The first output becomes `probabilities`.
        top_k: Adds `top_values` and `top_classes`, `[batch, top_k]`, of the first output, the largest first.
    """
    ended = ModelProto()
    ended.CopyFrom(model)
    if uint8_input and preprocessing is not None:
        _take_pixels(ended, preprocessing)
    if softmax:
        _give_probabilities(ended)
    if top_k is not None:
        _give_best(ended, top_k)
    return shape_inference.infer_shapes(ended, check_type=True, strict_mode=True)


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """What the graph does to its input, in numpy.

    Args:
        pixels: `[batch, H, W, C]`.
        preprocessing: Mean and standard deviation of pixels from 0 to 1.

    Returns:
        `[batch, C, H, W]`.
    """
    mean, std = (np.asarray(values, dtype=np.float32) for values in (preprocessing.mean, preprocessing.std))
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _take_pixels(model: ModelProto, preprocessing: Preprocessing) -> None:
    graph, image = model.graph, model.graph.input[0]
    batch = image.type.tensor_type.shape.dim[0].dim_param
    channels, height, width = preprocessing.input_size
    inner = f"{_PREFIX}_image"
    for node in graph.node:
        _rename(node.input, image.name, inner)
    pixels = helper.make_tensor_value_info(image.name, TensorProto.UINT8, [batch, height, width, channels])
    image.CopyFrom(pixels)
    constants = {"scale": [255.0], "mean": preprocessing.mean, "std": preprocessing.std}
    steps = [helper.make_node("Cast", [image.name], [f"{_PREFIX}_float"], f"{_PREFIX}_cast", to=TensorProto.FLOAT)]
    for operator, name in (("Div", "scale"), ("Sub", "mean"), ("Div", "std")):  # in the order of the training code
        constant = numpy_helper.from_array(np.asarray(constants[name], dtype=np.float32), f"{_PREFIX}_{name}")
        graph.initializer.append(constant)
        inputs = [steps[-1].output[0], constant.name]
        steps.append(helper.make_node(operator, inputs, [f"{_PREFIX}_after_{name}"], f"{_PREFIX}_{name}_node"))
    last = steps[-1].output[0]
    steps.append(helper.make_node("Transpose", [last], [inner], f"{_PREFIX}_transpose", perm=[0, 3, 1, 2]))
    _prepend(graph.node, steps)


def _give_probabilities(model: ModelProto) -> None:
    scores = model.graph.output[0]
    model.graph.node.append(helper.make_node("Softmax", [scores.name], [PROBABILITIES], f"{_PREFIX}_softmax", axis=-1))
    scores.name = PROBABILITIES


def _give_best(model: ModelProto, count: int) -> None:
    graph, scores = model.graph, model.graph.output[0]
    wanted = numpy_helper.from_array(np.asarray([count], dtype=np.int64), f"{_PREFIX}_k")
    graph.initializer.append(wanted)
    outputs = [TOP_VALUES, TOP_CLASSES]
    graph.node.append(helper.make_node("TopK", [scores.name, wanted.name], outputs, f"{_PREFIX}_top_k", axis=-1))
    graph.output.extend([_row(TOP_VALUES, scores, count), _row(TOP_CLASSES, scores, count, TensorProto.INT64)])


def _row(name: str, like: ValueInfoProto, width: int, kind: int | None = None) -> ValueInfoProto:
    tensor = like.type.tensor_type
    return helper.make_tensor_value_info(name, kind or tensor.elem_type, [tensor.shape.dim[0].dim_param, width])


def _rename(names: Sequence[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new  # type: ignore[index]  # a protobuf list, which has no type of its own


def _prepend(nodes: Sequence[NodeProto], first: Sequence[NodeProto]) -> None:
    rest = list(nodes)
    del nodes[:]  # type: ignore[attr-defined]  # as above
    nodes.extend([*first, *rest])  # type: ignore[attr-defined]  # as above
