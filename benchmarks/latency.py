"""Can the latency rules be trusted on this machine? The same file against itself, and against itself made 10 % slower.

    python -m benchmarks.latency [FILE.onnx] --repetitions 20

Each repetition times the file three times over, as `prune-export` times a dense and a sparse file: against itself (any
interval that leaves 1 out, and any verdict but "pass" of a rule that must hold, is a false alarm), and against itself
behind a delay of a tenth of its own time (an interval that does not leave 1 out is a miss). Without a file, a ResNet-18
with random weights is exported, for images of 64 x 64. Writes `results/latency-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.models import RESULTS, machine, machine_name
from snowsdeploy.files import write_text_atomic
from snowsdeploy.gate.regression import judge_change, latency_change
from snowsdeploy.measure.latency import CONFIDENCE, OPENINGS, measure_latency
from snowsdeploy.models.trace import trace
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.values import Latency, LatencyRatio, Preprocessing, SourceInfo
from snowsdeploy_exporters import OnnxExporter

SLOWDOWN = 0.10


@dataclass(frozen=True)
class Delayed:
    """A session that takes a tenth longer: it waits, busy, in proportion to what each call took."""

    session: OrtSession

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the session's
        return getattr(self.session, name)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run, then wait: asleep, the processor would slow down for the next call too."""
        start = time.perf_counter_ns()
        outputs = self.session.run(images)
        until = start + (1 + SLOWDOWN) * (time.perf_counter_ns() - start)
        while time.perf_counter_ns() < until:
            pass
        return outputs


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or _export(Path(folder) / "resnet18.onnx")
        rows = [_repetition(path, seed, options) for seed in range(options.repetitions)]
    result = {
        "file": path.name,
        "runs": options.runs,
        "batch": options.batch,
        "machine": machine(),
        "summary": _summary(rows),
        "rows": rows,
    }
    stem = options.out / f"latency-{machine_name()}"
    write_text_atomic(stem.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    text = _markdown(result)
    write_text_atomic(stem.with_suffix(".md"), text)
    print(text)


def _export(path: Path) -> Path:
    torch.manual_seed(0)
    preprocessing = Preprocessing(input_size=(3, 64, 64), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = timm.create_model("resnet18").eval()
    program = trace(model, preprocessing, SourceInfo(source="timm:resnet18", format="timm", arch="resnet18"))
    return OnnxExporter().export(program, path, "dense", {}).path


def _repetition(path: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    images = OrtSession.open(path).random_inputs

    def measure(wrap: Callable[[OrtSession], Any]) -> Latency:
        def opened() -> Any:  # noqa: ANN401 - sessions, or one and its stand-in
            return OrtSession.open(path), wrap(OrtSession.open(path))

        return measure_latency(opened, images, (options.batch,), runs=options.runs, openings=OPENINGS, seed=seed)

    same, slowed, later = measure(_as_it_is), measure(Delayed), measure(_as_it_is)
    row = {
        "ratio": _ratio(same.ratios[0]),
        "slowed": _ratio(slowed.ratios[0]),
        "baseline": _against(later, same, limit=10.0, controlled=True),
        "baseline_alone": _against(later, same, limit=10.0, controlled=False),
        "slowed_baseline": _against(slowed, same, limit=5.0, controlled=True),
        "cov": max(s.cov for s in same.series),
    }
    print(seed, row, flush=True)
    return row


def _as_it_is(session: OrtSession) -> OrtSession:
    return session


def _ratio(found: LatencyRatio) -> list[float]:
    return [found.speedup, found.low, found.high]


def _against(new: Latency, old: Latency, *, limit: float, controlled: bool) -> str:
    change = latency_change(new, old, new.ratios[0].at, controlled=controlled)
    return judge_change(change, limit=limit, floor_ms=0).verdict


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    outside = sum(not row["ratio"][1] <= 1 <= row["ratio"][2] for row in rows)
    low, high = stats.binomtest(outside, len(rows)).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "repetitions": len(rows),
        "stated_level": 1 - CONFIDENCE,
        "intervals_without_1": outside,
        "rate_interval": [float(low), float(high)],
        "baseline_failed": sum(row["baseline"] == "fail" for row in rows),
        "baseline_inconclusive": sum(row["baseline"] == "inconclusive" for row in rows),
        "baseline_alone_failed": sum(row["baseline_alone"] == "fail" for row in rows),
        "slowdowns_found": sum(row["slowed"][2] < 1 for row in rows),
        "slowdowns_passed_against_baseline": sum(row["slowed_baseline"] == "pass" for row in rows),
        "median_slowdown": float(1 / np.median([row["slowed"][0] for row in rows]) - 1),
        "median_width": float(np.median([row["ratio"][2] - row["ratio"][1] for row in rows])),
        "median_cov": float(np.median([row["cov"] for row in rows])),
    }


def _markdown(result: dict[str, Any]) -> str:
    s, environment = result["summary"], result["machine"]
    return f"""# The latency rules against themselves

{environment["cpu"]}, {environment["cores"]} cores; {result["file"]}, batch {result["batch"]}.
{result["runs"]} calls each; `python -m benchmarks.latency`

| over {s["repetitions"]} repetitions | |
|---|---|
| same file twice: intervals of the ratio without 1 | {s["intervals_without_1"]}, stated {s["stated_level"]:.0%} |
| interval of that rate | {s["rate_interval"][0]:.1%} to {s["rate_interval"][1]:.1%} |
| same file later, limit 10 % over the baseline: failed | {s["baseline_failed"]} |
| the same, without the dense file as control: failed | {s["baseline_alone_failed"]} |
| the same, with it: inconclusive | {s["baseline_inconclusive"]} |
| 10 % slower in the same run: found | {s["slowdowns_found"]} |
| 10 % slower than the baseline, limit 5 %: passed | {s["slowdowns_passed_against_baseline"]} |
| slowdown measured, median | {s["median_slowdown"]:.1%} |
| width of the ratio's interval, median | {s["median_width"]:.3f} |
| coefficient of variation, median | {s["median_cov"]:.1%} |
"""


if __name__ == "__main__":
    main()
