"""Restoration (denoising, super-resolution): the first output is an image; PSNR and SSIM, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import numpy as np
import torch
from numpy.typing import NDArray

from snowsdeploy.tasks.any_output import relative_error, relative_error_measure, rows
from snowsdeploy.tasks.base import AbstractTask, Array, Output, Outputs, Scores, refuse_targets, shape_text
from snowsdeploy.tasks.statistics import mean, mean_drop
from snowsdeploy.values import Agreement, Metric

USUAL_DROP, USUAL_REGRESSION = 0.5, 0.1  # dB
MAX_PSNR = 120.0  # dB, of equal images, whose PSNR has no end
_WINDOW = 11  # pixels: what SSIM needs on both sides


@final
@dataclass(frozen=True)
class Restore(AbstractTask):
    """An image for each item, of the first output `[items, channels, height, width]`.

    Attributes:
        data_range: Largest less smallest value that a pixel can have.
    """

    name: ClassVar[str] = "restore"
    targets: ClassVar[str] = "an image for each item, of the output's size"
    metrics_named: ClassVar[tuple[str, ...]] = ("psnr", "ssim")
    data_range: float = 1.0

    def for_targets(self, targets: Array) -> Self:
        """With the range of pixels that the targets speak of: 255 of bytes, 2 of -1 to 1, else 1."""
        high, low = float(targets.max()), float(targets.min())
        found = 255.0 if targets.dtype == np.uint8 or high > 2 else 2.0 if low < -0.01 else 1.0
        return replace(self, data_range=found)

    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Refuse what is no image, and images of another size."""
        del classes
        _, shape = output
        fits = len(shape) == 3 and targets.ndim == 4 and targets.dtype != np.object_
        sizes = zip(shape, targets.shape[1:], strict=False)
        if not fits or any(size is not None and size != there for size, there in sizes):
            raise refuse_targets(self, seen=shape_text(targets), output=output)

    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """PSNR against the dense model's image, whose own range is the peak; relative error."""
        a, b = rows(dense[0]), rows(other[0])
        peak = np.maximum(a.max(1) - a.min(1), np.finfo(np.float64).tiny)
        return {"psnr": _psnr(((a - b) ** 2).mean(1), peak), "relative_error": relative_error(dense[0], other[0])}

    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """Means over the items."""
        return (
            Agreement(
                name="psnr_to_dense",
                label="PSNR to the dense output",
                unit="dB",
                measured=mean(compared["psnr"]),
                usual_limit=30.0,
            ),
            relative_error_measure(compared["relative_error"]),
        )

    def score(self, outputs: Outputs, targets: Array) -> Scores:
        """PSNR and SSIM of each item."""
        a, b = outputs[0].astype(np.float64), targets.astype(np.float64)
        found: dict[str, Array] = {"psnr": _psnr(((rows(a) - rows(b)) ** 2).mean(1), np.full(len(a), self.data_range))}
        if a.ndim == 4 and min(a.shape[2:]) >= _WINDOW:
            from torchmetrics.functional.image import (  # noqa: PLC0415 - takes seconds, and few runs need it
                structural_similarity_index_measure,
            )

            ssim = structural_similarity_index_measure(
                torch.from_numpy(a), torch.from_numpy(b), data_range=self.data_range, reduction="none"
            )
            assert isinstance(ssim, torch.Tensor)
            found["ssim"] = ssim.reshape(len(a)).numpy()
        return found

    def metrics(self, dense: Scores, sparse: Scores, same_precision: Scores | None) -> tuple[Metric, ...]:
        """Mean PSNR and, of images of 11 pixels or more, mean SSIM."""
        labels = {"psnr": ("PSNR", "dB"), "ssim": ("SSIM", "")}
        return tuple(
            Metric(
                name=name,
                label=labels[name][0],
                unit=labels[name][1],
                dense=mean(dense[name]),
                sparse=mean(sparse[name]),
                same_precision=None if same_precision is None else mean(same_precision[name]),
                drop=mean_drop(dense[name], sparse[name], 1.0),
                usual_drop=USUAL_DROP if name == "psnr" else None,
                usual_regression=USUAL_REGRESSION if name == "psnr" else None,
            )
            for name in dense
        )


def _psnr(square_error: NDArray[np.float64], peak: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = 10 * np.log10(peak**2 / square_error)
    return np.minimum(found, MAX_PSNR)
