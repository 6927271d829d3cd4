"""Everything about a run, and its verdict."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snowsdeploy.values.accuracy import Accuracy
from snowsdeploy.values.base import SCHEMA_VERSION, Artifact
from snowsdeploy.values.command import StageCommand
from snowsdeploy.values.engine import EngineEvidence
from snowsdeploy.values.evidence import Compilation, Parity, SparsityEvidence
from snowsdeploy.values.files import FilePair, OnnxArtifact, Package
from snowsdeploy.values.latency import Environment, Latency
from snowsdeploy.values.numbers import Count, Seconds
from snowsdeploy.values.pruning import PruneReport
from snowsdeploy.values.source import ModelSignature, Preprocessing, SourceInfo

Outcome = Literal["pass", "fail", "inconclusive"]


class RuleResult(Artifact):
    """One gate rule: what was measured, the limit, the verdict and why."""

    rule: str
    measured: str
    limit: str
    verdict: Outcome
    reason: str = ""

    @property
    def account(self) -> str:
        """What was measured, the limit and why, on one line."""
        return f"measured {self.measured}, limit {self.limit}" + (f": {self.reason}" if self.reason else "")


class Verdict(Artifact):
    """All rules together: any fail fails, else any inconclusive is inconclusive."""

    verdict: Outcome
    rules: Annotated[tuple[RuleResult, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _follows_from_rules(self) -> Self:
        follows = verdict_of(self.rules)
        if self.verdict != follows:
            raise ValueError(f"the verdict is {self.verdict}, but its rules give {follows}")
        return self

    @classmethod
    def of(cls, rules: Sequence[RuleResult]) -> Self:
        """What rules come to.

        Raises:
            pydantic.ValidationError: There are none.
        """
        return cls(verdict=verdict_of(rules), rules=tuple(rules))

    def __bool__(self) -> bool:
        return self.verdict == "pass"

    def __str__(self) -> str:
        rows = [f"{rule.rule}: {rule.verdict}, {rule.account}" for rule in self.rules]
        return "\n".join([self.verdict, *rows])


def verdict_of(rules: Sequence[RuleResult]) -> Outcome:
    """What rules come to."""
    verdicts = {rule.verdict for rule in rules}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


class Variant(FilePair):
    """One precision: its files and what was measured on them. What was not measured is None.

    Attributes:
        crash: How ONNX Runtime ends the process that runs the files, such as `segmentation fault`; then nothing else
            is measured on this machine. Empty where it does not.
    """

    sparsity: SparsityEvidence | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    compilation: Compilation | None = None
    engine: EngineEvidence | None = None
    crash: str = ""

    @model_validator(mode="after")
    def _evidence_is_of_the_sparse_file(self) -> Self:
        evidence = self.sparsity
        if evidence is None:
            if self.engine is not None:
                raise ValueError("there is an engine but no layout of the file that it was built from")
            return self
        if (evidence.file.name, evidence.sha256) != (self.sparse.path.name, self.sparse.sha256):
            raise ValueError(
                f"sparsity is of {evidence.file.name} with sha256 {evidence.sha256}, the sparse file is "
                f"{self.sparse.path.name} with {self.sparse.sha256}"
            )
        if self.engine is not None:
            _require_counted(self.engine, evidence)
        return self

    @model_validator(mode="after")
    def _measured_files_ran(self) -> Self:
        measured = [name for name in ("parity", "accuracy", "latency") if getattr(self, name) is not None]
        if self.crash and measured:
            raise ValueError(f"the files end with a {self.crash}, but have {', '.join(measured)}")
        rows = Counter(row.output for row in self.parity.rows) if self.parity else Counter[str]()
        if rows and (set(rows) != set(self.sparse.output_names) or len(set(rows.values())) > 1):
            raise ValueError("parity must have every output of the sparse file equally often")
        return self


def _require_counted(engine: EngineEvidence, evidence: SparsityEvidence) -> None:
    """Refuse counts of an engine that are not those of the layers."""
    names = set(evidence.expected)
    rows = {row.name: row for row in evidence.layers if row.name in names}
    told = {"pruned": (engine.pruned, len(names))}
    for part in ("found", "chosen"):
        states = [getattr(row, part) for row in rows.values()]
        told[part] = (getattr(engine, part), states.count("yes"))
        told[f"{part}_unknown"] = (getattr(engine, f"{part}_unknown"), states.count("unknown"))
    for name, (count, listed) in told.items():
        if count != listed:
            raise ValueError(f"engine.{name} is {count}, and the layers list {listed}")


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
    seconds: dict[str, Seconds] = Field(default_factory=dict)
    peak_memory_bytes: Count | None = None
    verdict: Verdict | None = None

    @model_validator(mode="after")
    def _evidence_is_of_the_run(self) -> Self:
        precisions = [variant.precision for variant in self.variants]
        if len(set(precisions)) < len(precisions):
            raise ValueError(f"variants are of {', '.join(precisions)}; each precision has one")
        pruned = tuple(decision.name for decision in self.prune.pruned)
        for evidence in (variant.sparsity for variant in self.variants if variant.sparsity):
            if evidence.pattern != self.prune.pattern or evidence.shares != self.prune.sparsity:
                raise ValueError(f"the layout was checked for {evidence.pattern}, the run is {self.prune.pattern}")
            if evidence.expected != pruned:
                names = sorted(set(evidence.expected) ^ set(pruned)) or ["in another order"]
                raise ValueError(f"the layers expected in the file are not those decided pruned: {', '.join(names)}")
        return self

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
