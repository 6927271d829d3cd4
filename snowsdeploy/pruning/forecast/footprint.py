"""How many bytes a computation holds at most, counted tensor by tensor: on any device, whatever its allocator does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snowsdeploy.batch import Batch, joined


@final
class Footprint(TorchDispatchMode):
    """Counts what operators make inside it and what is not freed yet; what an operator works in is not seen.

    Attributes:
        peak: The most bytes at one time.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator gives
        """Run an operator and count what it made."""
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given and _key(tensor) not in self._live:
                storage = tensor.untyped_storage()
                self._live[_key(tensor)] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, _key(tensor), None)
        self.peak = max(self.peak, sum(self._live.values()))
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that something holds while it runs."""
    footprint = Footprint()
    with footprint:
        run()
    return footprint.peak


def growth(run: Callable[[Batch], object], image: Batch) -> int:
    """Bytes that each further image costs while something runs.

    Args:
        run: Takes images.
        image: `[1, C, H, W]`.
    """
    one, two = (peak_bytes(partial(run, images)) for images in (image, joined([image, image])))
    return max(two - one, 0)
