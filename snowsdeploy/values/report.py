"""Everything about a run, and its verdict."""

from __future__ import annotations

import html
from typing import Literal

from pydantic import Field

from snowsdeploy.values.accuracy import Accuracy
from snowsdeploy.values.base import SCHEMA_VERSION, Artifact, Precision
from snowsdeploy.values.command import StageCommand
from snowsdeploy.values.engine import EngineEvidence
from snowsdeploy.values.evidence import Compilation, Parity, SparsityEvidence
from snowsdeploy.values.files import OnnxArtifact, Package
from snowsdeploy.values.latency import Environment, Latency
from snowsdeploy.values.pruning import PruneReport
from snowsdeploy.values.source import ModelSignature, Preprocessing, SourceInfo


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

    def __str__(self) -> str:
        rows = [f"{rule.rule}: {rule.verdict}, {rule.account}" for rule in self.rules]
        return "\n".join([self.verdict, *rows])


class Variant(Artifact):
    """One precision: its files and what was measured on them. What was not measured is None.

    Attributes:
        crash: How ONNX Runtime ends the process that runs the files, such as `segmentation fault`; then nothing else
            is measured on this machine. Empty where it does not.
    """

    dense: OnnxArtifact
    sparse: OnnxArtifact
    sparsity: SparsityEvidence | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    compilation: Compilation | None = None
    engine: EngineEvidence | None = None
    crash: str = ""

    @property
    def precision(self) -> Precision:
        """Of both files."""
        return self.sparse.precision


class Report(Artifact):
    """Everything a run has shown.

    Attributes:
        created: When the last stage ended, ISO 8601.
        commands: Of every stage, oldest first.
        variants: One for each precision that was asked for.
        serving: As in `ExportReport`.
        packages: As in `ExportReport`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    commands: tuple[StageCommand, ...]
    environment: Environment
    source: SourceInfo
    preprocessing: Preprocessing | None
    signature: ModelSignature
    prune: PruneReport
    variants: tuple[Variant, ...] = ()
    serving: tuple[OnnxArtifact, ...] = ()
    packages: tuple[Package, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None
    verdict: Verdict | None = None

    def __repr__(self) -> str:
        """One line; the whole of it is in `model_dump`."""
        name = self.source.arch or self.source.source
        verdict = self.verdict.verdict if self.verdict is not None else "not judged"
        layers = f"{len(self.prune.pruned)} of {len(self.prune.decisions)} layers {self.prune.pattern}"
        files = ", ".join(str(variant.sparse.path) for variant in self.variants)
        return f"<Report of {name}: {verdict}; {layers}; {files}>"

    def _repr_html_(self) -> str:
        """The report's page, in a frame of its own: a notebook shows it so."""
        from snowsdeploy.report.html import render_html  # noqa: PLC0415 - values stand below what renders them

        page = html.escape(render_html(self), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 42em; border: 0" title="Report"></iframe>'
