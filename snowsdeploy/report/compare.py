"""Several reports -> one self-contained HTML file: what was reached, at which effort, and what differed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from snowsdeploy.report.plots import effort_plot
from snowsdeploy.report.shared import render_template, series
from snowsdeploy.values import LatencyRatio, LatencySeries, Report, Variant


@dataclass(frozen=True)
class ComparedFile:
    """One precision of one run.

    Attributes:
        name: Of the run.
        report: The whole run.
        variant: The precision.
    """

    name: str
    report: Report
    variant: Variant

    @property
    def outcome(self) -> str | None:
        """The run's verdict."""
        verdict = self.report.verdict
        return None if verdict is None else verdict.verdict  # a failed verdict is false

    @property
    def ratio(self) -> LatencyRatio | None:
        """Dense over sparse at the smallest batch size."""
        found = self.variant.latency
        return min(found.ratios, key=lambda r: r.batch, default=None) if found else None

    @property
    def latency(self) -> LatencySeries | None:
        """Of the sparse file at that batch size."""
        return series(self.variant, "sparse", self.ratio.at) if self.ratio else None


@dataclass(frozen=True)
class Differences:
    """Settings that are not the same in all runs: `rows` has a name and a value for each of `names`."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def render_comparison(reports: Mapping[str, Report]) -> str:
    """Files side by side; readable without scripts, in light and dark.

    Args:
        reports: By the name that is shown.
    """
    return render_template(
        "compare.html.j2",
        rows=list(compared_files(reports)),
        plot=Markup(effort_plot(reports)),
        settings=differences(reports),
        notes=list(_notes(list(reports.values()))),
    )


def compared_files(reports: Mapping[str, Report]) -> Iterator[ComparedFile]:
    """A row for each precision of each run."""
    for name, report in reports.items():
        for variant in report.variants:
            yield ComparedFile(name, report, variant)


def differences(reports: Mapping[str, Report]) -> Differences:
    """The settings in which runs differ."""
    made = [_settings(report) for report in reports.values()]
    keys = list(dict.fromkeys(key for settings in made for key in settings))
    rows = ((key, tuple(settings.get(key, "") for settings in made)) for key in keys)
    return Differences(tuple(reports), tuple((key, values) for key, values in rows if len(set(values)) > 1))


def _settings(report: Report) -> dict[str, str]:
    prune, environment = report.prune, report.environment
    facts: dict[str, object] = {
        "pattern": prune.pattern,
        "masks": prune.selector,
        "seed": prune.seed,
        "calibration": f"{prune.calibration.items} of {prune.calibration.source}",
        "pruned layers": len(prune.pruned),
        **prune.solver,
        "processor": f"{environment.cpu}, {environment.cores} cores",
        "GPU": ", ".join(environment.gpus),
        **environment.versions,
    }
    return {key: str(value) for key, value in facts.items()}


def _notes(reports: Sequence[Report]) -> Iterator[str]:
    if len({report.source.sha256 for report in reports}) > 1:
        yield "These runs are of different checkpoints."
    found = (variant.accuracy for report in reports for variant in report.variants if variant.accuracy)
    if len({accuracy.data.fingerprint for accuracy in found}) > 1:
        yield "Accuracy was measured on different images: it does not compare."
