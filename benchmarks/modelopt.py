"""ModelOpt's SparseGPT beside ours on the same images: accuracy of the ONNX file, seconds, and the layout of its masks.

Needs an environment of its own, since nothing here depends on it: `pip install nvidia-modelopt` beside this project.

    SNOWSDEPLOY_DATA=... python -m benchmarks.modelopt --model deit-tiny --samples 128

Its weights are taken over for the layers that we prune, so that both stand in the same model and go through the same
exporter. Writes `results/modelopt-MODEL-MACHINE.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import modelopt
import modelopt.torch.sparsity as mts
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.measure import Row, judge, run
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, write_rows
from snowsdeploy.data.open import open_samples
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.program import load_program

OURS = {
    "sparsegpt": {"selector": "sparsegpt", "solver": "none"},
    "sparsegpt, exact least squares": {"selector": "sparsegpt", "solver": "k0"},
    "sparsegpt, SNOWS": {"selector": "sparsegpt"},
    "default": {},
}


def main() -> None:
    """Both on the same images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="deit-tiny")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--only", action="append", choices=OURS, help="of ours; repeatable")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    store = options.out.resolve() / f"modelopt-{options.model}-{machine_name()}.json"
    enter_data()
    rows = [theirs(options.model, options.samples)]
    print(json.dumps(rows[0]), flush=True)
    for name in options.only or OURS:
        rows.append(run(name, options.model, OURS[name] | {"samples": options.samples, "seed": 0, "pattern": "2:4"}))
        print(json.dumps({k: rows[-1][k] for k in ("name", "top1", "low", "high", "kl", "seconds")}), flush=True)
    command = f"python -m benchmarks.modelopt --model {options.model} --samples {options.samples}"
    write_rows(store, command, rows)


def theirs(model: str, samples: int) -> Row:
    """ModelOpt's `sparsegpt` mode with its own defaults, in the layers that we prune."""
    config = read_settings(MainJob, MODELS[model] | {"out": "unused", "samples": samples})
    program = load_program(config, config.data)
    loaded = load_model(ModelRequest(config.model, config.arch)).model
    assert isinstance(loaded, nn.Module)
    images = open_samples(config.data, program.preprocessing).sample(samples, config.seed)
    batches: Any = DataLoader(list(images.batches(config.batch_size)), batch_size=None)  # type: ignore[arg-type]
    settings = {"data_loader": batches, "collect_func": lambda batch: batch}
    started = time.perf_counter()
    pruned = mts.export(mts.sparsify(loaded, mode="sparsegpt", config=settings))
    seconds = time.perf_counter() - started
    state: dict[str, Tensor] = pruned.state_dict()
    pattern = Pattern(2, 4)
    decisions = [d for d in decide_layers(ProgramGraph(program), pattern) if d.prunable and d.weight]
    tensors = {d.weight: state[d.weight] for d in decisions if d.weight}
    broken = {d.name: count_violations(tensors[d.weight], pattern) for d in decisions if d.weight}
    return {
        "name": f"ModelOpt {modelopt.__version__} sparsegpt",
        "images": samples,
        "seconds": round(seconds, 1),
        "zeros": {d.name: round(float((tensors[d.weight] == 0).double().mean()), 4) for d in decisions if d.weight},
        "layers": len(decisions),
        "layers_valid": sum(not violations for _, violations in broken.values()),
        "broken_groups": {name: f"{bad} of {groups}" for name, (groups, bad) in broken.items() if bad},
        **judge(model, program.with_weights(tensors)),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
