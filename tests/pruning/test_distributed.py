"""Several processes give what one gives, up to the order of sums."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snowsdeploy import distributed
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.importance.masks import Selection
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors import make_selector
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG
from tests.nets import NETS, make_program

REPOSITORY = Path(__file__).resolve().parents[2]
# seven batches, the last shorter
BATCHES = torch.randn(26, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double().split(4)
LABELS = torch.randint(0, 5, (26,), generator=torch.Generator().manual_seed(2)).split(4)
LAYERS = {"cnn": ["strided.weight", "dilated.weight"], "attention": ["qkv.weight", "fc2.weight"]}
PATTERN = Pattern(2, 4)
CASES = {
    "cnn": ("cnn", Selection()),
    "attention": ("attention", Selection(make_selector("sparsegpt", {}))),
    "woodfisher": ("cnn", Selection(make_selector("woodfisher", {"gradients": 21}))),
    "woodfisher of batches": ("cnn", Selection(make_selector("woodfisher", {"gradients": 5, "batch": 3}))),
    "qm": ("cnn", Selection(make_selector("qm", {}), steps=2)),
    "sampled": ("cnn", Selection(make_selector("obd", {"passes": 3}), labels="sampled")),
}


def prune(case: str, batches: Sequence[Tensor], labels: Tensor, held_back: int, curvature: int) -> dict[str, Tensor]:
    """In float64, where another order of sums cannot grow to anything visible."""
    net, selection = CASES[case]
    torch.manual_seed(0)
    program = make_program(NETS[net]())
    program = program.with_weights({n: t.double() for n, t in program.state_dict.items() if t.is_floating_point()})
    # conjugate gradients beyond convergence would follow what rounding left
    newton = NewtonCG(max_steps=1, cg=ConjugateGradient(max_iterations=5))
    method = Reconstruction(horizon="block", targets="auto", newton=newton, free=True, curvature_batches=curvature)
    final = Reconstruction(horizon="block", targets=1.0, newton=newton, free=True)
    plan = Plan(method, selection, layers=2, sensitivity=0.5, held_back=held_back, reestimate=True, final=final)
    return prune_program(program, batches, LAYERS[net], PATTERN, plan, observer=NullObserver(), labels=labels).tensors


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    processes = 3
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "tests.pruning.distributed_worker", str(tmp_path)]
    paths = (REPOSITORY, REPOSITORY / "cli", REPOSITORY / "exporters")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for case, (net, _) in CASES.items():
        alone = prune(case, BATCHES, torch.cat(LABELS), 1, 2)
        found = [torch.load(tmp_path / f"{case}-{rank}.pt") for rank in range(processes)]
        for name, tensor in alone.items():
            assert all(torch.equal(part[name], found[0][name]) for part in found)  # the same bits everywhere
            if name in LAYERS[net]:
                assert torch.equal(found[0][name] != 0, tensor != 0), case
            assert float((found[0][name] - tensor).norm()) <= 1e-9 * float(tensor.norm()), (case, name)


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
