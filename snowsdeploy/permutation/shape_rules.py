"""What operations that only move data do to channels: views, transpositions, cuts, joins, reductions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.fx import Node

from snowsdeploy.permutation.call import BATCH, Call, Values, moved
from snowsdeploy.permutation.channels import Block, Value


def view(call: Call) -> Value:
    """Reshaping: an axis stays, is split into axes that keep their ids together, or such axes are joined again."""
    x, sizes = call.required(0), call.sizes
    targets = {}
    for before, after in regroup(x.sizes, sizes):
        inner = tuple(d for d in before if x.sizes[d] > 1)
        targets[inner] = tuple(d for d in after if sizes[d] > 1)
    kept = []
    for block in x.blocks:
        dims = targets.get(block.dims)
        if dims and not any(sizes[d] % BATCH == 0 for d in dims):
            kept.append(Block(dims, block.ids.reshape([sizes[d] for d in dims])))
        else:
            call.fix([block])
    return call.result(kept)


def regroup(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Runs of axes with equal products: which axes of a view come from which.

    Args:
        before: Sizes of the input.
        after: Sizes of the output, with the same product.
    """
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = i, j
        left = right = 1
        if i < len(before):
            left, i = before[i], i + 1
        if j < len(after):
            right, j = after[j], j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        yield range(first, i), range(second, j)


def permute(call: Call) -> Value:
    """Axes in another order."""
    x = call.required(0)
    rank = len(x.sizes)
    order = [d % rank for d in call.argument(1, "dims")]
    return call.result(moved(b, {d: i for i, d in enumerate(order)}) for b in x.blocks)


def transpose(call: Call) -> Value:
    """Two axes exchanged."""
    x = call.required(0)
    rank = len(x.sizes)
    a, b = (call.argument(i, n) % rank for i, n in ((1, "dim0"), (2, "dim1")))
    places = {d: d for d in range(rank)} | {a: b, b: a}
    return call.result(moved(block, places) for block in x.blocks)


def unsqueeze(call: Call) -> Value:
    """A new axis of size one."""
    x, dim = call.required(0), call.argument(1, "dim") % len(call.sizes)
    return call.result(moved(b, {d: d + (d >= dim) for d in b.dims}) for b in x.blocks)


def select(call: Call) -> Values:
    """One element of an axis."""
    x = call.required(0)
    dim, index = call.argument(1, "dim", 0) % len(x.sizes), call.argument(2, "index")
    return _taken(call, x, dim, index, call.sizes) if isinstance(index, int) else unknown(call)


def unbind(call: Call) -> Values:
    """Every element of an axis."""
    x = call.required(0)
    dim = call.argument(1, "dim", 0) % len(x.sizes)
    return tuple(_taken(call, x, dim, i, s) for i, s in enumerate(call.outputs) if s is not None)


def _taken(call: Call, x: Value, dim: int, index: int, sizes: Sequence[int]) -> Value:
    kept = []
    for block in x.blocks:
        rest = {d: d - (d > dim) for d in block.dims if d != dim}
        if dim not in block.dims:
            kept.append(moved(block, rest))
        elif rest:
            ids = np.moveaxis(block.ids, block.dims.index(dim), 0)[index]
            kept.append(Block(tuple(rest.values()), ids))
        else:
            call.fix([block])
    return call.result(kept, sizes)


def cut(call: Call) -> Values:
    """`x[start:stop:step]` along an axis."""
    x = call.required(0)
    dim = call.argument(1, "dim", 0) % len(x.sizes)
    start, end, step = call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1)
    if any(isinstance(limit, Node) for limit in (start, end)):
        return unknown(call)
    return call.result(_sliced(x, dim, slice(start, end, step)))


def split(call: Call) -> Values:
    """Consecutive parts of an axis."""
    x = call.required(0)
    dim = call.argument(2, "dim", 0) % len(x.sizes)
    parts, start = [], 0
    for sizes in call.outputs:
        assert sizes is not None
        part = slice(start, start + sizes[dim])
        parts.append(call.result(_sliced(x, dim, part), sizes))
        start = part.stop
    return tuple(parts)


def _sliced(x: Value, dim: int, part: slice) -> list[Block]:
    kept = []
    for block in x.blocks:
        ids = block.ids
        if dim in block.dims:
            ids = np.moveaxis(np.moveaxis(ids, block.dims.index(dim), 0)[part], 0, block.dims.index(dim))
            if ids.shape[block.dims.index(dim)] < 2:  # an axis of size one has no ids: what is left is fixed
                continue
        kept.append(Block(block.dims, ids))
    return kept


