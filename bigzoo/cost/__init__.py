"""What a model asks of hardware, before a step is run: FLOPs, memory, time, energy, money."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "CostReport": "bigzoo.cost._report",
    "analyze": "bigzoo.cost._analyze",
}

if TYPE_CHECKING:
    from bigzoo.cost import hardware
    from bigzoo.cost._analyze import analyze
    from bigzoo.cost._report import CostReport

__all__ = [
    "CostReport",
    "analyze",
    "hardware",
]


def __getattr__(name: str) -> Any:
    if name == "hardware":
        return importlib.import_module("bigzoo.cost.hardware")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    from bigzoo._errors import no_attribute

    raise no_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
