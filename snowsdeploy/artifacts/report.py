"""Everything about a run, and its verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from snowsdeploy.artifacts.accuracy import Accuracy
from snowsdeploy.artifacts.base import SCHEMA_VERSION, Artifact, Precision
from snowsdeploy.artifacts.engine import EngineEvidence
from snowsdeploy.artifacts.evidence import Compilation, Parity, SparsityEvidence
from snowsdeploy.artifacts.files import OnnxArtifact, Package
from snowsdeploy.artifacts.latency import Environment, Latency
from snowsdeploy.artifacts.pruning import PruneReport
from snowsdeploy.artifacts.source import Preprocessing, SourceInfo


class RuleResult(Artifact):
    """One gate rule: what was measured, the limit, the verdict and why."""

    rule: str
    measured: str
    limit: str
    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str = ""

    @property
    def account(self) -> str:
        """What was measured, the limit and why, on one line."""
        return f"measured {self.measured}, limit {self.limit}" + (f": {self.reason}" if self.reason else "")


class Verdict(Artifact):
    """All rules together: any fail fails, else any inconclusive is inconclusive."""

    verdict: Literal["pass", "fail", "inconclusive"]
    rules: tuple[RuleResult, ...]

    def __bool__(self) -> bool:
        return self.verdict == "pass"


class Variant(Artifact):
    """One precision: its files and what was measured on them. What was not measured is None."""

    dense: OnnxArtifact
    sparse: OnnxArtifact
    sparsity: SparsityEvidence | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    compilation: Compilation | None = None
    engine: EngineEvidence | None = None

    @property
    def precision(self) -> Precision:
        """Of both files."""
        return self.sparse.precision


class Report(Artifact):
    """Everything a run has shown.

    Attributes:
        variants: One for each precision that was asked for.
        serving: As in `ExportReport`.
        packages: As in `ExportReport`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    command: str
    environment: Environment
    source: SourceInfo
    preprocessing: Preprocessing
    prune: PruneReport
    variants: tuple[Variant, ...] = ()
    serving: tuple[OnnxArtifact, ...] = ()
    packages: tuple[Package, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None
    verdict: Verdict | None = None
