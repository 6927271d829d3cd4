"""The whole job killed and out of disk at random moments, in one process and in two, and what resuming it ends with.

    python -m benchmarks.robustness --kills 10 --disks 10

The model is the example of the repository. A full disk is a tmpfs of a random size, grown before the run is resumed,
which takes the right to mount. Writes `results/robustness-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.command import REPOSITORY, differences, start
from benchmarks.measure import Row
from benchmarks.models import RESULTS, machine_name, write_rows
from snowsdeploy.files import write_text_atomic

DIGITS = REPOSITORY / "examples" / "digits"
SETTINGS = [
    *("prune-export", "digits.pth", "--model-arg", "num_classes=10", "--model-arg", "in_chans=1"),
    *("--data", "calibration.npz", "--eval-data", "test.npz", "--mean", "0.3", "--std", "0.35"),
    *("--samples", "32", "--batch-size", "16", "--effort", "fast", "--selector", "sparsegpt", "--latency-runs", "20"),
]
VERDICTS = (0, 4, 5)
FAULTS = KILLED, FULL = "kill -9", "full disk"
ENDS = ("model.onnx", "dense.onnx", "report.json", "report.html", "summary.md")


def main() -> None:
    """Runs that are left alone, then one for each kill and each disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--processes", type=int, action="append", help="repeatable; 1 and 2 where not given")
    parser.add_argument("--seed", type=int, default=0, help="of moments and sizes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"robustness-{machine_name()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(DIGITS)
    rng, rows = random.Random(options.seed), list[Row]()
    with tempfile.TemporaryDirectory() as name:
        for processes in options.processes or (1, 2):
            trial = _Trial(Path(name) / f"by-{processes}", processes)
            for number in range(options.kills):
                rows.append(trial.killed(f"killed-{number}", rng.uniform(0.05, 1.0) * trial.seconds))
                print(rows[-1], flush=True)
            for number in range(options.disks):
                rows.append(trial.full(f"full-{number}", int(rng.uniform(0.02, 1.0) * trial.bytes)))
                print(rows[-1], flush=True)
    repeat = f"python -m benchmarks.robustness --kills {options.kills} --disks {options.disks}"
    write_rows(Path(f"{out}.json"), repeat, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


class _Trial:
    """A run that was left alone, and others compared with it."""

    def __init__(self, folder: Path, processes: int) -> None:
        folder.mkdir()
        self._folder, self._processes = folder, processes
        started = time.perf_counter()
        self._end(folder / "whole")
        self.seconds = time.perf_counter() - started
        self.bytes = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())

    def killed(self, name: str, moment: float) -> Row:
        """SIGKILL to every process of a run at a moment in seconds, then `--resume`."""
        run = self._folder / name
        process = self._start(run)
        time.sleep(moment)
        running = process.poll() is None
        if running:
            first = psutil.Process(process.pid)
            for one in (first, *first.children(recursive=True)):
                one.kill()
        process.communicate()
        return self._row(KILLED if running else "ended before", f"{moment:.1f} s", run, "")

    def full(self, name: str, size: int) -> Row:
        """A disk of so many bytes, then one that is large enough and `--resume`."""
        run = self._folder / name
        run.mkdir()
        with _disk(run, size):
            process = self._start(run / "out")
            _, errors = process.communicate()
            message = next((line for line in errors.splitlines() if line.startswith("error:")), "")
            tracebacks = errors.count("Traceback (most recent call last)")
            if self._processes == 1 and process.returncode not in (3, *VERDICTS):
                sys.exit(f"exit code {process.returncode}\n{errors[-3000:]}")
            subprocess.run(["mount", "-o", "remount,size=1g", str(run)], check=True)
            ended = process.returncode in VERDICTS
            row = self._row("fitted" if ended else FULL, f"{size >> 10} KiB", run / "out", message)
        return row | {"tracebacks": tracebacks if self._processes == 1 else 0}

    def _row(self, fault: str, when: str, run: Path, message: str) -> Row:
        left = sorted(p.name for p in run.iterdir() if not p.name.startswith(".")) if run.is_dir() else []
        started = time.perf_counter()
        if fault in FAULTS:
            self._end(run, "--resume")
        row = {"processes": self._processes, "fault": fault, "at": when, "left": left, "message": message}
        row |= {"resumed_s": round(time.perf_counter() - started, 1)} | differences(self._folder / "whole", run)
        return row | {"missing": [n for n in ENDS if not (run / n).is_file()], "temporary": _temporary(run)}

    def _end(self, run: Path, *more: str) -> None:
        process = self._start(run, *more)
        _, errors = process.communicate()
        if process.returncode not in VERDICTS:
            sys.exit(f"{run}: exit code {process.returncode}\n{errors[-3000:]}")

    def _start(self, run: Path, *more: str) -> subprocess.Popen[str]:
        return start([*SETTINGS, "--out", str(run), *more], processes=self._processes)


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        sys.exit("a full disk is tried on a tmpfs, which takes the right to mount; run as root or with --disks 0")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _temporary(run: Path) -> list[str]:
    return sorted(p.name for p in run.rglob("*") if p.name.endswith(".tmp") or "layers" in p.parts)


def table(rows: list[Row]) -> str:
    """Markdown: a line a fault."""
    lines = [
        "The whole job on the example of the repository (`--effort fast --selector sparsegpt`); after each fault",
        "`--resume` to the end, and tensors compared bit by bit with those of a run that was left alone.",
        "",
        "| processes | fault | at | files left | tensors that differ | results missing | half-written | message |",
        "|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r['processes']} | {r['fault']} | {r['at']} | {len(r['left'])} | {r['tensors_that_differ']} "
        f"| {len(r['missing'])} | {len(r['temporary'])} | {r['message']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