def concatenate(call: Call) -> Value:
    """Values joined along an axis: their channels follow each other."""
    parts = [v for n in call.argument(0, "tensors") if isinstance(v := call.known.get(n), Value)]
    dim = call.argument(1, "dim", 0) % len(call.sizes)
    others = [Value(p.sizes, tuple(b for b in p.blocks if dim not in b.dims)) for p in parts]
    kept = _merge(call, others)
    joined = [p.single(dim) for p in parts]
    call.fix(p.block(dim) for p, b in zip(parts, joined, strict=True) if b is None)
    if call.sizes[dim] % BATCH and call.sizes[dim] > 1:
        ids = [
            call.ledger.immovable((p.sizes[dim],), call.reason) if b is None else b.ids
            for p, b in zip(parts, joined, strict=True)
        ]
        kept.append(Block((dim,), np.concatenate(ids)))
    return call.result(kept)


def pad(call: Call) -> Value:
    """Constants around a value: their channels are new and free."""
    x, widths = call.required(0), list(call.argument(1, "pad"))
    constant = call.argument(2, "mode", "constant") == "constant" or call.name == "constant_pad_nd"
    rank = len(x.sizes)
    sides = {rank - 1 - i // 2: widths[i : i + 2] for i in range(0, len(widths), 2) if any(widths[i : i + 2])}
    kept = []
    for block in x.blocks:
        padded = [d for d in block.dims if d in sides]
        if not padded:
            kept.append(block)
        elif constant and len(block.dims) == 1 and min(sides[padded[0]]) >= 0:
            left, right = (call.ledger.fresh((n,)) for n in sides[padded[0]])
            kept.append(Block(block.dims, np.concatenate([left, block.ids, right])))
        else:
            call.fix([block])
    return call.result(kept)


def expand(call: Call) -> Value:
    """Copies along axes of size one: they are all equal, and free."""
    x, sizes = call.required(0), call.sizes
    shift = len(sizes) - len(x.sizes)
    kept = [moved(b, {d: d + shift for d in b.dims}) for b in x.blocks]
    covered = {d for block in kept for d in block.dims}
    fresh = [d for d, s in enumerate(sizes) if d not in covered and s > 1 and s % BATCH]
    return call.result([*kept, *(Block((d,), call.ledger.fresh((sizes[d],))) for d in fresh)])


def reduce(call: Call) -> Value:
    """A sum, mean, norm or extremum over whole axes does not depend on their order."""
    x = call.required(0)
    rank, first = len(x.sizes), 2 if call.name == "linalg_vector_norm" else 1
    given = call.argument(first, "dim")
    dims = {d % rank for d in ([given] if isinstance(given, int) else given or range(rank))}
    keep = bool(call.argument(first + 1, "keepdim", False))
    places = {d: d - (0 if keep else sum(e < d for e in dims)) for d in range(rank)}
    call.fix(b for b in x.blocks if 0 < len(dims & set(b.dims)) < len(b.dims))
    return call.result(moved(b, places) for b in x.blocks if not dims & set(b.dims))


def along(call: Call) -> Value:
    """Softmax and the like: an axis may be in any order, but what shares a block with it must stay."""
    x = call.required(0)
    dim = call.argument(1, "dim") % len(x.sizes)
    block = x.block(dim)
    if block is not None:
        call.ledger.keep(block.along(dim))
    return call.result(x.blocks)


def roll(call: Call) -> Value:
    """Axes that are rolled cannot move."""
    x = call.required(0)
    dims = {d % len(x.sizes) for d in call.argument(2, "dims", ())} or set(range(len(x.sizes)))
    call.fix(b for b in x.blocks if dims & set(b.dims))
    return call.result(b for b in x.blocks if not dims & set(b.dims))


def pool(call: Call) -> Values:
    """Pooling and resizing act on the axes after the channels."""
    x = call.required(0)
    call.fix(b for b in x.blocks if max(b.dims) > 1)
    return call.results(call.result(b for b in x.blocks if max(b.dims) <= 1))


def pointwise(call: Call) -> Value:
    """Element by element with broadcasting: axes at the same place hold the same channels."""
    return call.result(_merge(call, call.inputs()))


def _merge(call: Call, values: Sequence[Value]) -> list[Block]:
    rank = len(call.sizes)
    merged: dict[tuple[int, ...], Block] = {}
    for value in values:
        shift = rank - len(value.sizes)
        for block in (moved(b, {d: d + shift for d in b.dims}) for b in value.blocks):
            clash = [b for dims, b in merged.items() if dims != block.dims and set(dims) & set(block.dims)]
            if clash:  # an axis by itself against the same axis tied up with another
                call.fix([block, *clash])
            elif block.dims in merged:
                call.tie(merged[block.dims], block)
            else:
                merged[block.dims] = block
    return list(merged.values())


def unknown(call: Call) -> Values:
    """Nothing is known of this operation: nothing that it reads or writes can move."""
    for value in call.inputs():
        call.fix(value.blocks)
    meta = call.node.meta.get("val")
    found = tuple(None if s is None else call.result((), s) for s in call.outputs)
    return found if isinstance(meta, (tuple, list)) else found[0]
