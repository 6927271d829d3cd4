"""Which weights stay: each selector scores the weights; a pattern turns scores into a mask."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from snowsdeploy.selectors.magnitude import magnitude

SELECTORS: dict[str, Callable[[Tensor], Tensor]] = {"magnitude": magnitude}
