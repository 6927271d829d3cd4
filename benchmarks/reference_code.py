"""The public reference implementation of SNOWS, run from a checkout: nothing of it is part of this repository.

At commit 750497f its CNN code does not import: a function without a body gets `pass`, the module `helpers` is the one
beside its solver, and `joblib`, which the solver does not use here, is a stub where it is not installed. All of that
happens in memory. Its settings are those of its own N:M script: batches of 128, 3 passes, at most 1,000 CG iterations,
absolute tolerance 1e-3 and damping 1e-4, starting at the masked weights.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

SOLVER_SHA256 = "06da5fcf9d65436ee378d76b6022cb267ac4e4fec6e3eb4baeb2a90858be4b60"
SETTINGS: dict[str, Any] = {"newton_steps": 3, "CG_iterations": 1000, "batch_size": 128}
Observe = Callable[..., None]


class OutOfTimeError(Exception):
    """The time limit has passed; what was reached until then counts."""


@dataclass
class ReferenceRun:
    """What one solve of the reference did.

    Attributes:
        steps: `(seconds, weight)` at the start and after each of its batches' steps.
        seconds: All of the solve.
        finished: Whether it came to its own end.
        last_loss: Its own loss before the last step; None when stopped.
        products: Hessian-vector products spent.
    """

    steps: list[tuple[float, Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = True
    last_loss: float | None = None
    products: int = 0


def load_reference(checkout: Path) -> Any:  # noqa: ANN401 - modules made at run time
    """Its solver and its ResNet as modules."""
    folder = checkout / "CNN_pruning"
    solver = folder / "prune" / "SNOWS.py"
    if not solver.is_file() or sha256(solver.read_bytes()).hexdigest() != SOLVER_SHA256:
        sys.exit(f"--reference {checkout}: must be a checkout of mazumder-lab/SNOWS at commit 750497f")
    stubs = {"helpers": _load(folder / "prune" / "helpers.py", "helpers")}
    if importlib.util.find_spec("joblib") is None:
        stubs["joblib"] = _module("joblib", delayed=None, Parallel=None)
    with mock.patch.dict(sys.modules, stubs):
        found = _load(solver, "reference_snows")
        return SimpleNamespace(
            solver=found,
            product=found.__dict__["hessian_vector_product_chunks"],
            resnet=_load(folder / "model" / "resnet_cifar10_manual.py", "reference_resnet"),
        )


def _module(name: str, **members: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    return module


def _load(path: Path, name: str) -> ModuleType:
    """Run a file as a module; a function without a body gets one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    while True:
        try:
            code = compile("\n".join(lines), str(path), "exec")
            break
        except IndentationError as error:  # "expected an indented block after function definition on line N"
            _, found, line = str(error.msg).rpartition("function definition on line ")
            if not found:
                raise
            lines.insert(int(line), "    pass")
    module = _module(name)
    exec(code, module.__dict__)
    return module


