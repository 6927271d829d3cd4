"""Which account of an engine belongs to which precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from snowsdeploy.engines.account import EngineAccount, read_account
from snowsdeploy.engines.evidence import require_same_model
from snowsdeploy.errors import SourceError, UsageError
from snowsdeploy.layout.onnx_layout import graph_nodes
from snowsdeploy.values import ExportReport, Precision

_PRECISIONS: dict[str, Precision] = {name: name for name in get_args(Precision)}


def read_accounts(
    logs: Sequence[str], layers: Sequence[str], artifacts: ExportReport
) -> dict[Precision, EngineAccount]:
    """Read every file and see that it is of its model, before anything is measured.

    Args:
        logs: Values of `--engine-log`.
        layers: Values of `--engine-layers`.
        artifacts: The run's files.

    Raises:
        UsageError: It is not clear which precision a file belongs to.
        SourceError: A file cannot be read, is not what it should be, or is of another model.
    """
    log_paths = by_precision(logs, artifacts.asked, "--engine-log")
    layer_paths = by_precision(layers, artifacts.asked, "--engine-layers")
    accounts = {}
    for pair in artifacts.judged:
        log, described = log_paths.get(pair.precision), layer_paths.get(pair.precision)
        if log is not None or described is not None:
            account = read_account(log, described)
            if account.log is not None and not account.log.passes and described is None:
                raise SourceError(
                    "--engine-log tells nothing of sparse kernels",
                    seen=f"{log}: {account.log.reason}",
                    allowed="the log of a build with sparsity enabled and detailed output",
                    fix="build the engine again with trtexec --sparsity=enable --verbose, and give its output",
                )
            require_same_model(account, graph_nodes(pair.sparse.path), pair.sparse.path)
            accounts[pair.precision] = account
    return accounts


def by_precision(texts: Sequence[str], asked: Sequence[Precision], option: str) -> dict[Precision, Path]:
    """`fp16=FILE` belongs to FP16; a plain `FILE` to the only precision that the run was asked for.

    Args:
        texts: Values of the option.
        asked: Precisions of the run.
        option: For the message.

    Raises:
        UsageError: Several precisions and a plain file, a precision that the run does not have, or two files for one.
    """
    files: dict[Precision, Path] = {}
    for text in texts:
        head, equals, tail = text.partition("=")
        named = _PRECISIONS.get(head) if equals else None
        if named is None and len(asked) > 1:
            allowed = " or ".join(f"{precision}=FILE" for precision in asked)
            raise UsageError(
                f"{option} does not say which precision it is of",
                seen=text,
                allowed=allowed,
                fix=f"write {option} {asked[0]}=FILE for the file of {asked[0]}",
            )
        precision = named or asked[0]
        if precision not in asked:
            raise UsageError(
                f"{option} is of a precision that the run does not have",
                seen=text,
                allowed=", ".join(asked),
                fix=f"leave it out, or export the run with --precision {precision} first",
            )
        if precision in files:
            raise UsageError(
                f"{option} has two files for {precision}",
                seen=f"{files[precision]}, {text}",
                allowed="one file for each precision",
                fix="leave one of them out",
            )
        files[precision] = Path(tail if named else text)
    return files
