"""Targets and output errors of a dense and a pruned stream against whole programs, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from snowsdeploy.models.graph import evaluate, layer_input
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.storage import Storage, StorageKind
from snowsdeploy.pruning.flow.windows import as_tensor, cut_window
from snowsdeploy.pruning.solve.streams import Streams, gather_samples, open_streams, output_error
from tests.nets import TinyCNN
from tests.permutation.nets import make_double

BATCHES = torch.randn(9, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).split((4, 3, 2))


@pytest.fixture(scope="module")
def programs() -> tuple[Program, Program]:
    """A dense one, and one with another stem, as if that had been pruned."""
    torch.manual_seed(0)
    dense = make_double(TinyCNN())
    return dense, dense.with_weights({"stem.weight": 0.5 * dense.state_dict["stem.weight"]})


def streams_at(
    graph: ProgramGraph, pruned: Program, weight: str, held_back: int = 0, kind: StorageKind = "memory"
) -> Streams:
    state = graph.state_values()
    other = state | {graph.placeholder("stem.weight"): pruned.state_dict["stem.weight"]}
    found = open_streams(graph, BATCHES, state, other, metrics={}, held_back=held_back, storage=Storage(kind))
    for stream in (found.dense, found.pruned):
        stream.advance(graph.layers[weight].calls[0])
    return found


def input_of(program: Program, weight: str, images: torch.Tensor) -> torch.Tensor:
    graph = ProgramGraph(program)
    values = {**graph.state_values(), **graph.given(images)}
    evaluate(graph.nodes, values)
    return as_tensor(values[layer_input(graph.layers[weight].calls[0])])


@pytest.mark.parametrize("kind", ["memory", "recompute"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_targets_hold_the_share_of_true_dense_activations(
    programs: tuple[Program, Program], share: float, kind: StorageKind
) -> None:
    dense, pruned = programs
    graph = ProgramGraph(dense)
    window = cut_window(graph, ["strided.weight"], 0)
    streams = streams_at(graph, pruned, "strided.weight", kind=kind)
    samples = gather_samples(window, {p: streams.dense.value(p) for p in window.weights}, streams, share)
    weight, bias = dense.state_dict["strided.weight"], dense.state_dict["strided.bias"]
    for images, sample in zip(BATCHES, samples, strict=True):
        x, own = (input_of(program, "strided.weight", images) for program in programs)
        expected = F.conv2d(share * x + (1 - share) * own, weight, bias, stride=2, padding=(0, 1))  # linear in x
        torch.testing.assert_close(sample.targets, (expected,))


@pytest.mark.parametrize("held_back", [1, 2])
def test_the_output_error_is_that_of_the_held_back_batches(programs: tuple[Program, Program], held_back: int) -> None:
    dense, pruned = programs
    graph = ProgramGraph(dense)
    streams = streams_at(graph, pruned, "strided.weight", held_back)
    solved = 0.8 * dense.state_dict["strided.weight"]
    program = pruned.with_weights({"strided.weight": solved})
    errors, energies = [], []
    for images in BATCHES:
        (expected,), (actual,) = dense.run(images), program.run(images)
        errors.append(float((actual - expected).square().sum()))
        energies.append(float(expected.square().sum()))
    weights = {graph.placeholder("strided.weight"): solved}
    last = slice(-held_back, None)
    assert output_error(streams, weights) == pytest.approx(sum(errors[last]) / sum(energies[last]), rel=1e-9)
    everything = output_error(streams, weights, held_back_only=False)
    assert everything == pytest.approx(sum(errors) / sum(energies), rel=1e-9)
