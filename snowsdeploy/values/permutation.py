"""Channels that changed places before pruning."""

from __future__ import annotations

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import From0, Seconds, Size


class PermutedGroup(Artifact):
    """Channels that were put in another order together.

    Attributes:
        channels: How many.
        layers: Pruned layers that read them.
        kept_before: Share of these layers' score that the best mask keeps with the channels as they were.
        kept_after: The same in the new order.
    """

    channels: Size
    layers: tuple[str, ...]
    kept_before: From0
    kept_after: From0


class Permutation(Artifact):
    """What a permutation of channels did; the model's function stays.

    Attributes:
        score: What the search took for a weight's worth.
        groups: In graph order.
        refused: Layer to prune -> why none of its input channels could move.
        error: Largest relative distance of an output on calibration images from that of the model as it was.
        seconds: Wall time of it all.
    """

    score: str
    groups: tuple[PermutedGroup, ...]
    refused: dict[str, str]
    error: From0
    seconds: Seconds

    @property
    def kept(self) -> tuple[float, float]:
        """Mean of the groups' kept shares before and after."""
        count = max(len(self.groups), 1)
        return sum(g.kept_before for g in self.groups) / count, sum(g.kept_after for g in self.groups) / count

    def __str__(self) -> str:
        before, after = self.kept
        channels, count = sum(g.channels for g in self.groups), len(self.groups)
        groups = f"{count} {'group' if count == 1 else 'groups'}"
        return (
            f"{channels} channels in {groups} permuted: masks keep {before:.2%} -> {after:.2%} of the "
            f"score ({self.score}); outputs moved by {self.error:.1e}"
        )
