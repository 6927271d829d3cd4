"""The SNOWS objective of a window on the calibration images, with its gradient and curvature products.

L(w) = sum_k c_k || y_k(w) - t_k ||^2_{M_k} / || t_k ||^2_{M_k}, with shares c_k that sum to one: every term is a
relative squared error and none dominates by its scale. M_k is a diagonal metric, the identity unless given: the
model's output curvature there makes an error count by what it does to the logits.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from snowsdeploy.device import matmul_tf32
from snowsdeploy.distributed import all_sum, sum_number
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.solver.cg import Product

with warnings.catch_warnings():
    # Forward mode loads these on first use, through a part of torch that warns about itself.
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

Curvature = Literal["gauss-newton", "hessian"]


@dataclass(frozen=True)
class Sample:
    """One calibration batch of a window.

    Attributes:
        live_ins: What flows in.
        targets: What should come out.
        items: How many images it has; no axis of a target tells, since a model may put time first.
    """

    live_ins: Mapping[Node, Any]
    targets: tuple[Tensor, ...]
    items: int = 1


@dataclass(frozen=True)
class Support:
    """The kept coordinates of several weights as one vector.

    Attributes:
        masks: Boolean mask of each weight, true where it is kept.
    """

    masks: tuple[Tensor, ...]
    _kept: tuple[Tensor, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", tuple(m.flatten().nonzero().squeeze(1) for m in self.masks))

    def gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """Weight-shaped tensors -> vector `[kept]`."""
        return torch.cat([t.flatten()[kept] for t, kept in zip(tensors, self._kept, strict=True)])

    def scatter(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Vector `[kept]` -> weight-shaped tensors, zero where pruned."""
        parts = vector.split([len(kept) for kept in self._kept])
        pairs = zip(parts, self._kept, self.masks, strict=True)
        return tuple(part.new_zeros(m.numel()).index_copy(0, kept, part).view(m.shape) for part, kept, m in pairs)


