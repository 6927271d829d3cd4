"""Settings, a program and its evaluation data -> what the outputs mean and what they are judged by."""

from __future__ import annotations

from collections.abc import Sequence

from snowsdeploy.data.samples import Samples
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph, output_shapes
from snowsdeploy.settings.base import unknown_name
from snowsdeploy.settings.jobs import PolicySettings
from snowsdeploy.settings.policy import read_goals
from snowsdeploy.settings.validate import EvaluationSettings
from snowsdeploy.tasks.base import AbstractTask
from snowsdeploy.tasks.choose import choose_task
from snowsdeploy.tasks.classify import Classify, remarks_on_folders
from snowsdeploy.tasks.evaluate import Judge
from snowsdeploy.tasks.user_metric import find_metric


def judge_of(settings: EvaluationSettings, program: Program, evaluation: Samples | None) -> Judge:
    """By what a run is judged; everything that can be refused is refused here, before anything is solved.

    Args:
        settings: `--task`, `--metric` and what belongs to them.
        program: The dense program.
        evaluation: What it is judged on; None without.

    Raises:
        DataError: The task does not fit the output, or the targets do not fit the task.
        UsageError: A metric cannot be found, or a goal is of one that nothing measures.
    """
    metrics = tuple(find_metric(text) for text in settings.metric)
    outputs = tuple(zip(program.signature.outputs, output_shapes(program), strict=True))
    targets = None if evaluation is None else evaluation.targets
    info = program.inputs[0]
    task = choose_task(
        settings.task,
        outputs,
        targets,
        scores=settings.task != "auto" or ProgramGraph(program).gives_scores(),
        image=info.shape if len(program.inputs) == 1 and info.dtype.startswith("float") else (),
        ignore_index=settings.ignore_index,
    )
    if evaluation is None or targets is None:
        return Judge(task, program.signature.outputs, metrics, targets=False)
    # With a metric of the user's own the targets may be for that alone.
    own = bool(metrics) and settings.task == "auto"
    if not own:
        task.require_targets(targets, outputs[0], evaluation.classes)
        if isinstance(settings, PolicySettings) and not metrics:
            _require_known_goals(settings.metric_goal, task)
    return Judge(task, program.signature.outputs, metrics, targets=not own)


def _require_known_goals(goals: Sequence[str], task: AbstractTask) -> None:
    """A policy may be of many models; a goal was typed for this one."""
    for name in (name for part in read_goals(goals) for name in part):
        if name not in task.metrics_named:
            raise unknown_name(f"--metric-goal names no metric of --task {task.name}", name, task.metrics_named)


def task_remarks(judge: Judge, evaluation: Samples | None, program: Program) -> tuple[str, ...]:
    """What may be wrong with the targets, known before anything is solved."""
    if evaluation is None or not isinstance(judge.task, Classify) or not judge.targets:
        return ()
    return remarks_on_folders(evaluation.classes, program.classes)
