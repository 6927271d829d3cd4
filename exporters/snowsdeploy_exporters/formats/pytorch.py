"""PyTorch: the pruned program, and its weights with what was pruned; `semi_structured` loads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from snowsdeploy.stages.packages import Contents

PROGRAM, WEIGHTS = "model.pt2", "model.safetensors"


def write_torch(contents: Contents, folder: Path) -> Sequence[str]:
    """Write `model.pt2` and `model.safetensors`; the latter's metadata say which weights hold which pattern."""
    program, report = contents.pruned, contents.prune
    program.save(folder / PROGRAM)
    tensors = {name: value.detach().clone().contiguous() for name, value in program.state_dict.items()}
    layers = [{"name": d.name, "weight": d.weight, "kind": d.kind} for d in report.pruned]
    metadata = {
        "format": "pt",
        "pattern": report.pattern,
        "pruned": json.dumps(layers),
        "source": Path(program.source.source).name,
        "source_sha256": program.source.sha256 or "none",
        "arch": program.source.arch or "none",
    }
    save_file(tensors, folder / WEIGHTS, metadata)
    return ["snowsdeploy_exporters.semi_structured loads it with sparse kernels for its linear layers"]