def build_model(reference: Any, state: dict[str, Tensor]) -> nn.Module:  # noqa: ANN401
    """ResNet-20 in the reference's class; a padding shortcut is a 1x1 convolution with fixed weights.

    Args:
        reference: Its modules.
        state: Of the parameter-free class, with `linear` as the classifier.
    """
    model: nn.Module = reference.resnet.resnet20()
    state = {k.replace("linear.", "fc."): v for k, v in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or not all("downsample" in name for name in missing):
        sys.exit(f"the weights do not fit the reference's ResNet-20: {missing} {unexpected}")
    for stage in ("layer2", "layer3"):
        conv, norm = model.get_submodule(f"{stage}.0.downsample").children()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        weight = torch.zeros_like(conv.weight)
        outputs, inputs = weight.shape[:2]
        for channel in range(inputs):
            weight[(outputs - inputs) // 2 + channel, channel] = 1
        conv.weight.data, norm.eps = weight, 0.0
    model.name = "resnet20_cifar10"  # type: ignore[assignment] # its code tells models apart by this
    return model.eval()


class Watch:
    """The two functions of the solver that are replaced while it runs: they call the originals and keep a record."""

    def __init__(self, reference: Any, run: ReferenceRun, conv: str, limit: float, on_product: Observe | None) -> None:  # noqa: ANN401
        self._product, self._replace = reference.product, reference.solver.replace_func
        self._run, self._conv, self._limit, self._on_product = run, conv, limit, on_product
        self._started = time.perf_counter()

    def product(self, *arguments: Tensor) -> Tensor:
        """A Hessian-vector product.

        Raises:
            OutOfTimeError: The time limit has passed.
        """
        if self.seconds > self._limit:
            raise OutOfTimeError
        self._run.products += 1
        if self._on_product:
            self._on_product(*arguments)
        found: Tensor = self._product(*arguments)
        return found

    def replace(self, model: nn.Module, number: int, block: nn.Module) -> nn.Module:
        """Called with the changed block at the start and after each step."""
        weight = block.get_parameter(f"{self._conv}.weight").detach()
        self._run.steps.append((self.seconds, weight.clone()))
        found: nn.Module = self._replace(model, number, block)
        return found

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started


def solve(
    reference: Any,  # noqa: ANN401
    model: nn.Module,
    images: Tensor,
    *,
    layer: str,
    mask: Tensor,
    horizon: int,
    limit: float,
    on_product: Observe | None = None,
    settings: Mapping[str, Any] = SETTINGS,
) -> ReferenceRun:
    """Its solver on one layer; the forward pass of the images to the layer's block is not in the time.

    Args:
        reference: Its modules.
        model: Dense, in its class.
        images: `[n, 3, 32, 32]`.
        layer: `stage.block.conv`.
        mask: Boolean, of the weight's shape.
        horizon: K as it counts: convolutions and activations.
        limit: Seconds after which it is stopped, between two products.
        on_product: Called with each product's arguments.
        settings: Of its solver.
    """
    stage, block, conv = layer.split(".")
    dense, sparse = copy.deepcopy(model), copy.deepcopy(model)
    blocks = reference.solver.get_blocks(dense)
    index = [name for name, _ in blocks].index(f"{stage}.{block}")
    x = images
    with torch.no_grad():
        for _, module in blocks[:index]:
            x = module(x)
    weight, device = dense.get_parameter(f"{layer}.weight").detach().clone(), torch.device("cpu")
    given = (mask.float(), dense, sparse, x, index, horizon, len(blocks), device, 2, 4, weight, conv, blocks)
    run = ReferenceRun()
    watch = Watch(reference, run, conv, limit, on_product)
    with (
        mock.patch.object(reference.solver, "hessian_vector_product_chunks", watch.product),
        mock.patch.object(reference.solver, "replace_func", watch.replace),
    ):
        try:
            _, run.last_loss = reference.solver.solve_for_W_given_Z(*given, **settings)
        except OutOfTimeError:
            run.finished = False
    run.seconds = watch.seconds
    return run


def product_errors(reference: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Relative error of its product against autograd's on a layer `tanh(X W^T)`, below and above its chunk limit."""
    rows = []
    for kept, dtype in ((60_000, torch.float64), (120_000, torch.float64), (120_000, torch.float32)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(64, 400, dtype=dtype, generator=generator)
        weight = (torch.randn(kept // 200, 400, dtype=dtype, generator=generator) / 20).requires_grad_()
        mask = torch.tensor([True, False]).repeat(weight.numel() // 2).view(weight.shape)
        loss = torch.tanh(x @ (weight * mask).T).square().mean(0).sum()
        gradient = torch.autograd.grad(loss, weight, create_graph=True)[0] * mask
        vector = torch.randn(int(mask.sum()), dtype=dtype, generator=generator)
        error = product_error(reference, gradient, weight, vector, mask)
        rows.append({"kept": len(vector), "dtype": str(dtype).removeprefix("torch."), "relative_error": error})
    return rows


def product_error(  # noqa: PLR0917 - the reference's own order
    reference: Any,  # noqa: ANN401
    gradient: Tensor,
    weight: Tensor,
    vector: Tensor,
    mask: Tensor,
    chunk: float = 1e5,
) -> float:
    """Relative error of its product, with a chunk limit (its own is 1e5), against one call of autograd."""
    full = torch.zeros_like(weight).masked_scatter(mask, vector)
    exact = torch.autograd.grad(gradient, weight, full, retain_graph=True)[0][mask]
    found = reference.product(gradient, weight, vector, mask, max_chunk_size=chunk)
    return float((found - exact).norm() / exact.norm())
