"""The state dicts of a checkpoint, and a module -> the one that fits it, loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Size, Tensor, nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.checkpoint import StateDict, some, without_wrappers
from snowsdeploy.models.usable import require_usable_weights
from snowsdeploy.user_code import contained

_COUNTER = "num_batches_tracked"  # old checkpoints lack it, and evaluation does not use it
_TRIED = 4  # names of the module that prefixes are looked for by; some may be left out of a file, as tied weights are


@dataclass(frozen=True)
class Weights:
    """One way to read a state dict.

    Attributes:
        key: Which of the file's it is; empty for the file itself.
        prefix: What was removed from every name; names without it are left out.
        tensors: By what should be the module's names.
    """

    key: str
    prefix: str
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        """`model_state_dict, without the prefix model.`; empty for a plain file."""
        return ", ".join(part for part in (self.key, self.prefix and f"without the prefix {self.prefix}") if part)


def load_weights(
    module: nn.Module,
    state_dicts: Sequence[StateDict],
    arch: str,
    *,
    state_key: str | None = None,
    strip_prefix: str | None = None,
) -> Weights:
    """Load the state dict that fits a module; every name must match.

    Names that fit as they are stay so. Else what wrappers add is removed, then one prefix under which the module has
    all its names, such as Lightning's `model.`.

    Args:
        module: Of the architecture.
        state_dicts: Of a file, those that trainers use first.
        arch: Its name, for messages.
        state_key: The user's choice of a state dict.
        strip_prefix: The user's choice of a prefix.

    Raises:
        SourceError: Nothing fits, and what is closest is described; several do and none is the usual one; or what fits
            has no values that weights can take.
    """
    chosen = [state for state in state_dicts if state_key is None or state.key == state_key]
    if not chosen:
        raise SourceError(
            "--state-key names no state dict of the file",
            seen=state_key,
            allowed=some([s.key for s in state_dicts if s.key]) or "nothing: the file itself is one",
            fix="choose one of these, or leave --state-key out",
        )
    with contained(f"state_dict of {type(module).__name__}"):
        own = module.state_dict()
    fitting = [(state, found) for state in chosen if (found := _fitting(state, own, strip_prefix))]
    if not fitting:
        raise _nothing_fits(own, chosen, arch, strip_prefix)
    state, found = fitting[0]
    if len(fitting) > 1 and not state.is_usual:
        raise SourceError(
            f"several state dicts of the checkpoint fit the architecture {arch}",
            seen=", ".join(s.key or "the file itself" for s, _ in fitting),
            allowed="one that fits, or one under a name that trainers use",
            fix=f"choose one: --state-key {next(s.key for s, _ in fitting if s.key)}",
        )
    if len(found) > 1:
        raise SourceError(
            f"several parts of the checkpoint fit the architecture {arch}",
            seen=f"names that begin with {some([w.prefix for w in found])}",
            allowed="one part that fits",
            fix=f"choose one: --strip-prefix {found[0].prefix}",
        )
    require_usable_weights(found[0].tensors, module)
    module.load_state_dict(found[0].tensors, strict=False)
    return found[0]


def _fitting(state: StateDict, own: Mapping[str, Tensor], strip_prefix: str | None) -> list[Weights]:
    """The plainest reading that fits; several where only a prefix makes it fit and there are several."""
    for readings in _readings(state, own, strip_prefix):
        fits = [weights for weights in readings if not any(_problems(own, weights.tensors).values())]
        if fits:
            return fits
    return []


def _readings(state: StateDict, own: Mapping[str, Tensor], strip_prefix: str | None) -> Iterator[list[Weights]]:
    forms = (
        state.tensors,
        without_wrappers(state.tensors),
        _without_parts(state.tensors, "_orig_mod"),
        _without_parts(state.tensors, "_orig_mod", "module"),
    )
    if strip_prefix is None:
        for tensors in forms:
            yield [Weights(state.key, "", tensors)]
    for tensors in forms:
        prefixes = _prefixes(tensors, own) if strip_prefix is None else [strip_prefix]
        yield [Weights(state.key, prefix, _under(tensors, prefix)) for prefix in prefixes]


def _without_parts(tensors: Mapping[str, Tensor], *parts: str) -> dict[str, Tensor]:
    """Names without what compiling or wrapping a submodule puts into them."""
    return {".".join(p for p in name.split(".") if p not in parts): tensor for name, tensor in tensors.items()}


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    names = [name for name in own if not name.endswith(_COUNTER)][:_TRIED]
    ends = (key.removesuffix(name) for name in names for key in tensors if key.endswith(f".{name}"))
    return sorted(set(ends), key=lambda prefix: (len(prefix), prefix))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _problems(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names that are missing or not known, and shapes that differ."""
    tied = {tensor.data_ptr() for name, tensor in own.items() if name in tensors} - {0}  # safetensors keeps one of them
    absent = {name: tensor for name, tensor in own.items() if name not in tensors and not name.endswith(_COUNTER)}
    missing = [name for name, tensor in absent.items() if tensor.data_ptr() not in tied]
    shapes = [
        f"{name} {tuple(shape)}, not {tuple(expected)}"
        for name, tensor in tensors.items()
        if name in own
        and (shape := _shape(tensor)) is not None
        and (expected := _shape(own[name])) is not None
        and shape != expected
    ]
    return {"missing": missing, "unexpected": [n for n in tensors if n not in own], "shape in file": shapes}


def _shape(tensor: Tensor) -> Size | None:
    """None for a lazy layer's, which has none before it runs."""
    return None if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer) else tensor.shape


def _nothing_fits(
    own: Mapping[str, Tensor], chosen: Sequence[StateDict], arch: str, strip_prefix: str | None
) -> SourceError:
    """Described by the reading that is closest."""
    readings = [w for state in chosen for form in _readings(state, own, strip_prefix) for w in form]
    closest = min(readings, key=lambda w: sum(map(len, _problems(own, w.tensors).values())))
    rows = [f"{len(items)} {label}: {some(items)}" for label, items in _problems(own, closest.tensors).items() if items]
    return SourceError(
        f"the weights do not fit the architecture {arch}",
        seen="; ".join([*([str(closest)] if str(closest) else []), *rows]),
        allowed=f"the {len(own)} keys of {arch}",
        fix="check --arch and --model-arg (for example --model-arg num_classes=10)",
    )
