"""Several processes give what one gives, up to the order of sums."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snowsdeploy import distributed
from snowsdeploy.models.program import Program
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.reconstruct import Reconstruction
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.sparsity.pattern import Pattern
from tests.nets import NETS, make_program

REPOSITORY = Path(__file__).resolve().parents[2]
BATCHES = list(
    torch.randn(26, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double().split(4)
)  # seven, the last shorter
LAYERS = {"cnn": ["strided.weight", "dilated.weight"], "attention": ["qkv.weight", "fc2.weight"]}
PATTERN = Pattern(2, 4)


def make(net: str) -> Program:
    """In float64, where another order of sums cannot grow to anything visible."""
    torch.manual_seed(0)
    program = make_program(NETS[net]())
    return program.with_weights({n: t.double() for n, t in program.state_dict.items() if t.is_floating_point()})


def plan(held_back: int, curvature_batches: int) -> Plan:
    newton = NewtonCG(max_steps=1)  # every step makes what rounding left some thousand times larger
    method = Reconstruction(
        horizon="block", targets="auto", newton=newton, free=True, curvature_batches=curvature_batches
    )
    final = Reconstruction(horizon="block", targets=1.0, newton=newton, free=True)
    return Plan(method, layers=2, sensitivity=0.5, held_back=held_back, reestimate=True, final=final)


@pytest.mark.parametrize("net", ["cnn", "attention"])
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_what_one_gives(net: str, processes: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "tests.pruning.distributed_worker", net, str(tmp_path)]
    paths = (REPOSITORY, REPOSITORY / "cli", REPOSITORY / "exporters")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = prune_program(make(net), BATCHES, LAYERS[net], PATTERN, plan(1, 2), observer=NullObserver()).tensors
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for name, tensor in alone.items():
        assert all(torch.equal(part[name], found[0][name]) for part in found)  # the same bits everywhere
        if name in LAYERS[net]:
            assert torch.equal(found[0][name] != 0, tensor != 0)
        assert float((found[0][name] - tensor).norm()) <= 1e-2 * float(tensor.norm())


@pytest.mark.parametrize(("world", "batches"), [(1, 5), (2, 7), (3, 7), (4, 2)])
def test_every_batch_is_somebodys(world: int, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: world)
    numbers, shares = [], []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.share(batches))
        numbers += [distributed.number(own) for own in range(shares[-1])]
        assert len(range(batches)[rank::world]) == shares[-1]
    assert sorted(numbers) == list(range(batches))
