"""The solve on a GPU: the same products and weights as on the CPU, wherever its activations lie."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from snowsdeploy.data.memory import hold
from snowsdeploy.models.program import Program
from snowsdeploy.pruning.solve.products import Products
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.stages.prune import Pruned, prune
from tests.pruning.test_products import objective

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that PyTorch can use")
CUDA = torch.device("cuda", 0)


def pruned(program: Program, device: str, activations: str = "auto", **settings: object) -> Pruned:
    """On 24 images, in batches of 8."""
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    given: dict[str, Any] = {"batch_size": 8, "horizon": 2} | settings
    resources = ResourceSettings.model_validate({"device": device, "activations": activations})
    return prune(program, hold(images, option="data"), PruneSettings.model_validate(given), resources)


def apart(found: Pruned, exact: Pruned) -> float:
    """Largest relative difference of a tensor."""
    return max(float((found.tensors[n] - t).norm() / t.norm()) for n, t in exact.tensors.items())


def test_products_are_those_of_the_cpu(tiny: Program) -> None:
    exact, x = objective(tiny)
    found, there = objective(tiny.on(CUDA))
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    expected = exact.curvature(x)(v)
    assert float((found.curvature(there)(v.to(CUDA)).cpu() - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("compiler", [None, pytest.param("inductor", marks=pytest.mark.slow)])
def test_reduced_and_compiled_products_run(tiny: Program, precision: str, compiler: str | None) -> None:
    exact, x = objective(tiny.on(CUDA))
    found, text = Products(precision, compiler).apply(exact, x)  # type: ignore[arg-type]
    assert text.startswith(f"{precision} (error ")
    assert compiler is None or f"compiled by {compiler}" in text
    assert found.product_flops(x) == exact.product_flops(x) > 0
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(CUDA)
    expected = exact.curvature(x)(v)
    assert float((found.curvature(x)(v) - expected).norm() / expected.norm()) < 0.04


@pytest.mark.parametrize("selector", ["magnitude", "wanda", "sparsegpt", "woodfisher", "exchange"])
def test_weights_are_those_of_the_cpu(tiny_cnn: Program, selector: str) -> None:
    exact, found = (pruned(tiny_cnn, device, selector=selector) for device in ("cpu", "cuda"))
    assert found.report.device == "cuda:0"
    assert all(tensor.device.type == "cpu" for tensor in found.tensors.values())
    assert apart(found, exact) < 1e-2  # conjugate gradients in float32 end a little elsewhere
    for name, mask in exact.masks.items():
        assert float((found.masks[name] != mask).float().mean()) < 0.02


def test_two_runs_give_the_same_weights(tiny: Program) -> None:
    first, second = (pruned(tiny, "cuda") for _ in range(2))
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


@pytest.mark.parametrize("activations", ["host", "half", "disk", "recompute"])
def test_where_activations_lie_changes_no_more_than_rounding(tiny: Program, activations: str) -> None:
    exact = pruned(tiny, "cuda")
    found = pruned(tiny, "cuda", activations=activations)
    assert found.report.memory is not None
    assert found.report.memory.storage == activations
    if activations == "half":
        assert apart(found, exact) < 2e-2
    else:
        assert all(torch.equal(tensor, exact.tensors[name]) for name, tensor in found.tensors.items())
