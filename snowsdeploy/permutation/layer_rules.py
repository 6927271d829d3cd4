"""What layers do to channels: contractions tie the input to the weight, normalisations tie their vectors."""

from __future__ import annotations

from snowsdeploy.permutation.call import Call, Values, moved
from snowsdeploy.permutation.channels import Block, Value
from snowsdeploy.permutation.shape_rules import unknown


def convolution(call: Call) -> Values:
    """Input channels are the weight's second axis, output channels its first; depthwise has one axis for both."""
    x, weight, bias = call.required(0), call.required(1, "weight"), call.value(2, "bias")
    groups = call.argument(6, "groups", 1)
    depthwise = groups > 1 and groups == x.sizes[1] == weight.sizes[0]
    if groups > 1 and not depthwise:
        return unknown(call)
    kernel = range(2, len(weight.sizes))
    call.fix([*(x.block(d) for d in kernel), *(weight.block(d) for d in kernel)])
    call.tie(x.single(1), weight.block(0 if depthwise else 1))
    return call.result(_outputs(call, weight, bias, 1))


def linear(call: Call) -> Value:
    """The last axis is contracted with the weight's second one; every axis before it passes."""
    x, weight, bias = call.required(0), call.required(1, "weight"), call.value(2, "bias")
    last = len(x.sizes) - 1
    if x.single(last) is None:
        call.fix([x.block(last)])
    call.tie(x.single(last), weight.block(1))
    kept = [b for b in x.blocks if last not in b.dims]
    return call.result([*kept, *_outputs(call, weight, bias, last)])


def _outputs(call: Call, weight: Value, bias: Value | None, dim: int) -> list[Block]:
    block = weight.block(0)
    if bias is not None:
        call.tie(block, bias.block(0))
    return [Block((dim,), block.ids)] if block is not None and len(block.dims) == 1 else []


def batch_norm(call: Call) -> Values:
    """Scale, shift, mean and variance belong to axis 1."""
    x = call.required(0)
    for index, name in ((1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var")):
        _tie_vector(call, x, 1, call.value(index, name))
    return call.results(call.result(x.blocks))


def layer_norm(call: Call) -> Values:
    """Statistics over the last axis do not depend on its order; scale and shift belong to it."""
    x, rank = call.required(0), len(call.required(0).sizes)
    normalised = range(rank - len(call.argument(1, "normalized_shape")), rank)
    vectors = [call.value(i, n) for i, n in ((2, "weight"), (3, "bias"))]
    call.fix(b for b in x.blocks if len(b.dims) > 1 and set(b.dims) & set(normalised))
    for vector in vectors:
        for place, dim in enumerate(normalised):
            if vector is not None:
                call.tie(x.block(dim), vector.block(place))
    return call.results(call.result(x.blocks))


def group_norm(call: Call) -> Values:
    """Each group's statistics do not depend on the order of its channels; scale and shift belong to axis 1."""
    native = call.name == "native_group_norm"
    x, groups = call.required(0), call.argument(6, "group") if native else call.argument(1, "num_groups")
    first = 1 if native else 2
    block = x.single(1)
    if block is None:
        call.fix([x.block(1)])
    else:
        call.ledger.keep(block.ids.reshape(groups, -1))
    for index, name in ((first, "weight"), (first + 1, "bias")):
        _tie_vector(call, x, 1, call.value(index, name))
    return call.results(call.result(x.blocks))


def _tie_vector(call: Call, x: Value, dim: int, vector: Value | None) -> None:
    if vector is not None:
        call.tie(x.single(dim), vector.block(0))


def matmul(call: Call) -> Values:
    """Two values contracted: the axis that goes is tied, those that stay pass on."""
    a, b = call.required(0), call.required(1)
    if min(len(a.sizes), len(b.sizes)) < 2:
        return unknown(call)
    return call.result(_product(call, a, b, len(b.sizes) - 2))


def attention(call: Call) -> Values:
    """Scaled dot-product attention: queries and keys are contracted, the values' channels pass on."""
    q, k, v = (call.required(i) for i in range(3))
    if call.argument(6, "enable_gqa", False) or not len(q.sizes) == len(k.sizes) == len(v.sizes):
        return unknown(call)
    last = len(q.sizes) - 1
    _contract(call, q, last, k, last)
    for value in (q, k, v):
        call.fix(b for b in value.blocks if last not in b.dims)
    mask = call.value(3, "attn_mask")
    call.fix(mask.blocks if mask is not None else ())
    return call.result(_rows(call, v, last, 0))


def _product(call: Call, a: Value, b: Value, inner: int) -> list[Block]:
    """Blocks of `a @ b`, `inner` being the axis of b that is contracted."""
    rank = len(call.sizes)
    _contract(call, a, len(a.sizes) - 1, b, inner)
    kept = _rows(call, b, len(b.sizes) - 1, rank - len(b.sizes))
    if len(b.sizes) == 2:  # every axis of a but the last is a row
        kept += [moved(x, _shift(x, rank - len(a.sizes))) for x in a.blocks if len(a.sizes) - 1 not in x.dims]
        return kept
    kept += _rows(call, a, len(a.sizes) - 2, rank - len(a.sizes))
    for value in (a, b):
        batch = set(range(len(value.sizes) - 2))
        call.fix(x for x in value.blocks if set(x.dims) <= batch)
    return kept


def _contract(call: Call, a: Value, i: int, b: Value, j: int) -> None:
    """Tie axis i of a to axis j of b; axes that share a block with them count one row after the other."""
    left, right = a.block(i), b.block(j)
    if left is None or right is None:
        call.fix((left, right))
        return
    batch = [tuple(d - len(v.sizes) for d in x.dims if d != e) for v, x, e in ((a, left, i), (b, right, j))]
    rows, columns = left.along(i), right.along(j)
    if batch[0] != batch[1] or rows.shape != columns.shape or any(d >= -2 for d in batch[0]):
        call.fix((left, right))
        return
    call.ledger.tie(rows, columns)
    call.ledger.keep(rows)


def _rows(call: Call, value: Value, dim: int, shift: int) -> list[Block]:
    """The block of an axis that passes a product; the batch axes in it stay."""
    block = value.block(dim)
    if block is None:
        return []
    if any(d >= len(value.sizes) - 2 and d != dim for d in block.dims):
        call.fix([block])
        return []
    call.ledger.keep(block.along(dim))
    return [moved(block, _shift(block, shift))]


def _shift(block: Block, shift: int) -> dict[int, int]:
    return {d: d + shift for d in block.dims}
