"""Does an execution provider really load here? Tried on a model of one node."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper

from snowsdeploy.errors import ProviderError
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import ProviderName, RuntimeSettings


def require_provider(runtime: RuntimeSettings) -> None:
    """Load and run a tiny model.

    Raises:
        ProviderError: The provider does not load or does not run.
    """
    OrtSession.open(_tiny_model(), runtime.model_copy(update={"engine_cache": None})).run(np.ones((1, 4), np.float32))


def provider_problem(name: ProviderName) -> ProviderError | None:
    """None when the provider loads and runs, else why not."""
    try:
        require_provider(RuntimeSettings(provider=name))
    except ProviderError as error:
        return error
    return None


@cache
def _tiny_model() -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
