"""An engine's layer name -> the ONNX nodes in it.

Engines fuse: `conv + relu` is one layer, `PWN(PWN(a), b)` a pointwise one, `a || b` two side by side. A region given to
another compiler is `{ForeignNode[first...last]}`, which names its ends only; that compiler's own names end in
`_myl0_12`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_REGION = re.compile(r"\{ForeignNode\[(.*?)\]\}")
_JOINTS = re.compile(r"\s*(?:\+|\|\||,|[()])\s*")
_ADDED = re.compile(r"_myl\d+_\d+$| \[profile \d+\]$")
_INVENTED = re.compile(r"^(?:__my[el]|_gemm_mha|\{ForeignNode|\(Unnamed Layer)|^\[\w+ \d+\]$")


@dataclass(frozen=True)
class NamedNodes:
    """What a name says.

    Attributes:
        nodes: Nodes that it names.
        covered: Nodes between the ends of a region: in it, but not named, and nothing is said of them alone.
    """

    nodes: frozenset[str]
    covered: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.nodes or self.covered)


def read_name(text: str, order: Mapping[str, int]) -> NamedNodes:
    """The nodes in a name; whole names only, so that `conv_1` is not in `conv_12`.

    Args:
        text: An engine's name of a layer.
        order: Node name -> place in the graph.
    """
    if text in order:
        return NamedNodes(frozenset((text,)))
    covered = {node for match in _REGION.finditer(text) for node in _between(match[1], order)}
    nodes = frozenset(_known(_REGION.sub("", text), order))
    return NamedNodes(nodes, frozenset(covered) - nodes)


def invented(text: str) -> bool:
    """Whether a name is the engine's own, so that no node of a file can be expected in it."""
    return bool(_INVENTED.search(text))


def _known(text: str, order: Mapping[str, int]) -> Iterator[str]:
    for part in _JOINTS.split(text):
        for name in (part, _ADDED.sub("", part)):
            if name in order:
                yield name
                break


def _between(text: str, order: Mapping[str, int]) -> list[str]:
    """Nodes from the first end to the last, in graph order; a name may itself hold dots."""
    for match in re.finditer(r"(?=\.\.\.)", text):
        first, last = (set(_known(end, order)) for end in (text[: match.start()], text[match.start() + 3 :]))
        if first and last:
            places = [order[name] for name in first | last]
            return [name for name, place in order.items() if min(places) <= place <= max(places)]
    return []
