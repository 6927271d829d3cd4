"""Why a gate fails, for a run directory: where values part, and which layers cost accuracy."""

from __future__ import annotations

from pathlib import Path

from snowsdeploy.batch import Batch
from snowsdeploy.diagnose.accuracy import debug_accuracy
from snowsdeploy.diagnose.parity import debug_parity
from snowsdeploy.errors import DataError
from snowsdeploy.models.signature import random_batch
from snowsdeploy.progress import Observer
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.settings.validate import EvaluationSettings
from snowsdeploy.stages.prune import Pruned
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import config_of, is_changed, load_pruned, source_of_data
from snowsdeploy.stages.samples import open_calibration
from snowsdeploy.stages.task import judge_of
from snowsdeploy.values import AccuracyCost, Divergence, Precision


def run_debug_parity(
    folder: Path,
    precision: Precision,
    runtime: RuntimeSettings,
    *,
    images: int,
    observer: Observer,
    data: str | None = None,
    tolerance: float | None = None,
) -> Divergence:
    """Where the values of a run's sparse file leave PyTorch's; nothing in the run is changed.

    Args:
        folder: A run directory; a file that was changed since its export is compared too.
        precision: Which file.
        runtime: Where it runs.
        images: How many calibration images; random ones where their source is gone.
        observer: Told about progress.
        data: Where the calibration images are now.
        tolerance: Largest relative error that is no divergence; None for the precision's parity limit.

    Raises:
        OutputError: The directory has no such file.
        DataError: `data` was named and is not what the run was calibrated on.
        ProviderError: The file does not run there at all.
    """
    run = RunDirectory(folder)
    pruned, path = load_pruned(run), run.onnx("sparse", precision)
    batch, origin = _debug_images(pruned, images, data, source_of_data(run))
    return debug_parity(
        pruned.sparse,
        path,
        run.onnx("sparse"),
        batch,
        runtime,
        precision=precision,
        observer=observer,
        images_from=origin,
        changed=path.is_file() and is_changed(run, path, precision),
        tolerance=tolerance,
    )


def run_debug_accuracy(
    folder: Path, items: int | None, policy: GatePolicy, observer: Observer, data: str | None = None
) -> AccuracyCost:
    """Which layers of a run cost accuracy; nothing in the run is changed.

    Args:
        folder: A run directory.
        items: How many calibration images; None for all.
        policy: Its accuracy rules are what the suggestion must pass, on the same images.
        observer: Told about progress.
        data: Where the calibration images are now.

    Raises:
        OutputError: The directory holds no pruning run, or nothing in it is pruned.
        DataError: The calibration images are gone or have changed.
    """
    run = RunDirectory(folder)
    pruned = load_pruned(run)
    samples = open_calibration(pruned.report, pruned.dense, data, was=source_of_data(run))
    chosen = samples.select(samples.indices[:items])
    config = {k: v for k, v in config_of(run).values.items() if k in EvaluationSettings.model_fields}
    without = {"metric"} if chosen.targets is None else set()  # a metric of the user's own needs what it reads
    settings = EvaluationSettings.model_validate({k: v for k, v in config.items() if k not in without})
    judge = judge_of(settings, pruned.dense, chosen)
    return debug_accuracy(
        pruned.dense, pruned.tensors, pruned.report, chosen, judge=judge, policy=policy, observer=observer
    )


def _debug_images(pruned: Pruned, count: int, data: str | None, was: str | None) -> tuple[Batch, str]:
    """Calibration images, or random ones with the reason."""
    count = pruned.dense.signature.batch or count
    try:
        batch = open_calibration(pruned.report, pruned.dense, data, was=was).rows(
            0, min(count, len(pruned.report.calibration_items))
        )
    except DataError as error:
        if data is not None:  # named now: a mistyped path is told, not replaced
            raise
        random = random_batch(pruned.dense.inputs, count, 0)
        return random, f"{count} random images, since those of the calibration are not there ({error.what})"
    return batch, f"{len(batch)} calibration images"
