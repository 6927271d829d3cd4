"""Products in reduced precision and compiled ones: used where they are near, and said so where they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.products import COMPILED_ERROR, REDUCED_ERROR, CompiledProduct, Products


def objective(program: Program) -> tuple[WindowObjective, Tensor]:
    """Of a window with two batches, the second smaller."""
    graph = ProgramGraph(program)
    name = list(graph.layers)[1]
    window = cut_window(graph, [name], 2, free=True)
    images = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images = images.to(next(iter(program.state_dict.values())).device)
    stream = Activations(graph, images.split(4), graph.state_values())
    stream.advance(window.calls[0])
    tensors = {p: stream.value(p) for p in window.weights}
    samples = []
    for batch in range(len(stream)):
        live = stream.live_ins(batch, window.live_ins)
        samples.append(Sample(live, tuple(1.1 * y + 0.1 for y in window(tensors, live))))
    masks = [
        mask_by_score(t.abs(), Pattern(2, 4)) if t.dim() > 1 else torch.ones_like(t, dtype=torch.bool)
        for t in tensors.values()
    ]
    support = Support(tuple(masks))
    return WindowObjective(window, support, samples), support.gather(list(tensors.values()))


def difference(found: WindowObjective, exact: WindowObjective, x: Tensor) -> float:
    """Along a direction that is neither the point nor what was probed."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    expected = exact.curvature(x)(v)
    return float((found.curvature(x)(v) - expected).norm() / expected.norm())


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_reduced_precision_keeps_its_bound(tiny: Program, precision: str) -> None:
    exact, x = objective(tiny)
    found, text = Products(precision).apply(exact, x)  # type: ignore[arg-type]
    assert found.product_precision == precision
    assert text.startswith(f"{precision} (error ")
    assert difference(found, exact, x) <= 2 * REDUCED_ERROR
    assert found.value(x) == exact.value(x)  # nothing but products


def test_tf32_is_asked_for_inside_a_product_only(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, x = objective(tiny)
    seen: list[bool] = []
    before, plain = torch.backends.cuda.matmul.allow_tf32, WindowObjective._gauss_newton

    def spy(*arguments: object) -> Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(WindowObjective, "_gauss_newton", spy)
    exact.curvature(x)(x)
    replace(exact, product_precision="tf32").curvature(x)(x)
    assert seen == [before, before, True, True]
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_what_errs_too_much_is_left_out_and_said(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snowsdeploy.pruning.solve.products.REDUCED_ERROR", 1e-9)
    exact, x = objective(tiny)
    found, text = Products("bfloat16").apply(exact, x)
    assert found is exact
    assert text.startswith("float32 (bfloat16 errs by ")


def test_compiled_products_are_the_same(tiny_cnn: Program) -> None:
    exact, x = objective(tiny_cnn)
    found, text = Products("bfloat16", compiler="eager").apply(exact, x)
    assert "compiled by eager (error " in text
    reduced = replace(exact, product_precision="bfloat16")
    assert difference(found, reduced, x) <= COMPILED_ERROR
    assert difference(found, reduced, x + 0.01) <= COMPILED_ERROR  # another point: only shapes are baked in


def test_traced_products_are_the_same(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    exact, x = objective(tiny)
    found, _ = Products(compiler="none").apply(exact, x)
    assert found is not exact
    for point in (x, x + 0.01):
        assert difference(found, exact, point) <= COMPILED_ERROR


def test_each_shape_is_compiled_once(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    exact, x = objective(tiny)
    product, made = CompiledProduct("none"), 0
    inner: Callable[..., Callable[..., Tensor]] = product._compile

    def counted(*arguments: object) -> Callable[..., Tensor]:
        nonlocal made
        made += 1
        return inner(*arguments)

    monkeypatch.setattr(product, "_compile", counted)
    run = replace(exact, product=product).curvature(x)
    for _ in range(3):
        run(x)
    assert made == 2  # a whole batch, and the smaller last one


@pytest.mark.parametrize("failure", ["raises", "wrong"])
def test_a_compiler_that_fails_costs_only_a_sentence(
    tiny: Program, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Callable[..., Tensor]:
        if failure == "raises":
            raise RuntimeError("no C++ compiler")
        return lambda x, v, *_: v * 2

    monkeypatch.setattr(torch, "compile", broken)
    exact, x = objective(tiny)
    found, text = Products(compiler="inductor").apply(exact, x)
    assert found is exact
    assert text.startswith("float32, not compiled: " + ("RuntimeError: no C++ compiler" if failure == "raises" else ""))


def test_all_processes_leave_out_what_one_cannot_compile(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    exact, x = objective(tiny)
    monkeypatch.setattr("snowsdeploy.pruning.solve.products.sum_number", lambda own: own + 1.0)  # the other's failure
    assert Products(compiler="none").apply(exact, x) == (exact, "float32, not compiled: in another process")


def test_compiled_tf32_products_are_asked_for_when_they_run(tiny: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def recording(traced: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
        def run(*arguments: Tensor) -> Tensor:
            seen.append(torch.backends.cuda.matmul.allow_tf32)
            return traced(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", recording)
    exact, x = objective(tiny)
    found, text = Products("tf32", compiler="none").apply(exact, x)
    assert "tf32" in text
    assert "compiled by none" in text
    found.curvature(x)(x)
    assert seen
    assert all(seen)


@pytest.mark.slow
def test_inductor_compiles_a_product(tiny: Program) -> None:
    exact, x = objective(tiny)
    found, text = Products(compiler="inductor").apply(exact, x)
    assert "compiled by inductor" in text
    assert difference(found, exact, x) <= COMPILED_ERROR
