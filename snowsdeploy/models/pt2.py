"""Reading `.pt2` files: torch.export programs, with the preprocessing that this package puts beside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch.export import ExportedProgram

from snowsdeploy.errors import SourceError, cause, first_line
from snowsdeploy.models.pt2_safety import find_code
from snowsdeploy.models.quiet import silent_loggers
from snowsdeploy.values import ModelSignature, Preprocessing


@dataclass(frozen=True)
class SavedProgram:
    """What a `.pt2` file holds.

    Attributes:
        exported: The program.
        preprocessing: Where `Program.save` put it there.
        signature: Likewise.
    """

    exported: ExportedProgram
    preprocessing: Preprocessing | None = None
    signature: ModelSignature | None = None


def read_pt2(path: Path, *, allow_pickle: bool = False) -> SavedProgram:
    """A program, and what `Program.save` put beside it.

    Args:
        path: The file.
        allow_pickle: Load it even when it can run code; see `snowsdeploy.models.pt2_safety`.

    Raises:
        SourceError: The file cannot be loaded, or could run code and that is not allowed.
    """
    extra = {"preprocessing.json": "", "signature.json": ""}
    try:
        code = None if allow_pickle else find_code(path)
        with silent_loggers("torch.export", "torch._export.serde.serialize"):  # of what is then raised
            exported = torch.export.load(path, extra_files=extra) if code is None else None
        text, names = extra["preprocessing.json"], extra["signature.json"]
        preprocessing = Preprocessing.model_validate_json(text) if text else None
        signature = ModelSignature.model_validate_json(names) if names else None
    except ValidationError as error:
        raise SourceError(
            "what lies beside the program in the .pt2 file cannot be read",
            seen=f"{path}: {first_line(error)}",
            allowed="the preprocessing and signature that this version of snowsdeploy writes",
            fix="export the program again",
        ) from error
    except Exception as error:  # as in `files.reading`
        raise SourceError(
            "the .pt2 file cannot be loaded",
            seen=f"{path}: {cause(error)}",
            allowed="a program that torch.export.save wrote, with this version of torch or an older one",
            fix="export it again with this version of torch",
        ) from error
    if exported is None:
        raise SourceError(
            "loading the .pt2 file could run code, or never end",
            seen=f"{path}: {code}",
            allowed="a graph of ATen operators with tensors as raw bytes",
            fix="only if you trust whoever made the file, add --allow-pickle",
        )
    return SavedProgram(exported, preprocessing, signature)
