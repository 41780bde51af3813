"""What a model asks of hardware, before a step is run: FLOPs, memory, time, energy, money."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Calibration": "bigzoo.cost._calibration",
    "Comparison": "bigzoo.cost._compare",
    "CostReport": "bigzoo.cost._report",
    "Diagnosis": "bigzoo.cost._doctor",
    "EnergyComparison": "bigzoo.cost._energy",
    "EnergyMeter": "bigzoo.cost._energy",
    "EnergyResult": "bigzoo.cost._energy",
    "Measurement": "bigzoo.cost._measure",
    "Operation": "bigzoo.cost._report",
    "PlanRow": "bigzoo.cost._plan_types",
    "Range": "bigzoo.cost._power",
    "StepEstimate": "bigzoo.cost._estimate",
    "Tally": "bigzoo.cost._report",
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
    from bigzoo.cost._doctor import Diagnosis, doctor
    from bigzoo.cost._energy import EnergyComparison, EnergyMeter, EnergyResult
    from bigzoo.cost._estimate import StepEstimate
    from bigzoo.cost._measure import Measurement, measure
    from bigzoo.cost._plan import plan
    from bigzoo.cost._plan_types import PlanRow, TrainingPlan
    from bigzoo.cost._power import Range
    from bigzoo.cost._predict import predict
    from bigzoo.cost._recommend import recommend
    from bigzoo.cost._report import CostReport, Operation, Tally

__all__ = [
    "Calibration",
    "Comparison",
    "CostReport",
    "Diagnosis",
    "EnergyComparison",
    "EnergyMeter",
    "EnergyResult",
    "Measurement",
    "Operation",
    "PlanRow",
    "Range",
    "StepEstimate",
    "Tally",
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
