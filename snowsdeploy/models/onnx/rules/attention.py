"""Attention as one operator, from opset 23 on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.rules.registry import rule


@rule("Attention")
def _attention(call: Call, *values: Value) -> Result:
    """Queries, keys and values are (batch, heads, rows, size), or (batch, rows, heads times size)."""
    query, key, value, mask, *rest = (*values, None, None, None)[: max(4, len(values))]
    call.only("softcap", 0.0)
    if any(given is not None for given in rest):
        raise call.refused("it keeps keys and values of former calls", seen="past_key", allowed="no past_key")
    flat = call.tensor(query).dim() == 3
    heads = (call.get("q_num_heads"), call.get("kv_num_heads"), call.get("kv_num_heads"))
    rows = [
        _by_head(call.tensor(given), count) if flat else call.tensor(given)
        for given, count in zip((query, key, value), heads, strict=True)
    ]
    repeats = rows[0].shape[1] // rows[1].shape[1]
    keys, contents = (part if repeats == 1 else part.repeat_interleave(repeats, 1) for part in rows[1:])
    result = F.scaled_dot_product_attention(
        rows[0], keys, contents, _mask(call, mask, rows[0], keys), scale=call.get("scale")
    )
    return result.transpose(1, 2).flatten(2) if flat else result


def _by_head(value: Tensor, heads: int) -> Tensor:
    parted: Tensor = value.unflatten(2, (heads, value.shape[2] // heads))
    return parted.transpose(1, 2)


def _mask(call: Call, given: Value, query: Tensor, keys: Tensor) -> Tensor | None:
    """The mask of the file, and that of a causal attention, as one."""
    mask = call.optional(given)
    if not call.flag("is_causal"):
        return mask
    causal = torch.ones(query.shape[2], keys.shape[2], dtype=torch.bool, device=query.device).tril()
    if mask is None:
        return causal
    return mask & causal if mask.dtype == torch.bool else torch.where(causal, mask, -torch.inf)
