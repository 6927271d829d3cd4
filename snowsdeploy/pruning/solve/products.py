"""Curvature products in reduced precision or compiled, used only where they stay near the exact ones.

A conjugate-gradient step forgives a product that errs by less than what the few steps leave unsolved; gradients,
objective values and line searches stay in the weights' precision, so that nothing is accepted on a rounded figure.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from snowsdeploy.pruning.solve.objective import Sample, WindowObjective

Precision = Literal["float32", "tf32", "bfloat16"]
OneProduct = Callable[[WindowObjective, Tensor, Tensor, Sample], Tensor]

REDUCED_ERROR = 0.02  # relative, of a product in reduced precision: far below what ten iterations leave unsolved
COMPILED_ERROR = 1e-4  # the same sums in another order


@dataclass(frozen=True)
class Products:
    """How Gauss-Newton products are computed.

    Attributes:
        precision: Of the window inside a product. `tf32`: matrix products and convolutions of float32 values with
            ten bits of mantissa, where the device has them; on others it is float32.
        compiler: A back end of `torch.compile`, for which the product is traced as one graph; on a GPU it is then
            recorded as a CUDA graph, since the kernels of a small window are shorter than their launches.
    """

    precision: Precision = "float32"
    compiler: str | None = None

    def apply(self, objective: WindowObjective, x: Tensor) -> tuple[WindowObjective, str]:
        """The objective with its products computed so, and what it came to, in words.

        What errs by more than its bound on the first sample, or cannot be compiled, is left out, and the text says so.
        """
        full = str(x.dtype).removeprefix("torch.")
        if objective.curvature_kind == "hessian" or self == Products():
            return objective, full
        one = replace(objective, samples=objective.samples[:1], curvature_samples=None)
        exact = one.curvature(x)(x)
        found, texts = objective, [full]
        if self.precision != "float32":
            trial = replace(found, product_precision=self.precision)
            error = _error(replace(trial, samples=one.samples, curvature_samples=None), x, exact)
            if error <= REDUCED_ERROR:
                found, texts, exact = trial, [f"{self.precision} (error {error:.2g})"], _product(trial, one, x)
            else:
                texts = [f"{full} ({self.precision} errs by {error:.2g})"]
        if self.compiler:
            found, text = _compiled(found, one, x, exact, self.compiler)
            texts.append(text)
        return found, ", ".join(texts)


def _product(objective: WindowObjective, one: WindowObjective, x: Tensor) -> Tensor:
    return replace(objective, samples=one.samples, curvature_samples=None).curvature(x)(x)


def _error(objective: WindowObjective, x: Tensor, exact: Tensor) -> float:
    return float((objective.curvature(x)(x) - exact).norm() / exact.norm())


def _compiled(
    objective: WindowObjective, one: WindowObjective, x: Tensor, exact: Tensor, compiler: str
) -> tuple[WindowObjective, str]:
    try:
        trial = replace(objective, product=CompiledProduct(compiler))
        error = _error(replace(trial, samples=one.samples, curvature_samples=None), x, exact)
    except Exception as reason:  # a compiler raises whatever it likes; the products in PyTorch are at hand
        return objective, f"not compiled: {type(reason).__name__}: {str(reason).splitlines()[0][:120]}"
    if not error <= COMPILED_ERROR:
        return objective, f"not compiled: errs by {error:.2g}"
    return trial, f"compiled by {compiler} (error {error:.2g})"


class CompiledProduct:
    """`(objective, x, v, sample) -> B v`, traced and compiled once for each shape of a sample."""

    def __init__(self, compiler: str) -> None:
        """With a back end of `torch.compile`."""
        self._compiler = compiler
        self._compiled: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __call__(self, objective: WindowObjective, x: Tensor, v: Tensor, sample: Sample) -> Tensor:
        """One sample's product."""
        nodes = list(sample.live_ins)
        values = [sample.live_ins[n] for n in nodes]
        tensors = [value for value in values if isinstance(value, Tensor)]
        scales = [torch.as_tensor(s, device=x.device) for s in objective.scales]  # inputs too: they follow the samples
        shape = tuple((value.shape, value.stride()) if isinstance(value, Tensor) else value for value in values)
        if shape not in self._compiled:
            plain = copy.copy(objective)

            def one(x: Tensor, v: Tensor, *given: Tensor) -> Tensor:
                object.__setattr__(plain, "scales", given[: len(scales)])
                rest: Iterator[Tensor] = iter(given[len(scales) :])
                filled = {n: next(rest) if isinstance(a, Tensor) else a for n, a in zip(nodes, values, strict=True)}
                with torch.enable_grad():
                    return plain.one_product(x, v, Sample(filled, ()))

            self._compiled[shape] = self._compile(one, x, v, [*scales, *tensors])
        with _quiet():
            return self._compiled[shape](
                x, v, *scales, *tensors
            ).clone()  # a CUDA graph writes to the same memory again

    def _compile(
        self, one: Callable[..., Tensor], x: Tensor, v: Tensor, tensors: list[Tensor]
    ) -> Callable[..., Tensor]:
        with _quiet():
            traced = make_fx(one)(x, v, *tensors)
            options: dict[str, Any] = {"mode": "reduce-overhead"} if x.is_cuda else {}
            compiled: Callable[..., Tensor] = torch.compile(traced, backend=self._compiler, dynamic=False, **options)
            return compiled


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing and compiling warn about themselves; nothing in it is for the user of this tool."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
