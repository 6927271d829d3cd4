"""Strings, paths and Python objects -> the program and the samples of a run."""

from __future__ import annotations

from dataclasses import dataclass

from snowsdeploy.data.factory import is_factory
from snowsdeploy.data.open import open_samples, require_source
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy.stages.program import load, names_for, traced
from snowsdeploy.stages.samples import hold_source, in_batches, is_source, open_evaluation, require_fit
from snowsdeploy.tasks.evaluate import Judge


@dataclass(frozen=True)
class Inputs:
    """What a run works on.

    Attributes:
        program: The dense program.
        calibration: What it is pruned on.
        evaluation: What it is judged on; None where nothing was named.
        judge: What its outputs mean; None for a job that judges nothing.
    """

    program: Program
    calibration: Samples
    evaluation: Samples | None = None
    judge: Judge | None = None


def load_inputs(settings: PlanJob, eval_data: str | None = None) -> Inputs:
    """MODEL and `--data` as a user types them.

    Args:
        settings: Of the job.
        eval_data: `--eval-data`; opened now, so that a wrong path is known before minutes are spent.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        DataError: Images cannot be read.
        UsageError: Nothing tells the preprocessing.
    """
    return hold_inputs(settings.model, settings.data, eval_data, settings)


def hold_inputs(model: object, data: object, eval_data: object, settings: PlanJob) -> Inputs:
    """What a Python program holds; strings and paths as the command line takes them.

    Inputs that are tensors are taken as they are.

    Args:
        model: A source, a module, a program of torch.export, or a `Program`.
        data: A source, a tensor, `(tensor, labels)`, a torch `Dataset`, an iterable of batches, or `Samples`.
        eval_data: The same; None for no evaluation.
        settings: Of the job; what they say of model and data is not read where those are objects.

    Raises:
        SourceError: The model cannot be used.
        GraphError: It cannot be traced.
        DataError: Images cannot be read, or do not have the model's input size.
        UsageError: Nothing tells the preprocessing, or an option does not fit the model.
    """
    for option, value in (("--data", data), ("--eval-data", eval_data)):
        if is_source(value) and not is_factory(str(value)) and (value or option == "--data"):
            require_source(str(value), option)  # before anything is asked about its images
    count, seed = settings.samples, settings.seed
    loaded = model if isinstance(model, Program) else load(model, settings)
    names = names_for(loaded, settings)
    calibration = hold_source(data, "--data" if is_source(data) else "data", names, count, seed)
    evaluation = hold_source(eval_data, "--eval-data" if is_source(eval_data) else "eval_data", names, None, seed)
    held = next((samples for samples in (calibration, evaluation) if samples is not None), None)
    source = str(data) if calibration is None else str(eval_data) if evaluation is None and eval_data else None
    program = loaded if isinstance(loaded, Program) else traced(loaded, settings, names, held, source)
    _require_real(program)
    for option, samples in (("data", calibration), ("eval_data", evaluation)):
        if samples is not None:
            require_fit(samples, program, option)
    if calibration is None:
        calibration = open_samples(str(data), program.preprocessing, program.inputs)
    if evaluation is None and eval_data is not None:
        evaluation = open_evaluation(str(eval_data), program)
    elif evaluation is not None:
        evaluation = in_batches(evaluation, program, "--eval-data")
    return Inputs(program, in_batches(calibration.sample(count, seed).identified(), program, "--data"), evaluation)


def _require_real(program: Program) -> None:
    """Refuse a model of whole numbers where images are made into real ones.

    Raises:
        UsageError: It takes them, and nothing says that the data are as it wants them.
    """
    info = program.inputs[0]
    if program.preprocessing is not None and not info.dtype.startswith("float"):
        raise UsageError(
            "the model takes whole numbers, and images become real ones",
            seen=str(info),
            allowed="arrays of whole numbers, taken as they are",
            fix=f"put the values themselves into an .npz file as {info.name}, and leave out --mean and --std; "
            f"the input is --input {info.name}={','.join(map(str, info.shape))}:{info.dtype}",
        )
