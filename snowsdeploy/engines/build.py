"""A provider builds an engine for a file while what it prints is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from snowsdeploy.engines.account import EngineAccount, captured_account
from snowsdeploy.runtime.native_log import captured_stderr
from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings


def build_account(
    path: Path, runtime: RuntimeSettings, batch: int = 1, axes: Mapping[str, int] = MappingProxyType({})
) -> EngineAccount | None:
    """What the provider says of the engine that it builds; None for a provider that builds none, or says nothing.

    The engine is built anew, since one from a cache tells nothing, and by a call, since shapes are known only then.

    Args:
        path: ONNX file.
        runtime: Where it runs.
        batch: Images of the call.
        axes: Sizes of the axes that vary beside the batch, by their names in the file.

    Raises:
        ProviderError: The file does not run there.
    """
    loud = PROVIDERS[runtime.provider].build_log
    if not loud:
        return None
    options = {**runtime.provider_option, **loud}
    fresh = runtime.model_copy(update={"provider_option": options, "engine_cache": None})
    with captured_stderr() as text:
        session = OrtSession.open(path, fresh, verbose=True)
        session.run(session.random_inputs(batch, axes))
        log = text()
    return captured_account(log)
