"""How right and how alike models are."""

from __future__ import annotations

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.source import DataInfo


class Proportion(Artifact):
    """k of n with a confidence interval (Wilson), as fractions from 0 to 1."""

    successes: int
    total: int
    low: float
    high: float
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The point estimate."""
        return self.successes / self.total


class PairedTest(Artifact):
    """McNemar's exact test on images where exactly one of two models is right, and the drop's interval.

    Attributes:
        only_dense: Images that only the dense model gets right.
        only_sparse: Images that only the sparse model gets right.
        p_value: Two-sided exact p-value.
        drop: Dense minus sparse top-1, in percentage points.
        drop_low: Lower end of its interval, percentage points.
        drop_high: Upper end of its interval, percentage points.
    """

    only_dense: int
    only_sparse: int
    p_value: float
    drop: float
    drop_low: float
    drop_high: float
    confidence: float = 0.95


class Agreement(Artifact):
    """How alike sparse and dense outputs are; needs no labels."""

    top1: Proportion
    cosine: float
    kl: float


class Accuracy(Artifact):
    """Dense in FP32 and sparse, both measured from their ONNX files. The labelled parts are None without labels.

    Attributes:
        same_precision_top1: The dense file in the sparse file's precision: what the precision alone costs.
    """

    data: DataInfo
    provider: str
    dense_top1: Proportion | None = None
    sparse_top1: Proportion | None = None
    dense_top5: Proportion | None = None
    sparse_top5: Proportion | None = None
    same_precision_top1: Proportion | None = None
    paired: PairedTest | None = None
    agreement: Agreement
