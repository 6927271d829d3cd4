"""Sources of images and other items -> samples that fit a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snowsdeploy.data.factory import call_data_factory, is_factory
from snowsdeploy.data.memory import IN_MEMORY, Names, hold
from snowsdeploy.data.open import open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import infos_of
from snowsdeploy.values import InputInfo, PruneReport


def is_source(value: object) -> bool:
    """Whether a value names something on disk or a loader."""
    return isinstance(value, str | Path)


def hold_source(data: object, option: str, names: Names, at_most: int | None, seed: int) -> Samples | None:
    """What is in memory, or what the user's code makes; None for a source that needs the program first."""
    if data is None:
        return None
    if not is_source(data):
        return hold(data, option=option, names=names, at_most=at_most, seed=seed)
    if not is_factory(str(data)):
        return None
    made = hold(call_data_factory(str(data), option), option=option, names=names, at_most=at_most, seed=seed)
    return replace(made, info=made.info.model_copy(update={"source": str(data)}))


def require_fit(samples: Samples, program: Program, option: str) -> None:
    """Refuse what the model does not take.

    Raises:
        DataError: The inputs have other names, sizes or types.
    """
    require_same(infos_of(samples.rows(0, 1), program.inputs[0].name), program.inputs, option)


def require_same(found: Sequence[InputInfo], inputs: Sequence[InputInfo], option: str = "the data") -> None:
    """Refuse inputs that are not those of the model.

    Raises:
        DataError: They have other names, sizes or types.
    """
    if {(i.name, i.shape, i.dtype) for i in found} == {(i.name, i.shape, i.dtype) for i in inputs}:
        return
    images = is_image(found) and is_image(inputs)
    raise DataError(
        f"the images of {option} do not have the model's input size" if images else f"{option} does not fit the model",
        seen="x".join(map(str, found[0].shape)) if images else ", ".join(map(str, found)),
        allowed="x".join(map(str, inputs[0].shape)) if images else ", ".join(map(str, inputs)),
        fix="resize the images, or give the model their size with --input-size"
        if images
        else "name sizes and types with --input NAME=SHAPE:TYPE",
    )


def is_image(inputs: Sequence[InputInfo]) -> bool:
    """Whether it is one image that a preprocessing can make."""
    return len(inputs) == 1 and len(inputs[0].shape) == 3 and inputs[0].dtype == "float32"


def in_batches(samples: Samples, program: Program, option: str) -> Samples:
    """Whole batches of the size that a program takes, where that is fixed; what is left over is left out.

    Raises:
        DataError: There is not one batch.
    """
    size = program.signature.batch
    if size is None:
        return samples
    if len(samples) < size:
        raise DataError(
            f"{option} does not fill one batch of the model",
            seen=f"{len(samples)} items",
            allowed=f"{size} or more: the model takes {size} at once",
            fix=f"name more items with {option}",
        )
    return samples.in_batches_of(size)


def open_evaluation(eval_data: str | None, program: Program) -> Samples | None:
    """`--eval-data`, kept in memory where that is little.

    Raises:
        DataError: Images cannot be read.
    """
    if not eval_data:
        return None
    made = hold_source(eval_data, "--eval-data", names_of(program), None, 0)
    if made is not None:
        require_fit(made, program, "--eval-data")
    samples = made or open_samples(eval_data, program.preprocessing, program.inputs, option="--eval-data")
    return in_batches(samples.identified().remembered_if_small(), program, "--eval-data")


def open_calibration(report: PruneReport, program: Program, data: object = None, *, was: str | None = None) -> Samples:
    """The images that a run was calibrated on, in their order.

    Args:
        report: Of the pruning.
        program: For its preprocessing.
        data: Where they are now, or the images themselves; None for where they were.
        was: Where they were by their absolute path, if the run says so.

    Raises:
        DataError: They cannot be read, or are not what they were.
    """
    was, count = was or report.calibration.source, len(report.calibration_items)
    if data is None and was.endswith(IN_MEMORY):
        raise DataError(
            "the calibration images were in memory",
            seen=was,
            allowed="the same images, in the same order",
            fix="give them again: data= in Python, or --data",
        )
    if data is None:
        try:
            source = _reopened(was, program, count, report.seed)
        except DataError as error:
            raise DataError(
                "the run's calibration images cannot be read",
                seen=f"{was}: {error.what}",
                allowed="the images that the run was pruned on",
                fix="name where they are now with --data",
            ) from error
    elif is_source(data):
        source = _reopened(str(data), program, count, report.seed)
    else:
        source = hold(data, option="data", names=names_of(program), at_most=count, seed=report.seed)
    if source.info.origin != report.calibration.origin:
        raise DataError(
            "the calibration images are not those of the pruning run",
            seen=source.info.source,
            allowed=f"those of {was}",
            fix="put them back, name where they are with --data, or prune again",
        )
    missing = set(report.calibration_items) - set(source.indices)
    if missing:
        raise DataError(
            "the data source leaves out images that the run was calibrated on",
            seen=f"{source.info.source}: {len(missing)} of {count} images are not in it",
            allowed="a source that holds every image of the calibration",
            fix="name the source with the slice that the run had, or without one",
        )
    chosen = source.select(report.calibration_items).identified()
    if chosen.info.content != report.calibration.content:
        raise DataError(
            "calibration images have changed since the pruning run",
            seen=source.info.source,
            allowed="the same content as when the run was pruned",
            fix="put the old ones back, or prune again",
        )
    return in_batches(chosen, program, "--data")


def _reopened(text: str, program: Program, count: int, seed: int) -> Samples:
    held = hold_source(text, "--data", names_of(program), count, seed)
    return held or open_samples(text, program.preprocessing, program.inputs)


def names_of(program: Program) -> Names:
    """How a program calls its inputs."""
    return Names(tuple(i.name for i in program.inputs), len(program.inputs))
