"""Which task a model has: as the user says, or what its first output and the targets look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from snowsdeploy.errors import DataError
from snowsdeploy.settings.validate import TaskName
from snowsdeploy.tasks.any_output import AnyOutput
from snowsdeploy.tasks.base import AbstractTask, Array, Output
from snowsdeploy.tasks.classify import Classify
from snowsdeploy.tasks.embed import Embed
from snowsdeploy.tasks.restore import Restore
from snowsdeploy.tasks.segment import Segment


def choose_task(
    name: TaskName,
    outputs: Sequence[Output],
    targets: Array | None = None,
    *,
    scores: bool = True,
    image: tuple[int | None, ...] = (),
    ignore_index: int | None = None,
) -> AbstractTask:
    """The task by its name, or by what the first output is.

    `auto` takes a row of scores that a linear layer gives for `classify` and any other row for `embed`; a map with the
    channels of the input image for `restore`, and one with two channels or more for `segment`, unless the targets say
    which of both it is; everything else for `any`.

    Args:
        name: As `--task` takes it.
        outputs: Of the model, in order.
        targets: Of the evaluation items, if there are any.
        scores: Whether the first output's last operation but activations is a linear layer or a convolution.
        image: Channels, height and width of the only input, if it is an image.
        ignore_index: As in `Segment`.

    Raises:
        DataError: The first output cannot be what the name says.
    """
    chosen = _guess(outputs[0][1], targets, scores=scores, image=image) if name == "auto" else name
    made: dict[str, Callable[[], AbstractTask]] = {
        "classify": Classify,
        "segment": lambda: Segment(ignore_index=ignore_index),
        "restore": Restore,
        "embed": Embed,
        "any": lambda: AnyOutput(tuple(output for output, _ in outputs)),
    }
    task = made[chosen]()
    _require_output(task, outputs[0])
    if isinstance(task, Restore) and targets is not None and targets.dtype != np.object_:
        return task.for_targets(targets)
    return task


def _guess(shape: tuple[int | None, ...], targets: Array | None, *, scores: bool, image: tuple[int | None, ...]) -> str:
    if len(shape) == 1 and shape[0] != 1:
        return "classify" if scores else "embed"
    if len(shape) != 3 or len(image) != 3:
        return "any"
    if targets is not None and targets.dtype != np.object_ and targets.ndim == 4:
        return "restore"
    if targets is not None and targets.ndim == 3 and not np.issubdtype(targets.dtype, np.floating):
        return "segment"
    if shape[0] == image[0]:
        return "restore"
    return "segment" if shape[0] is not None and shape[0] > 1 else "any"


_RANKS = {"classify": (1,), "segment": (2, 3, 4), "restore": (3,)}  # axes of an item's output
_WORDS = {
    "classify": "one row of two scores or more an item",
    "segment": "scores for each pixel: [classes, height, width] an item",
    "restore": "an image: [channels, height, width] an item",
}


def _require_output(task: AbstractTask, output: Output) -> None:
    name, shape = output
    ranks = _RANKS.get(task.name)
    if ranks is None or (len(shape) in ranks and not (task.name == "classify" and shape[0] == 1)):
        return
    raise DataError(
        f"--task {task.name} does not fit the first output",
        seen=f"{name}: {'x'.join('?' if s is None else str(s) for s in shape) or 'one number'} an item",
        allowed=_WORDS[task.name],
        fix="put the output that is judged first with --outputs NAME, or use --task any",
    )
