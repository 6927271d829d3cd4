"""Several inputs, and inputs that are no images: in memory, in `.npz` files, from the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from snowsdeploy.batch import Inputs
from snowsdeploy.data.factory import call_data_factory, is_factory
from snowsdeploy.data.memory import Names, hold
from snowsdeploy.data.open import natural_inputs, open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError
from snowsdeploy.values import InputInfo

A, B, Y = torch.randn(6, 3, 4, 4), torch.randn(6, 2), torch.arange(6)
BOTH = Names(("a", "b"), 2)


class Dicts(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"a": A[index], "b": B[index], "label": int(Y[index]), "file": f"{index}.png"}


class Tuples(Dicts):
    def __getitem__(self, index: int) -> Any:
        return A[index], B[index], int(Y[index])


class Nested(Dicts):
    def __getitem__(self, index: int) -> Any:
        return (A[index], B[index]), int(Y[index])


def batches() -> Iterator[Any]:
    for start in (0, 4):
        yield {"b": B[start : start + 4], "a": A[start : start + 4], "y": Y[start : start + 4]}


FORMS: dict[str, Callable[[], object]] = {
    "dict": lambda: {"a": A, "b": B, "y": Y},
    "tuple": lambda: (A, B, Y),
    "tuple in a tuple": lambda: ((A, B), Y),
    "data set of dicts": Dicts,
    "data set of tuples": Tuples,
    "data set of nested tuples": Nested,
    "loader of dicts": lambda: DataLoader(Dicts(), batch_size=4),
    "loader of tuples": lambda: DataLoader(Tuples(), batch_size=4),
    "generator": batches,
}


def require_both(samples: Samples) -> None:
    batch = samples.rows(0, 6)
    assert isinstance(batch, Inputs)
    assert list(batch.tensors) == ["a", "b"]
    torch.testing.assert_close(batch.tensors["a"], A)
    torch.testing.assert_close(batch.tensors["b"], B)
    assert samples.labels is not None
    assert samples.labels.tolist() == Y.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_inputs(form: str) -> None:
    require_both(hold(FORMS[form](), option="data", names=BOTH))


def test_order_names_and_labels_do_not_change_what_a_batch_is() -> None:
    one, other = (hold(FORMS[form](), option="data", names=BOTH) for form in ("dict", "generator"))
    assert one.info.fingerprint == other.info.fingerprint
    picked = one.sample(3, 1)
    assert len(picked.rows(0, 3)) == 3
    assert len(one.in_batches_of(4)) == 4
    assert [len(batch) for batch in one.in_batches_of(3).batches(100)] == [3, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": A, "b": B[:3]}, "differ in length"),
        ({"a": A, "b": ["x"] * 6}, "no tensor"),
        ((A, B, B, Y, Y), "differ in size"),
        ({"a": A * torch.nan, "b": B}, "NaN"),
        ([{"a": A}, {"b": B}], "differ in their inputs"),
    ],
)
def test_what_is_no_input_is_said(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        hold(data, option="data", names=BOTH)


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [
        (torch.randn(4, 16), torch.float32),
        (torch.randint(0, 9, (4, 7)), torch.int64),
        (torch.randn(4, 3, 2, 4, 4, dtype=torch.float64), torch.float32),
        (torch.ones(4, 5, dtype=torch.bool), torch.bool),
    ],
)
def test_vectors_tokens_and_volumes_are_taken_as_they_are(tensor: torch.Tensor, dtype: torch.dtype) -> None:
    held = hold(tensor, option="data").rows(0, 4)
    assert isinstance(held, torch.Tensor)
    assert held.shape == tensor.shape
    assert held.dtype == dtype


def test_pixels_are_taken_where_the_user_says_that_the_model_takes_them() -> None:
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(DataError, match="does not hold inputs as the model takes them"):
        hold(pixels, option="data")
    assert hold(pixels, option="data", names=Names(raw=True)).rows(0, 4).nbytes == pixels.nbytes


@pytest.fixture
def both(tmp_path: Path) -> str:
    np.savez(tmp_path / "both.npz", b=B.numpy().astype(np.float64), a=A.numpy(), labels=Y.numpy())
    return str(tmp_path / "both.npz")


def infos(*shapes: tuple[str, tuple[int, ...], str]) -> tuple[InputInfo, ...]:
    return tuple(InputInfo(name=n, shape=s, dtype=d) for n, s, d in shapes)


def test_named_arrays(both: str) -> None:
    found = natural_inputs(both, ("a", "b", "c"))
    assert found == infos(("a", (3, 4, 4), "float32"), ("b", (2,), "float32"))
    require_both(open_samples(both, None, found))
    assert len(open_samples(f"{both}[:4]", None, found)) == 4


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (infos(("a", (3, 4, 4), "float32"), ("c", (2,), "float32")), "lacks an input"),
        (infos(("a", (3, 4, 5), "float32"), ("b", (2,), "float32")), "does not fit"),
        (infos(("a", (3, 4, 4), "int64"), ("b", (2,), "float32")), "does not fit"),
    ],
)
def test_named_arrays_that_do_not_fit(both: str, wanted: tuple[InputInfo, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_samples(both, None, wanted)


def test_arrays_under_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "ids.npz", x=np.ones((5, 7), np.int64))
    assert natural_inputs(str(tmp_path / "ids.npz"), ("tokens",)) == infos(("x", (7,), "int64"))
    np.savez(tmp_path / "images.npz", x=np.ones((5, 8, 8, 3), np.uint8))
    assert natural_inputs(str(tmp_path / "images.npz"), ("x",)) is None


def test_a_folder_gives_no_values_for_two_inputs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gives no values for the model's inputs"):
        open_samples(str(tmp_path), None, infos(("a", (3, 4, 4), "float32"), ("b", (2,), "float32")))


def test_the_users_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_factory("tests.data.test_inputs:Dicts")
    assert not any(map(is_factory, ("torch/cifar10", "data.npz", "C:/images", "images[0:3]")))
    require_both(hold(call_data_factory("tests.data.test_inputs:Dicts", "--data"), option="--data", names=BOTH))
    with pytest.raises(DataError, match="--data: the module cannot be imported"):
        call_data_factory("no_such_module_at_all:data", "--data")
    with pytest.raises(DataError, match="broken raised ZeroDivisionError"):
        call_data_factory("tests.data.test_inputs:broken", "--data")


def broken() -> object:
    """A factory that fails."""
    return 1 / 0
