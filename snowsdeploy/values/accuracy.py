"""How right and how alike models are, in the terms of their task."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import Flag, From0, Level, Number, Share, Size, near, require_interval
from snowsdeploy.values.source import DataInfo

SHARE = "share"


class Quantity(Artifact):
    """What a number says.

    Attributes:
        name: As a policy and `--metric-goal` write it: `top1`, `miou`.
        label: As a person reads it: `top-1`, `mean IoU`.
        unit: `share` for a number from 0 to 1 that is written in percent and whose differences are percentage points;
            else a unit such as `dB`; empty for a plain number.
        higher_is_better: Whether a larger number is the better one.
    """

    name: str
    label: str
    unit: str = SHARE
    higher_is_better: Flag = True

    def written(self, value: float) -> str:
        """A value with its unit: `91.20%`, `31.4 dB`, `0.0123`."""
        return f"{value:.2%}" if self.unit == SHARE else f"{value:.4g}{self._suffix}"

    def estimated(self, found: Estimate) -> str:
        """A value with its interval: `91.20% [90.10%, 92.20%]`, `31.4 dB [30.2, 32.6]`."""
        if found.low is None or found.high is None:
            return self.written(found.value)
        low, high = (self.written(end).removesuffix(self._suffix) for end in (found.low, found.high))
        return f"{self.written(found.value)} [{low}, {high}]"

    def difference(self, value: float) -> str:
        """A difference as `Drop` counts it, with its unit: `0.52 points`, `0.3 dB`."""
        return f"{value:.2f} points" if self.unit == SHARE else f"{value:.3g}{self._suffix}"

    def limit(self, value: float) -> str:
        """A limit of differences as a policy writes it, with its unit: `2 points`, `0.5 dB`."""
        return f"{value:g} point{'s' * (value != 1)}" if self.unit == SHARE else f"{value:g}{self._suffix}"

    @property
    def factor(self) -> float:
        """From a difference of values to one in the unit of differences."""
        return 100.0 if self.unit == SHARE else 1.0

    @property
    def _suffix(self) -> str:
        return f" {self.unit}" if self.unit and self.unit != SHARE else ""


class Estimate(Artifact):
    """A measured value with its confidence interval; the ends are None where there is none.

    Attributes:
        items: Of how many items it is.
    """

    value: Number
    low: Number | None = None
    high: Number | None = None
    items: Size
    confidence: Level = 0.95

    @model_validator(mode="after")
    def _within(self) -> Self:
        require_interval(self.value, self.low, self.high)
        return self


class Drop(Artifact):
    """By how much the sparse model is worse than the dense one, on the same items.

    Attributes:
        value: Percentage points of a share, else in the metric's own unit; below zero where the sparse model is better.
        low: Lower end of its interval; None without one.
        high: Upper end.
        method: How the interval was made.
        p_value: Of a two-sided paired test, where there is one.
        note: What else a reader should know, such as the items on which exactly one model is right.
    """

    value: Number
    low: Number | None = None
    high: Number | None = None
    method: str = ""
    p_value: Share | None = None
    note: str = ""
    confidence: Level = 0.95

    @model_validator(mode="after")
    def _within(self) -> Self:
        require_interval(self.value, self.low, self.high)
        return self


class Metric(Quantity):
    """What labels, or the user's own metric, say of both models.

    Attributes:
        dense: Of the dense model in FP32.
        sparse: Of the sparse model in the precision of its file.
        same_precision: Of the dense model in that precision, where it is not FP32: what the precision alone costs.
        drop: Of sparse against dense.
        usual_drop: Largest drop that is accepted where the policy names none; None where it must name one.
        usual_regression: The same for the drop below a baseline's sparse value.
    """

    dense: Estimate
    sparse: Estimate
    same_precision: Estimate | None = None
    drop: Drop
    usual_drop: From0 | None = None
    usual_regression: From0 | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _require_share(self, self.dense, self.sparse, *([self.same_precision] if self.same_precision else ()))
        sign = self.factor if self.higher_is_better else -self.factor
        lost = sign * (self.dense.value - self.sparse.value)
        scale = self.factor * max(abs(self.dense.value), abs(self.sparse.value))
        if not near(lost, self.drop.value, scale):
            raise ValueError(f"drop.value is {self.drop.value:g}, but dense and sparse are {lost:g} apart")
        return self

    @property
    def dropped(self) -> str:
        """The drop with its interval: `0.52 points [0.10, 0.94]`."""
        drop, form = self.drop, ".2f" if self.unit == SHARE else ".3g"
        ends = "" if drop.low is None or drop.high is None else f" [{drop.low:{form}}, {drop.high:{form}}]"
        return f"{self.difference(drop.value)}{ends}"

    @property
    def fallen(self) -> str:
        """A sentence without its stop: `Top-1 drops by 0.52 points [0.10, 0.94]; McNemar p = 0.03`."""
        test = "" if self.drop.p_value is None else f"; McNemar p = {self.drop.p_value:.2g}"
        return f"{self.label[0].upper()}{self.label[1:]} drops by {self.dropped}{test}"


class Agreement(Quantity):
    """One measure of how alike sparse and dense outputs are; it needs no labels.

    Attributes:
        measured: Mean over the items.
        usual_limit: What is accepted where the policy says nothing; None where it is told and not judged.
    """

    measured: Estimate
    usual_limit: Number | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _require_share(self, self.measured)
        if self.higher_is_better != (self.name.partition(".")[0] not in DISTANCES):
            raise ValueError(f"{self.name} is {'no ' * (not self.higher_is_better)}distance: higher_is_better is wrong")
        return self


DISTANCES = ("kl", "relative_error")  # of the measures without labels, those of which less is better
_ROUNDED = 1e-6  # a share in single precision may be so far outside of 0 to 1


def _require_share(quantity: Quantity, *estimates: Estimate) -> None:
    for found in estimates if quantity.unit == SHARE else ():
        if not -_ROUNDED <= found.value <= 1 + _ROUNDED:
            raise ValueError(f"{quantity.name} is a share and {found.value:g}; a share is from 0 to 1")


class Accuracy(Artifact):
    """Dense in FP32 and sparse, both measured from their ONNX files.

    Attributes:
        task: What the outputs mean: `classify`, `segment`, `restore`, `embed` or `any`.
        data: Which items.
        calibration: Whether these are the items that the model was calibrated on, since there were no others.
        provider: What ran the files.
        agreement: Measures without labels, what is judged first.
        metrics: With labels, the task's own first; empty without.
    """

    task: str
    data: DataInfo
    calibration: Flag = False
    provider: str
    agreement: Annotated[tuple[Agreement, ...], Field(min_length=1)]
    metrics: tuple[Metric, ...] = ()

    @property
    def metric(self) -> Metric | None:
        """The one that counts most."""
        return self.metrics[0] if self.metrics else None