@dataclass(frozen=True)
class WindowObjective:
    """Implements `snowsdeploy.solver.objective.Objective` for a window.

    Attributes:
        window: The slice of the graph.
        support: Kept coordinates of its weights.
        samples: Calibration batches.
        preconditioner: `r -> M^-1 r` on the kept coordinates; None is the identity.
        curvature_kind: Gauss-Newton (positive semi-definite) or the exact Hessian.
        curvature_samples: How many of `samples` a curvature product sums over; its scale is corrected.
        metrics: Diagonal metric of each output, `[1, ...]` without the batch axis' size; None entries are the identity.
        shares: Weight of each output's term; empty is equal shares.
        product_precision: Of the window inside Gauss-Newton products; see `products`.
        passes: How J v of a Gauss-Newton product is computed: forward mode, or two reverse passes where an operator
            has no forward derivative.
        product: Computes a sample's Gauss-Newton product in place of `one_product`.
        scales: c_k M_k / ||t_k||^2.
        items: Images of each sample.
    """

    window: Window
    support: Support
    samples: Sequence[Sample]
    preconditioner: Product | None = None
    curvature_kind: Curvature = "gauss-newton"
    curvature_samples: int | None = None
    metrics: Sequence[Tensor | None] = ()
    shares: Sequence[float] = ()
    product_precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    passes: Literal["forward", "reverse"] = "forward"
    product: Callable[[WindowObjective, Tensor, Tensor, Sample], Tensor] | None = None
    scales: tuple[float | Tensor, ...] = field(init=False)
    items: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.window.outputs)
        metrics = [1.0 if m is None else m for m in self.metrics] or [1.0] * count
        shares = self.shares or [1.0 / count] * count
        energies, items = [0.0] * count, []
        for sample in self.samples:
            items.append(sample.items)
            for k, target in enumerate(sample.targets):
                energies[k] += float((target.double().square() * metrics[k]).sum())
        energies = all_sum(torch.tensor(energies, dtype=torch.float64, device="cpu")).tolist()
        # A target without energy carries no information: its term is left out.
        factors = (c / energy if energy > 0 else 0.0 for c, energy in zip(shares, energies, strict=True))
        object.__setattr__(self, "scales", tuple(m * f for m, f in zip(metrics, factors, strict=True)))
        object.__setattr__(self, "items", tuple(items))

    def having(self, **how: Any) -> WindowObjective:  # noqa: ANN401 - as the fields are
        """With another `preconditioner`, `product_precision` or `product`.

        Unlike `dataclasses.replace` it reads no sample again, which may be to compute them all once more.
        """
        assert how.keys() <= {"preconditioner", "product_precision", "product"}
        made = copy.copy(self)
        for name, value in how.items():
            object.__setattr__(made, name, value)
        return made

    def value(self, x: Tensor) -> float:
        """The objective at `x [kept]`, summed in float64."""
        weights = self._weights(self.support.scatter(x))
        with torch.no_grad():
            return sum_number(sum(float(self._loss(weights, sample).double()) for sample in self.samples))

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective and its gradient `[kept]`."""
        leaves = self._leaves(x)
        weights, total = self._weights(leaves), 0.0
        gradient = torch.zeros_like(x, dtype=torch.float64)
        for sample in self.samples:
            loss = self._loss(weights, sample)
            total += float(loss.detach().double())
            gradient += self.support.gather(torch.autograd.grad(loss, leaves))
        return sum_number(total), all_sum(gradient).to(x.dtype)

    def curvature(self, x: Tensor) -> Product:
        """`v -> B v` at `x`: the Gauss-Newton matrix or the Hessian of the (sub-sampled) objective."""
        used, size = self.curvature_part, self.curvature_share
        one = partial(self.product, self) if self.product else self.one_product

        def product(v: Tensor) -> Tensor:
            total = torch.zeros_like(v, dtype=torch.float64)  # so that who sums which batches does not show
            for sample in used:
                total += one(x, v, sample)
            return all_sum(total).div_(size).to(v.dtype)

        return product

    def product_flops(self, x: Tensor) -> float:
        """Floating-point operations of one curvature product: matrix products and convolutions, counted on a batch."""
        used = self.curvature_part
        flops = 0.0
        if len(used):
            full = self.having(product_precision="float32")  # the counter splits operators, which then mix types
            with FlopCounterMode(display=False) as counter:
                full.one_product(x, x, used[0])
            own = self.items[: len(used)]
            flops = float(counter.get_total_flops()) * sum(own) / own[0]
        return sum_number(flops)

    @property
    def curvature_part(self) -> Sequence[Sample]:
        """The samples that curvature products sum over."""
        return self.samples if self.curvature_samples is None else self.samples[: self.curvature_samples]

    @property
    def curvature_share(self) -> float:
        """Their images among all, of all processes."""
        used = self.items if self.curvature_samples is None else self.items[: self.curvature_samples]
        return sum_number(float(sum(used))) / sum_number(float(sum(self.items)))

    def precondition(self, residual: Tensor) -> Tensor:
        """`M^-1 r`."""
        return self.preconditioner(residual) if self.preconditioner else residual

    def one_product(self, x: Tensor, v: Tensor, sample: Sample) -> Tensor:
        """A sample's share of `curvature(x)(v)`; its targets are not read by a Gauss-Newton product."""
        if self.curvature_kind == "hessian":
            return self._hessian(x, v, sample)
        with matmul_tf32(True) if self.product_precision == "tf32" else nullcontext():
            return self._gauss_newton(x, v, sample) if self.passes == "forward" else self._reversed(x, v, sample)

    def _gauss_newton(self, x: Tensor, v: Tensor, sample: Sample) -> Tensor:
        # v -> J v (forward mode) -> 2 s_k J v -> J^T (reverse mode), on one evaluation of the window
        dtype, leaves, tangents, live_ins = self._rounded(x, v, sample)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(w, t) for w, t in zip(leaves, tangents, strict=True)]
            pairs = [forward_ad.unpack_dual(y) for y in self.window(self._weights(duals), live_ins)]
            live = [
                (y, (t.detach() * (2 * s)).to(dtype))
                for (y, t), s in zip(pairs, self.scales, strict=True)
                if t is not None
            ]
        # After the level ends: inside it the reverse pass would carry tangents too, which is the Hessian's price.
        gradients = torch.autograd.grad([y for y, _ in live], leaves, [u for _, u in live])
        return self.support.gather(gradients).detach().to(x.dtype)

    def _reversed(self, x: Tensor, v: Tensor, sample: Sample) -> Tensor:
        """The same without forward mode: `J^T u` is linear in u, and its derivative by u along v is `J v`."""
        dtype, leaves, tangents, live_ins = self._rounded(x, v, sample)
        pairs = zip(self.window(self._weights(leaves), live_ins), self.scales, strict=True)
        live = [(y, s, torch.zeros_like(y, requires_grad=True)) for y, s in pairs if y.requires_grad]
        outputs, probes = [y for y, _, _ in live], [u for _, _, u in live]
        pulled = torch.autograd.grad(outputs, leaves, probes, create_graph=True, materialize_grads=True)
        ends = [(g, t) for g, t in zip(pulled, tangents, strict=True) if g.requires_grad]
        pushed = torch.autograd.grad(
            [g for g, _ in ends], probes, [t for _, t in ends], retain_graph=True, materialize_grads=True
        )
        along = [(j.detach() * (2 * s)).to(dtype) for j, (_, s, _) in zip(pushed, live, strict=True)]
        gradients = torch.autograd.grad(outputs, leaves, along, materialize_grads=True)
        return self.support.gather(gradients).detach().to(x.dtype)

    def _rounded(
        self, x: Tensor, v: Tensor, sample: Sample
    ) -> tuple[torch.dtype, list[Tensor], list[Tensor], dict[Node, Any]]:
        """The precision of a product, and in it the weights to derive by, their tangents and what flows in."""
        dtype = torch.bfloat16 if self.product_precision == "bfloat16" else x.dtype
        leaves = [w.detach().to(dtype).requires_grad_() for w in self.support.scatter(x)]
        tangents = [t.to(dtype) for t in self.support.scatter(v)]
        return dtype, leaves, tangents, {n: _cast(value, x.dtype, dtype) for n, value in sample.live_ins.items()}

    def _hessian(self, x: Tensor, v: Tensor, sample: Sample) -> Tensor:
        leaves = self._leaves(x)
        gradients = torch.autograd.grad(self._loss(self._weights(leaves), sample), leaves, create_graph=True)
        products = torch.autograd.grad(gradients, leaves, self.support.scatter(v), materialize_grads=True)
        return self.support.gather(products)

    def _loss(self, weights: Mapping[Node, Tensor], sample: Sample) -> Tensor:
        outputs = self.window(weights, sample.live_ins)
        pairs = zip(outputs, sample.targets, self.scales, strict=True)
        return torch.stack([((y - t).square() * s).sum() for y, t, s in pairs]).sum()

    def _weights(self, tensors: Sequence[Tensor]) -> dict[Node, Tensor]:
        return dict(zip(self.window.weights, tensors, strict=True))

    def _leaves(self, x: Tensor) -> list[Tensor]:
        return [w.detach().requires_grad_() for w in self.support.scatter(x)]


def _cast(value: Any, source: torch.dtype, target: torch.dtype) -> Any:  # noqa: ANN401 - sizes are live-ins too
    return value.to(target) if isinstance(value, Tensor) and value.dtype == source != target else value
