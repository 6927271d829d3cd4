"""Conjugate gradients, masked least squares and Newton against dense float64 solutions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snowsdeploy.solver.cg import ConjugateGradient, Product
from snowsdeploy.solver.least_squares import MaskedCholesky, SharedCholesky, masked_least_squares, solve_and_factor
from snowsdeploy.solver.newton import BacktrackingLineSearch, NewtonCG
from snowsdeploy.solver.result import CGOutcome, Outcome


def positive_definite(n: int, seed: int = 0) -> Tensor:
    root = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.T + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_cg_equals_a_direct_solve(preconditioned: bool) -> None:
    matrix, b = positive_definite(30), torch.randn(30, dtype=torch.float64)
    inverse = (lambda r: r / matrix.diagonal()) if preconditioned else None
    solver = ConjugateGradient(max_iterations=300, relative_tolerance=1e-12, truncation=0)
    solution = solver.solve(lambda v: matrix @ v, b, inverse)
    assert solution.outcome is CGOutcome.CONVERGED
    torch.testing.assert_close(solution.value, torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-8)
    model = float(b @ solution.value - 0.5 * solution.value @ matrix @ solution.value)
    assert solution.model_decrease == pytest.approx(model, rel=1e-8)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_damping_is_that_of_the_preconditioners_matrix(preconditioned: bool) -> None:
    """`(A + 0.5 M) x = b`, where only products with A and with the inverse of M are at hand."""
    generator = torch.Generator().manual_seed(7)
    root, other = (torch.randn(12, 12, dtype=torch.float64, generator=generator) for _ in range(2))
    a, b = root @ root.T, torch.randn(12, dtype=torch.float64, generator=generator)
    m = other @ other.T + torch.eye(12, dtype=torch.float64) if preconditioned else torch.eye(12, dtype=torch.float64)
    apply = (lambda r: torch.linalg.solve(m, r)) if preconditioned else None
    cg = ConjugateGradient(max_iterations=60, relative_tolerance=1e-10, truncation=0.0, damping=0.5)
    found = cg.solve(lambda v: a @ v, b, apply)
    torch.testing.assert_close(found.value, torch.linalg.solve(a + 0.5 * m, b), rtol=1e-6, atol=1e-8)


def test_exact_preconditioner_needs_one_step() -> None:
    matrix, b = positive_definite(20), torch.randn(20, dtype=torch.float64)
    solution = ConjugateGradient().solve(lambda v: matrix @ v, b, lambda r: torch.linalg.solve(matrix, r))
    assert (solution.outcome, solution.iterations) == (CGOutcome.CONVERGED, 1)


def test_cg_stops_at_negative_curvature_with_a_descent_direction() -> None:
    matrix = torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    b = torch.tensor([0.1, 1.0, 0.1], dtype=torch.float64)
    solution = ConjugateGradient().solve(lambda v: matrix @ v, b)
    assert solution.outcome is CGOutcome.NEGATIVE_CURVATURE
    assert float(b @ solution.value) > 0


def test_cg_keeps_the_point_in_front_of_negative_curvature() -> None:
    """In two dimensions with one negative eigenvalue the second direction is the negative one: one step by hand."""
    matrix, b = torch.diag(torch.tensor([2.0, -1.0]).double()), torch.tensor([2.0, 1.0]).double()
    solution = ConjugateGradient().solve(lambda v: matrix @ v, b)
    assert (solution.outcome, solution.iterations) == (CGOutcome.NEGATIVE_CURVATURE, 2)
    torch.testing.assert_close(solution.value, 5 / 7 * b)  # b.b / b.A.b
    assert solution.model_decrease == pytest.approx(25 / 14)
    first = ConjugateGradient().solve(lambda v: -v, b)
    assert (first.outcome, first.iterations) == (CGOutcome.NEGATIVE_CURVATURE, 1)
    assert torch.equal(first.value, b)


def test_cgs_inner_products_are_summed_in_float64() -> None:
    """The curvature along b is exactly 1, a sum of terms up to 1e7 that cancel; in float32 it is off by more than 1."""
    generator = torch.Generator().manual_seed(0)
    terms = 1e6 + 9e6 * torch.rand(1000, generator=generator)
    diagonal = torch.cat([terms, -terms[torch.randperm(1000, generator=generator)], torch.ones(1)])
    solver = ConjugateGradient(max_iterations=1, relative_tolerance=0, truncation=0)
    solution = solver.solve(lambda v: diagonal * v, torch.ones(2001))
    assert solution.outcome is CGOutcome.BUDGET
    assert torch.equal(solution.value, torch.full((2001,), 2001.0))


def test_cg_truncates_when_the_model_stalls() -> None:
    matrix = torch.diag(torch.logspace(0, 8, 200, dtype=torch.float64))
    b = torch.ones(200, dtype=torch.float64)
    solution = ConjugateGradient(max_iterations=200, relative_tolerance=0, truncation=0.05).solve(
        lambda v: matrix @ v, b
    )
    assert solution.outcome is CGOutcome.TRUNCATED
    assert solution.iterations < 200


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 6), width=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_masked_least_squares_equals_lstsq_per_row(rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, width, dtype=torch.float64, generator=generator)
    targets = torch.randn(40, rows, dtype=torch.float64, generator=generator)
    mask = torch.rand(rows, width, generator=generator) > 0.4
    solved = masked_least_squares(x.T @ x, targets.T @ x, mask)
    for row in range(rows):
        kept = mask[row]
        expected = torch.zeros(width, dtype=torch.float64)
        if kept.any():
            expected[kept] = torch.linalg.lstsq(x[:, kept], targets[:, row : row + 1]).solution[:, 0]
        torch.testing.assert_close(solved[row], expected, rtol=1e-7, atol=1e-9)


def test_rank_deficient_inputs_are_damped_not_refused() -> None:
    x = torch.randn(5, 12, dtype=torch.float64)
    solved = masked_least_squares(
        x.T @ x, torch.ones(2, 12).double(), torch.ones(2, 12, dtype=torch.bool), damping=1e-3
    )
    assert solved.isfinite().all()


def test_nan_in_the_gram_matrix_is_an_error() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        masked_least_squares(torch.full((4, 4), torch.nan).double(), torch.ones(1, 4).double(), torch.ones(1, 4).bool())


@pytest.mark.parametrize("limit", [0, 2**30])
def test_what_preconditions_a_layer_is_the_inverse_or_one_for_all_rows(limit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 10, dtype=torch.float64, generator=generator)
    gram, cross = x.T @ x, torch.randn(5, 10, dtype=torch.float64, generator=generator)
    mask = torch.rand(5, 10, generator=generator) > 0.4
    solved, factored = solve_and_factor(gram, cross, mask, 1e-9, dtype=torch.float64, limit=limit)
    torch.testing.assert_close(solved, masked_least_squares(gram, cross, mask, 1e-9))
    assert isinstance(factored, MaskedCholesky if limit else SharedCholesky)
    if limit:
        torch.testing.assert_close(factored(cross), solved)
    for row in range(5):  # a preconditioner: symmetric, positive definite on the support, and nothing outside it
        ends = torch.zeros(10, 5, 10, dtype=torch.float64)
        ends[:, row] = torch.eye(10, dtype=torch.float64)
        matrix = torch.stack([factored(e)[row] for e in ends])
        kept = mask[row]
        torch.testing.assert_close(matrix, matrix.T)
        assert not matrix[~kept].any()
        assert float(torch.linalg.eigvalsh(matrix[kept][:, kept]).min()) > 0


@dataclass
class Rosenbrock:
    """A curved valley; the Gauss-Newton matrix is exact at the minimum (1, 1)."""

    scale: float = 1.0

    def residuals(self, x: Tensor) -> Tensor:
        return self.scale * torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])

    def value(self, x: Tensor) -> float:
        return float(self.residuals(x).square().sum())

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        jacobian = torch.autograd.functional.jacobian(self.residuals, x)
        return self.value(x), 2 * jacobian.T @ self.residuals(x)

    def curvature(self, x: Tensor) -> Product:
        jacobian = torch.autograd.functional.jacobian(self.residuals, x)
        return lambda v: 2 * jacobian.T @ (jacobian @ v)

    def precondition(self, residual: Tensor) -> Tensor:
        return residual


def test_newton_reaches_the_minimum_and_never_rises() -> None:
    start, values = torch.tensor([-1.2, 1.0], dtype=torch.float64), []
    for steps in range(1, 40):
        solution = NewtonCG(max_steps=steps, tolerance=0, damping=1e-4).solve(Rosenbrock(), start)
        values.append(solution.loss)
    assert all(b <= a for a, b in pairwise(values))
    assert values[-1] < 1e-6
    assert Rosenbrock().value(solution.value) == pytest.approx(solution.loss)


def test_a_start_at_the_minimum_stays() -> None:
    start = torch.ones(2, dtype=torch.float64)
    solution = NewtonCG().solve(Rosenbrock(), start)
    assert solution.outcome is Outcome.FLAT
    assert torch.equal(solution.value, start)


def test_a_start_that_is_not_finite_is_returned() -> None:
    start = torch.zeros(2, dtype=torch.float64)
    solution = NewtonCG().solve(Rosenbrock(scale=float("nan")), start)
    assert not solution.outcome.successful
    assert torch.equal(solution.value, start)


def test_line_search_accepts_only_a_decrease() -> None:
    search = BacktrackingLineSearch()
    assert search.search(lambda t: 1.0 + t, 1.0, -1.0) == (0.0, 1.0)
    step, value = search.search(lambda t: (t - 0.1) ** 2, 0.01, -0.2)
    assert 0 < step < 0.25
    assert value < 0.01
    assert search.search(lambda t: float("nan"), 1.0, -1.0)[0] == 0.0


def test_line_search_wants_a_share_of_the_linear_decrease() -> None:
    fall = {1.0: 1 - 1e-5, 0.5: 0.4}  # the whole step falls, but by less than 1e-4 of the slope
    assert BacktrackingLineSearch().search(fall.__getitem__, 1.0, -1.0) == (0.5, 0.4)
    fall = {1.0: 0.9, 0.5: 0.7}  # half the slope over half the step is a quarter
    assert BacktrackingLineSearch(sufficient_decrease=0.5).search(fall.__getitem__, 1.0, -1.0) == (0.5, 0.7)


@dataclass
class Parabola:
    """`50 x^2` in one dimension, whose curvature is told wrong by a factor; counts its products."""

    told: float = 1.0
    products: int = 0

    def value(self, x: Tensor) -> float:
        return 50 * float(x.square().sum())

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        return self.value(x), 100 * x

    def curvature(self, x: Tensor) -> Product:
        def product(v: Tensor) -> Tensor:
            self.products += 1
            return 100 * self.told * v

        return product

    def precondition(self, residual: Tensor) -> Tensor:
        return residual


@dataclass
class CountedRosenbrock(Rosenbrock):
    """The valley, counting its products."""

    products: int = 0

    def curvature(self, x: Tensor) -> Product:
        inner = super().curvature(x)

        def product(v: Tensor) -> Tensor:
            self.products += 1
            return inner(v)

        return product


@pytest.mark.parametrize(
    ("told", "dampings"),
    [
        (1.0, (1.0, 2 / 3, 4 / 9, 8 / 27)),  # the loss falls by more than the model says: less damping
        (1 / 3.6, (1.0, 1.5, 1.5, 1.5)),  # by a fifth of it: more damping; then by a half: as it is
    ],
)
def test_newtons_damping_follows_the_reduction_ratio(told: float, dampings: tuple[float, ...]) -> None:
    """A step of a parabola is `x -> x (1 - 1 / (told (1 + damping)))`, damping relative to the curvature."""
    x, expected, losses = 2.0, [], []
    for damping in dampings:
        expected.append(50 * x**2)
        x *= 1 - 1 / (told * (1 + damping))
    objective = Parabola(told)
    solution = NewtonCG(max_steps=4, damping=1.0, tolerance=0).solve(
        objective, torch.tensor([2.0]).double(), on_step=lambda number, loss: losses.append(loss)
    )
    assert losses == pytest.approx(expected, rel=1e-12)
    assert float(solution.value) == pytest.approx(x, rel=1e-12)
    assert solution.loss == pytest.approx(50 * x**2, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 4])
def test_newton_counts_every_curvature_product(steps: int) -> None:
    parabola = Parabola()
    solution = NewtonCG(max_steps=steps, tolerance=0).solve(parabola, torch.tensor([2.0]).double())
    assert solution.products == parabola.products == 2 * steps  # one for the damping's scale, one inside the solve

    valley, start = CountedRosenbrock(), torch.tensor([-1.2, 1.0], dtype=torch.float64)
    assert NewtonCG(max_steps=steps, tolerance=0).solve(valley, start).products == valley.products > 2 * steps


@pytest.mark.parametrize("after", [1.0, 1.1, float("nan")])
def test_a_step_that_does_not_lower_the_loss_on_held_back_images_is_undone(after: float) -> None:
    start = torch.tensor([2.0], dtype=torch.float64)
    solution = NewtonCG().solve(Parabola(), start, lambda x: 1.0 if torch.equal(x, start) else after)
    assert (solution.outcome, solution.steps) == (Outcome.HELD_BACK, 0)
    assert torch.equal(solution.value, start)
    assert solution.loss == solution.loss_initial == 200


def test_steps_go_on_while_the_loss_on_held_back_images_falls() -> None:
    start, unseen = torch.tensor([2.0], dtype=torch.float64), iter([3.0, 2.0, 1.0, 1.0])
    solution = NewtonCG(max_steps=4, damping=1.0, tolerance=0).solve(Parabola(), start, lambda x: next(unseen))
    assert (solution.outcome, solution.steps) == (Outcome.HELD_BACK, 2)
    assert float(solution.value) == pytest.approx(2 * 0.5 * 0.4)  # shares x / (1 + x) of dampings 1 and 2 / 3


@pytest.mark.parametrize("limit", [0, 10**9])
def test_inputs_that_are_all_zero_give_zeros_and_a_factor(limit: int) -> None:
    gram, cross = torch.zeros(8, 8, dtype=torch.float64), torch.zeros(3, 8, dtype=torch.float64)
    mask = torch.ones(3, 8, dtype=torch.bool)
    solved, factored = solve_and_factor(gram, cross, mask, 1e-3, dtype=torch.float32, limit=limit)
    assert not solved.any()
    assert factored(torch.ones(3, 8)).isfinite().all()
