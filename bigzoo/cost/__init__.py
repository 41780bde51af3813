"""What a model asks of hardware, before a step is run: FLOPs, memory, time, energy, money."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Calibration": "bigzoo.cost._calibration",
    "Comparison": "bigzoo.cost._compare",
    "CostReport": "bigzoo.cost._report",
    "EnergyMeter": "bigzoo.cost._energy",
    "EnergyResult": "bigzoo.cost._energy",
    "Measurement": "bigzoo.cost._measure",
    "StepEstimate": "bigzoo.cost._estimate",
    "TrainingPlan": "bigzoo.cost._plan_types",
    "analyze": "bigzoo.cost._analyze",
    "calibrate": "bigzoo.cost._calibrate",
    "compare": "bigzoo.cost._compare",
    "doctor": "bigzoo.cost._doctor",
    "measure": "bigzoo.cost._measure",
    "plan": "bigzoo.cost._plan",
    "predict": "bigzoo.cost._predict",
    "recommend": "bigzoo.cost._recommend",
}

if TYPE_CHECKING:
    from bigzoo.cost import hardware
    from bigzoo.cost._analyze import analyze
    from bigzoo.cost._calibrate import calibrate
    from bigzoo.cost._calibration import Calibration
    from bigzoo.cost._compare import Comparison, compare
    from bigzoo.cost._doctor import doctor
    from bigzoo.cost._energy import EnergyMeter, EnergyResult
    from bigzoo.cost._estimate import StepEstimate
    from bigzoo.cost._measure import Measurement, measure
    from bigzoo.cost._plan import plan
    from bigzoo.cost._plan_types import TrainingPlan
    from bigzoo.cost._predict import predict
    from bigzoo.cost._recommend import recommend
    from bigzoo.cost._report import CostReport

__all__ = [
    "Calibration",
    "Comparison",
    "CostReport",
    "EnergyMeter",
    "EnergyResult",
    "Measurement",
    "StepEstimate",
    "TrainingPlan",
    "analyze",
    "calibrate",
    "compare",
    "doctor",
    "hardware",
    "measure",
    "plan",
    "predict",
    "recommend",
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
