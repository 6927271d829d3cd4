"""Curvature products in reduced precision or compiled, used only where they stay near the exact ones.

A conjugate-gradient step forgives a product that errs by less than what the few steps leave unsolved; gradients,
objective values and line searches stay in the weights' precision, so that nothing is accepted on a rounded figure.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from snowsdeploy.device import matmul_tf32
from snowsdeploy.distributed import sum_number
from snowsdeploy.errors import first_line
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

        What errs by more than its bound, along a random direction on the first sample and on the last, or cannot be
        compiled, is left out, and the text says so. All processes come to the same.
        """
        full = str(x.dtype).removeprefix("torch.")
        if objective.curvature_kind == "hessian" or self == Products():
            return objective, full
        probe = _Probe(objective, x)
        exact, found, texts = probe.products(objective), objective, [full]
        if self.precision != "float32":
            trial = found.having(product_precision=self.precision)
            products = probe.products(trial)
            error = _error(products, exact)
            if error <= REDUCED_ERROR:
                found, exact, texts = trial, products, [f"{self.precision} (error {error:.2g})"]
            else:
                texts = [f"{full} ({self.precision} errs by {error:.2g})"]
        if self.compiler:
            found, text = _compiled(found, probe, exact, self.compiler)
            texts.append(text)
        return found, ", ".join(texts)


class _Probe:
    """Products of this process alone, along a random direction: on its first sample and on its last, maybe smaller."""

    def __init__(self, objective: WindowObjective, x: Tensor) -> None:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype, device="cpu")
        self._x, self._v = x, noise.to(x.device)
        part = objective.curvature_part
        self._samples = [objective.samples[0], *([part[-1]] if len(part) > 1 else [])]

    def products(self, objective: WindowObjective) -> Tensor:
        """One after the other, as one vector."""
        one = partial(objective.product, objective) if objective.product else objective.one_product
        return torch.cat([one(self._x, self._v, sample) for sample in self._samples])


def _error(found: Tensor, exact: Tensor) -> float:
    """Relative, over all processes."""
    return math.sqrt(_squares(found - exact) / max(_squares(exact), torch.finfo(torch.float64).tiny))


def _squares(vector: Tensor) -> float:
    return sum_number(float(vector.double().square().sum()))


def _compiled(objective: WindowObjective, probe: _Probe, exact: Tensor, compiler: str) -> tuple[WindowObjective, str]:
    trial, found, reason = objective.having(product=CompiledProduct(compiler)), None, "in another process"
    try:
        found = probe.products(trial)
    except Exception as failure:  # a compiler raises whatever it likes; the products in PyTorch are at hand
        reason = f"{type(failure).__name__}: {first_line(failure, 120)}"
    if sum_number(float(found is None)) or found is None:
        return objective, f"not compiled: {reason}"
    error = _error(found, exact)
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
        tf32 = matmul_tf32(True) if objective.product_precision == "tf32" else nullcontext()
        with _quiet(), tf32:
            found = self._compiled[shape](x, v, *scales, *tensors)
            return found.clone()  # a CUDA graph writes to the same memory again

    def _compile(
        self, one: Callable[..., Tensor], x: Tensor, v: Tensor, tensors: list[Tensor]
    ) -> Callable[..., Tensor]:
        with _quiet():
            traced = make_fx(one)(x, v.clone(), *tensors)  # the same tensor twice would be traced as one input
            options: dict[str, Any] = {"mode": "reduce-overhead"} if x.is_cuda else {}
            compiled: Callable[..., Tensor] = torch.compile(traced, backend=self._compiler, dynamic=False, **options)
            return compiled


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing and compiling warn about themselves; nothing in it is for the user of this tool."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
