"""ONNX Runtime sessions that run where they were asked to, or not at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from snowsdeploy.errors import ProviderError, SourceError, UsageError, first_line
from snowsdeploy.files import require_regular
from snowsdeploy.runtime.engine_cache import cache_options, engine_key
from snowsdeploy.runtime.libraries import missing_library
from snowsdeploy.runtime.providers import PROVIDERS, Provider, not_loaded
from snowsdeploy.settings.runtime import RuntimeSettings

Array = NDArray[Any]
# Of a model with one input its array; else name -> array.
Feed: TypeAlias = Array | Mapping[str, Array]
_NUMPY = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    **{f"tensor({kind})": kind for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")},
}


@dataclass(frozen=True)
class OrtSession:
    """A loaded model.

    Attributes:
        session: The ONNX Runtime session, fallback disabled.
        provider: The provider asked for.
        placement: Provider -> number of nodes that it really runs.
    """

    session: ort.InferenceSession
    provider: Provider
    placement: dict[str, int]

    @classmethod
    def open(
        cls,
        model: Path | bytes,
        runtime: RuntimeSettings | None = None,
        *,
        threads: int | None = None,
        profile: Path | None = None,
        verbose: bool = False,
        rewrite: bool = True,
    ) -> OrtSession:
        """Load a file.

        Args:
            model: ONNX file, or its content.
            runtime: Where and how it runs; the CPU when not given.
            threads: Intra-op threads; None leaves ONNX Runtime's choice.
            profile: Prefix of a file in which ONNX Runtime records every kernel call.
            verbose: Let it write everything it does to standard error.
            rewrite: Let ONNX Runtime fuse and replace nodes, as it does by default.

        Raises:
            ProviderError: The provider is not in this build, does not load, leaves nodes to a provider that
                `--allow-fallback` does not name, or ONNX Runtime refuses the file.
            SourceError: The file is not an ONNX model.
        """
        if isinstance(model, Path):
            require_regular(model, "the ONNX file is no file", SourceError)
        runtime = runtime or RuntimeSettings()
        wanted = PROVIDERS[runtime.provider]
        fallbacks = [PROVIDERS[name] for name in runtime.allow_fallback if name != wanted.name]
        _require_fallbacks(wanted, fallbacks)
        wanted.register()
        if not wanted.plugin and wanted.ep not in ort.get_available_providers():
            raise not_loaded(wanted, f"this build has {', '.join(ort.get_available_providers())}")
        options = _session_options(threads, profile, verbose=verbose, rewrite=rewrite)
        try:
            providers = [(wanted.ep, provider_options(wanted, model, runtime))]
            providers += [(other.ep, dict(other.options)) for other in fallbacks]
            if wanted.plugin:  # known by its devices, not by a name in this build
                wanted.add_to(options, providers[0][1])
                providers = []
            session = ort.InferenceSession(model, options, providers=providers or None, enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises one class a status code
            if missing_library(wanted.name):
                raise not_loaded(wanted, _reason(error)) from error
            file = model.name if isinstance(model, Path) else "a model"
            if isinstance(model, Path) and ("INVALID_PROTOBUF" in str(error) or not model.exists()):
                raise SourceError(
                    f"the {'file is not an ONNX model' if model.exists() else 'ONNX file does not exist'}",
                    seen=f"{model}: {_reason(error)}",
                    allowed="a complete .onnx file",
                    fix="check the path; copy or download the file again",
                ) from error
            raise ProviderError(
                f"ONNX Runtime cannot load {file} with --provider {wanted.name}",
                seen=_reason(error),
                allowed=f"a model that {wanted.ep} of ONNX Runtime {ort.__version__} can load",
                fix=f"export the model with another --opset; where no model loads: {wanted.hint}",
            ) from error
        session.disable_fallback()
        loaded = session.get_providers()
        if loaded[0] != wanted.ep:
            raise not_loaded(wanted, f"ONNX Runtime fell back to {', '.join(loaded)}")
        nodes: dict[str, list[str]] = {}
        for part in session.get_provider_graph_assignment_info():  # a provider runs several parts of the graph
            nodes.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
        require_placement(wanted, nodes, [other.ep for other in fallbacks])
        return cls(session, wanted, {ep: len(operators) for ep, operators in nodes.items()})

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(i.name for i in self.session.get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(o.name for o in self.session.get_outputs())

    def random_inputs(self, batch: int, axes: Mapping[str, int] = MappingProxyType({}), seed: int = 0) -> Feed:
        """Of the file's own shapes and types; zeros and ones where indices go in, their digits where texts do.

        Args:
            batch: Items: the first axis where it may vary.
            axes: Sizes of the other axes that may vary, by their names in the file.
            seed: Of the values.

        Raises:
            UsageError: The file takes another number of items, or an axis that varies has no size here.
            SourceError: An input is of a type that has no arrays.
        """
        rng, inputs = np.random.default_rng(seed), self.session.get_inputs()
        if others := [value for value in inputs if value.type not in _NUMPY]:
            raise SourceError(
                "an input of the file is of a type that no values are made of here",
                seen=", ".join(f"{value.name}: {value.type}" for value in others),
                allowed=", ".join(_NUMPY),
                fix="export the model with tensors of these types as inputs",
            )
        fixed = [value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)]
        if len(fixed) == len(inputs) and batch not in fixed:
            raise UsageError(
                "the file takes another number of items",
                seen=f"{batch}",
                allowed=f"{fixed[0]}",
                fix=f"--batch {fixed[0]}",
            )
        made = {value.name: _random(_sizes(value, batch, axes), _NUMPY[value.type], rng) for value in inputs}
        return made if len(made) > 1 else next(iter(made.values()))

    def bind(self, feed: Feed) -> Callable[[], None]:
        """A call on inputs that lie on the device already, whose outputs stay there, at fixed addresses."""
        device, binding, arrays = self.provider.device, self.session.io_binding(), self._named(feed)
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
        for value in self.session.get_outputs():
            shape = _output_shape(value, len(next(iter(arrays.values())))) if value.type in _NUMPY else None
            if shape is None:  # ONNX Runtime finds the size, and a place, at every call
                binding.bind_output(value.name, device)
                continue
            place = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(_NUMPY[value.type]), device, 0)
            binding.bind_ortvalue_output(value.name, place)

        def call() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call

    def run(self, feed: Feed) -> list[Array]:
        """Run one batch.

        Raises:
            ProviderError: ONNX Runtime fails on this input.
        """
        return [np.asarray(output) for output in self.call(feed)]

    def call(self, feed: Feed) -> Sequence[Any]:
        """Run one batch; outputs as ONNX Runtime gives them, which may be lists and dicts.

        Raises:
            ProviderError: ONNX Runtime fails on this input.
        """
        arrays = self._named(feed)
        try:
            outputs: Sequence[Any] = self.session.run(None, arrays)
        except Exception as error:  # as above
            shapes = ", ".join(str(array.shape) for array in arrays.values())
            raise ProviderError(
                f"ONNX Runtime failed on a batch of shape {shapes}",
                seen=_reason(error),
                allowed=", ".join(f"{value.name} {value.shape}" for value in self.session.get_inputs()),
                fix="compare the shapes; where they fit, try another --provider or fewer items at once",
            ) from error
        return outputs

    def _named(self, feed: Feed) -> dict[str, Array]:
        return dict(feed) if isinstance(feed, Mapping) else {self.input_names[0]: feed}


def _random(shape: Sequence[int], kind: str, rng: np.random.Generator) -> Array:
    if kind == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind.startswith("float"):
        return rng.standard_normal(shape).astype(kind)
    numbers = rng.integers(0, 2, shape)
    return np.array(numbers.astype(str), np.object_) if kind == "object" else numbers.astype(kind)


def _sizes(value: ort.NodeArg, batch: int, axes: Mapping[str, int]) -> list[int]:
    sizes = _with_batch(value, batch)
    names = {place: size or f"{value.name}:{place}" for place, size in enumerate(sizes) if not isinstance(size, int)}
    if unknown := [name for name in names.values() if name not in axes]:
        raise UsageError(
            "axes of the file vary, and nothing says their size",
            seen=f"{', '.join(unknown)} of {value.name}",
            allowed="one size for each of them",
            fix=" ".join(f"--axis {name}=N" for name in unknown),
        )
    return [axes[names[place]] if place in names else size for place, size in enumerate(sizes)]


def _with_batch(value: ort.NodeArg, batch: int) -> list[Any]:
    """Sizes, or names of those that vary beside the first."""
    return [batch if place == 0 and not isinstance(size, int) else size for place, size in enumerate(value.shape)]


def _output_shape(value: ort.NodeArg, batch: int) -> list[int] | None:
    """None where an axis varies beside the batch."""
    shape = _with_batch(value, batch)
    return shape if all(isinstance(size, int) for size in shape) else None


def _reason(error: Exception) -> str:
    """The first line of ONNX Runtime's message, without the place in its source."""
    return re.sub(r"^/\S+:\d+ [^)]*\)\s*", "", first_line(error, 1000))[:300]


