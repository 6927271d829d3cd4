"""Why a gate fails: where a file's values leave the program's, and which layers' pruning costs most."""

from snowsdeploy.pipeline.debug_accuracy import debug_accuracy
from snowsdeploy.pipeline.debug_parity import debug_parity

__all__ = ["debug_accuracy", "debug_parity"]
