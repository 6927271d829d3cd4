"""Permuting channels before masks are chosen: groups from the graph, scores from the dense model, a search each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import map_in_turn
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.apply import permute_program, require_same_function
from snowsdeploy.permutation.channels import Ids
from snowsdeploy.permutation.groups import Group, find_groups
from snowsdeploy.permutation.search import Found, Search, find_order, group_scores
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.importance.saliency import Score, weight_scores
from snowsdeploy.pruning.importance.sensitivity import WHOLE_IMAGES
from snowsdeploy.values import Permutation, PermutedGroup


def permute_channels(
    program: Program,
    weights: Sequence[str],
    pattern: Pattern,
    batches: Sequence[Batch],
    *,
    score: Score,
    seed: int,
    observer: Observer,
    at_once: int = WHOLE_IMAGES,
    checkpoints: Checkpoints | None = None,
) -> tuple[Program, Permutation]:
    """Put channels in the order in which an N:M mask keeps most; only weights change.

    Args:
        program: The dense program.
        weights: Names of the weights that will be pruned, in graph order.
        pattern: N:M.
        batches: Calibration images, `[batch, C, H, W]` each; the outputs are compared on the first.
        score: What a weight is worth.
        seed: Of the search.
        observer: Told about each group.
        at_once: As in `weight_scores`.
        checkpoints: The orders are read from and written there.

    Raises:
        GraphError: The outputs changed.
        NumericsError: An activation is not finite.
    """
    started = time.perf_counter()
    graph = ProgramGraph(program)
    found = find_groups(graph, weights, pattern.m)
    known = checkpoints.load("order of channels", Permutation) if checkpoints else None
    orders = known and _orders(known[0], found.groups)
    if known and orders is not None:
        restored = permute_program(program, list(zip(found.groups, orders, strict=True)))
        require_same_function(program, restored, batches[0])
        observer.message("order of channels restored")
        return restored, known[1]
    scores = weight_scores(graph, batches, weights, score, at_once=at_once)

    def search(item: tuple[int, Group]) -> Found:
        number, group = item
        best = find_order(group_scores(group, scores), pattern, Search(seed=seed))
        share = f"mask keeps {best.before:.2%} -> {best.after:.2%}"
        names = ", ".join(_layers(graph, group)[:2])
        observer.advance(number, len(found.groups), f"{group.channels} channels of {names}: {share}")
        return best

    pairs = list(zip(found.groups, map_in_turn(search, list(enumerate(found.groups, 1))), strict=True))
    permuted = permute_program(program, [(group, best.order) for group, best in pairs])
    error = require_same_function(program, permuted, batches[0])
    report = Permutation(
        score=score,
        groups=tuple(
            PermutedGroup(
                channels=group.channels, layers=_layers(graph, group), kept_before=b.before, kept_after=b.after
            )
            for group, b in pairs
        ),
        refused={graph.layers[name].name: reason for name, reason in found.refused.items()},
        error=error,
        seconds=time.perf_counter() - started,
    )
    if checkpoints:
        tensors = {str(k): torch.from_numpy(b.order) for k, (_, b) in enumerate(pairs)}
        checkpoints.save("order of channels", tensors, report)
    return permuted, report


def _orders(tensors: Mapping[str, Tensor], groups: Sequence[Group]) -> list[Ids] | None:
    """The stored order of each group; None where one is no permutation of the group's channels."""
    if set(tensors) != {str(k) for k in range(len(groups))}:
        return None
    orders = [tensors[str(k)].cpu().numpy() for k in range(len(groups))]
    whole = all(np.array_equal(np.sort(o), np.arange(g.channels)) for o, g in zip(orders, groups, strict=True))
    return orders if whole else None


def _layers(graph: ProgramGraph, group: Group) -> tuple[str, ...]:
    return tuple(dict.fromkeys(graph.layers[c.name].name for c in group.consumers))