def require_placement(wanted: Provider, nodes: Mapping[str, Sequence[str]], allowed: Sequence[str]) -> None:
    """Raise unless every node runs where it may.

    Args:
        wanted: The provider asked for.
        nodes: ONNX Runtime's name of a provider -> operators of the nodes that it runs.
        allowed: Names of other providers that may run some.

    Raises:
        ProviderError: The wanted provider runs nothing, or another one that is not allowed runs something.
    """
    if not nodes.get(wanted.ep):
        placed = ", ".join(f"{len(operators)} nodes on {ep}" for ep, operators in nodes.items())
        raise not_loaded(wanted, f"it was given no node; {placed}")
    stray = {ep: operators for ep, operators in nodes.items() if ep != wanted.ep and ep not in allowed}
    if stray:
        names = {provider.ep: provider.name for provider in PROVIDERS.values()}
        counted = {ep: Counter(operators).most_common(5) for ep, operators in stray.items()}
        texts = [f"{ep}: {', '.join(f'{n} {operator}' for operator, n in found)}" for ep, found in counted.items()]
        raise ProviderError(
            f"--provider {wanted.name} does not run every node",
            seen="; ".join(texts),
            allowed=f"every node on {', '.join([wanted.ep, *allowed])}",
            fix=f"if that is meant, --allow-fallback {','.join(names.get(ep, ep) for ep in stray)}",
        )


def _require_fallbacks(wanted: Provider, fallbacks: Sequence[Provider]) -> None:
    if wanted.plugin and any(other.name != "cpu" for other in fallbacks):
        raise UsageError(
            f"--provider {wanted.name} is a plugin, which ONNX Runtime pairs with its CPU provider only",
            seen=f"--allow-fallback {','.join(other.name for other in fallbacks)}",
            allowed="--allow-fallback cpu",
            fix="leave the other out, or choose another --provider",
        )


def _session_options(threads: int | None, profile: Path | None, *, verbose: bool, rewrite: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 0 if verbose else 4  # its own account of a failed provider; ours follows
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Idle threads of one session would otherwise spin on the cores that the next one is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if threads is not None:
        options.intra_op_num_threads = threads
    if not rewrite:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def provider_options(provider: Provider, model: Path | bytes, runtime: RuntimeSettings) -> dict[str, str]:
    """The provider's own, under those of the user; with a cache, a folder for exactly this engine."""
    options = {**provider.options, **runtime.provider_option}
    if runtime.engine_cache is None:
        return options
    return options | cache_options(provider, runtime.engine_cache, engine_key(model, provider, options))
