"""Proof that a serving file computes what the file it was made from computes, on images, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from snowsdeploy.errors import ExportError
from snowsdeploy.values import Preprocessing
from snowsdeploy_exporters.precision.converted import Images
from snowsdeploy_exporters.precision.values import run_model
from snowsdeploy_exporters.serving import PROBABILITIES, TOP_CLASSES, TOP_VALUES, normalise

LARGEST_ERROR = 1e-5  # relative, L2: the nodes between the ends are the same, in every precision
CHECKED = 32  # images

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]


def require_equal(
    original: ModelProto, serving: ModelProto, preprocessing: Preprocessing | None, batches: Sequence[Images]
) -> None:
    """Run both on the same images.

    Args:
        original: A model that takes images `[batch, C, H, W]`.
        serving: `serving.add_ends` of it.
        preprocessing: How pixels become images.
        batches: What the model takes; one that takes pixels gets those nearest to them.

    Raises:
        ExportError: An output differs.
    """
    takes_pixels = (
        serving.graph.input[0].type.tensor_type.elem_type != original.graph.input[0].type.tensor_type.elem_type
    )
    images = _first(batches)
    fed: Images | Pixels = images
    if takes_pixels and preprocessing is not None and isinstance(images, np.ndarray):
        fed = to_pixels(images, preprocessing)
        images = normalise(fed, preprocessing)
    (expected,), (given,) = run_model(original, [images]), run_model(serving, [fed])
    found = dict(zip((o.name for o in serving.graph.output), given, strict=True))
    if PROBABILITIES in found:
        expected[0] = _softmax(expected[0])
    for name, want, got in zip(found, expected, given, strict=False):  # the best classes come after these
        _require_near(name, want, got)
    if TOP_CLASSES in found:
        _require_best(given[0], found[TOP_VALUES], found[TOP_CLASSES])
    _require_same_choice(expected[0], given[0])


def _first(batches: Sequence[Images]) -> Images:
    """As many items as are checked."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {n: np.concatenate([b[n] for b in batches if isinstance(b, Mapping)])[:CHECKED] for n in first}
    return np.concatenate([b for b in batches if not isinstance(b, Mapping)])[:CHECKED]


def to_pixels(images: Values, preprocessing: Preprocessing) -> Pixels:
    """The nearest pixels `[batch, H, W, C]` of normalised images `[batch, C, H, W]`."""
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    values = (images.transpose(0, 2, 3, 1) * std + mean) * 255
    return np.ascontiguousarray(values.round().clip(0, 255).astype(np.uint8))


def _softmax(scores: Values) -> Values:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _require_near(name: str, expected: Values, found: Values) -> None:
    if expected.shape != found.shape:
        raise _different(f"{name} has shape {found.shape}, {expected.shape} before")
    error = float(np.linalg.norm(found - expected)) / (float(np.linalg.norm(expected)) or 1.0)
    if not error <= LARGEST_ERROR:  # also when it is not a number
        raise _different(f"{name} errs by {error:.1e}, relative")


def _require_best(scores: Values, values: Values, classes: Values) -> None:
    """The largest scores in falling order, and the classes that they belong to."""
    count = values.shape[-1]
    largest = -np.sort(-scores, axis=-1)[:, :count]
    named = np.take_along_axis(scores, classes.astype(np.int64), axis=-1)
    if not (np.array_equal(values, largest) and np.array_equal(named, largest)):
        raise _different(f"{TOP_VALUES} or {TOP_CLASSES} are not the {count} largest of the first output")


def _require_same_choice(expected: Values, found: Values) -> None:
    choice = expected.argmax(axis=-1, keepdims=True)
    wrong = np.take_along_axis(found, choice, axis=-1) < found.max(axis=-1, keepdims=True)  # equal scores are no error
    if wrong.any():
        raise _different(f"{int(wrong.sum())} of {wrong.size} images get another class")


def _different(seen: str) -> ExportError:
    return ExportError(
        "the serving file does not compute what the file it was made from computes",
        seen=seen,
        allowed=f"a relative error of {LARGEST_ERROR:.0e} and the same classes",
        fix="leave out --uint8-input, --softmax or --top-k, and report the model",
    )
