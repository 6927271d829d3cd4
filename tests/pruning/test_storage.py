"""Where activations are kept changes memory, and nothing else but what half precision costs."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.storage import (
    AbstractStore,
    DiskStore,
    HostStore,
    MemoryStore,
    ReadAhead,
    Storage,
    StorageKind,
)
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.pruning.solve.streams import Streams, gather_samples
from snowsdeploy.solver.newton import NewtonCG
from tests.nets import NETS, make_program

BATCHES = list(torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(8))
KINDS: tuple[StorageKind, ...] = ("memory", "host", "half", "disk", "recompute")
EXACT = tuple(k for k in KINDS if k != "half")
LAYERS = {"cnn": ["strided.weight", "dilated.weight"], "attention": ["qkv.weight", "fc2.weight"]}


def numbers(dtype: torch.dtype) -> st.SearchStrategy[torch.Tensor]:
    values = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=12)
    return values.map(lambda v: torch.tensor(v, dtype=dtype))


@given(numbers(torch.float32), numbers(torch.float64))
def test_half_precision_errs_by_its_rounding_and_never_overflows(single: torch.Tensor, double: torch.Tensor) -> None:
    store = HostStore(half=True)
    store.save(3, {"single": single, "double": double, "size": 7, "index": torch.tensor([1, 2])})
    found = store.load(3)
    for tensor, loaded in ((single, found["single"]), (double, found["double"])):
        assert loaded.dtype == tensor.dtype
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        # relative to itself, or to the tensor's largest value times float16's smallest normal number over its range
        bound = tensor.abs().double() * 2**-10 + largest * 2**-38
        assert bool(((loaded - tensor).double().abs() <= bound).all())
    assert found["size"] == 7
    assert torch.equal(found["index"], torch.tensor([1, 2]))


@given(st.lists(st.integers(0, 5), max_size=3), st.booleans())
def test_memory_and_disk_give_back_what_was_saved_last(shape: list[int], view: bool) -> None:
    tensor = torch.randn(*shape, 2) if shape else torch.randn(())
    values = {"a": tensor, "same": tensor.view(-1) if view else tensor, "size": 3, "pair": (1, tensor)}
    with tempfile.TemporaryDirectory() as folder:
        for store in (MemoryStore(), DiskStore(Path(folder))):
            store.save(0, {"a": torch.zeros(9)})
            store.save(0, values)
            found = store.load(0)
            assert list(found) == list(values) or set(found) == set(values)
            assert torch.equal(found["a"], tensor)
            assert torch.equal(found["same"], values["same"])
            assert found["size"] == 3


class Recording(AbstractStore):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.inner, self.read = MemoryStore(), list[int]()

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        self.inner.save(batch, values)

    def load(self, batch: int) -> dict[str, Any]:
        self.read.append(batch)
        return self.inner.load(batch)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=30))
def test_what_is_read_ahead_is_what_was_saved_last(steps: list[tuple[bool, int]]) -> None:
    store, expected = ReadAhead(Recording()), dict[int, int]()
    for number, (write, batch) in enumerate(steps):
        if write or batch not in expected:
            store.save(batch, {"value": number})
            expected[batch] = number
        else:
            assert store.load(batch) == {"value": expected[batch]}


def test_the_batch_that_followed_is_fetched_while_one_is_used() -> None:
    inner = Recording()
    store = ReadAhead(inner)
    for batch in range(3):
        store.save(batch, {"value": batch})
    for _ in range(2):
        for batch in (0, 2, 1):
            assert store.load(batch)["value"] == batch
    pending = store._pending
    assert pending is not None
    assert pending[0] == 0  # after 1 came 0
    pending[1].result()
    assert inner.read[-3:] == [2, 1, 0]  # the second round knows: only its first batch was not fetched before


def storage(kind: StorageKind, folder: Path) -> Storage:
    place = folder / kind
    place.mkdir(exist_ok=True)
    return Storage(kind, place)


@pytest.mark.parametrize("kind", EXACT)
def test_values_do_not_depend_on_where_they_are(tiny: Program, kind: StorageKind, tmp_path: Path) -> None:
    graph = ProgramGraph(tiny)
    state = graph.state_values()
    stream = Activations(graph, BATCHES, state, storage(kind, tmp_path))
    plain = Activations(graph, BATCHES, state)
    names = [n for n in graph.layers if len(graph.layers[n].calls) == 1]
    for name in names:
        call = graph.layers[name].calls[0]
        for each in (stream, plain):
            each.advance(call)
        for batch in range(len(BATCHES)):
            wanted = [n for n in call.all_input_nodes if n in graph.order]
            expected = plain.live_ins(batch, wanted)
            assert all(torch.equal(v, expected[n]) for n, v in stream.live_ins(batch, wanted).items())
            assert all(stream.holds(n) == plain.holds(n) for n in graph.nodes)
            pairs = zip(stream.finish(batch, {}), plain.finish(batch, {}), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("net", ["cnn", "attention"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [1.0, 0.5, "auto"])
def test_weights_do_not_depend_on_where_activations_are(
    kind: StorageKind, net: str, targets: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program = make_program(NETS[net]())
    method = Reconstruction(horizon="block", targets=targets, newton=NewtonCG(max_steps=1), free=True)
    plan = Plan(
        method, layers=2, sensitivity=0.5, held_back=1, reestimate=True, final=dataclasses.replace(method, targets=1.0)
    )
    arguments = (program, BATCHES, LAYERS[net], Pattern(2, 4))
    expected = prune_program(*arguments, plan, observer=NullObserver())
    there = dataclasses.replace(plan, storage=storage(kind, tmp_path))
    found = prune_program(*arguments, there, observer=NullObserver())
    for name, tensor in expected.tensors.items():
        if kind == "half":
            torch.testing.assert_close(found.tensors[name], tensor, rtol=0.05, atol=0.02)
        else:
            assert torch.equal(found.tensors[name], tensor)


def test_samples_are_made_when_they_are_asked_for(tiny_cnn: Program, tmp_path: Path) -> None:
    graph = ProgramGraph(tiny_cnn)
    place = storage("disk", tmp_path)
    dense, pruned = (Activations(graph, BATCHES, graph.state_values(), place, name) for name in ("dense", "pruned"))
    window = cut_window(graph, ["strided.weight"], 2)
    for stream in (dense, pruned):
        stream.advance(window.calls[0])
    weights = {p: dense.value(p) for p in window.weights}
    samples = gather_samples(window, weights, Streams(dense, pruned, {}, storage=place), 1.0)
    assert len(samples) == 3
    assert len(samples[1:]) == 2
    for whole, part in zip(samples[1:], (samples[1], samples[2]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(whole.targets, part.targets, strict=True))
    assert samples[0] is not samples[0]
    with pytest.raises(IndexError):
        samples[3]
