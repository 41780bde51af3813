"""Compile, check, fit, solve: from a model and its data to a trained model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public name -> the module that has it. Each is loaded when it is first used, so that solving a
# linear model, for example, doesn't load the code for checkpoints.
_MODULES = {
    "BigzooWarning": "bigzoo.train._check",
    "Finding": "bigzoo.train._check",
    "Report": "bigzoo.train._check",
    "Stage": "bigzoo.train._stages",
    "check": "bigzoo.train._check",
    "compile": "bigzoo.train._compile",
    "find_batch_size": "bigzoo.train._finders",
    "find_learning_rate": "bigzoo.train._finders",
    "finetune": "bigzoo.train._finetune",
    "fit": "bigzoo.train._fit",
    "merge_lora": "bigzoo.train._lora",
    "precision": "bigzoo.train._precision",
    "set_seed": "bigzoo.train._seed",
    "solve": "bigzoo.train._solve",
    "warmup_cosine": "bigzoo.train._schedule",
}

if TYPE_CHECKING:
    from bigzoo.train._check import BigzooWarning, Finding, Report, check
    from bigzoo.train._compile import compile
    from bigzoo.train._finders import find_batch_size, find_learning_rate
    from bigzoo.train._finetune import finetune
    from bigzoo.train._fit import fit
    from bigzoo.train._lora import merge_lora
    from bigzoo.train._precision import precision
    from bigzoo.train._schedule import warmup_cosine
    from bigzoo.train._seed import set_seed
    from bigzoo.train._solve import solve
    from bigzoo.train._stages import Stage

__all__ = [
    "BigzooWarning",
    "Finding",
    "Report",
    "Stage",
    "check",
    "compile",
    "find_batch_size",
    "find_learning_rate",
    "finetune",
    "fit",
    "merge_lora",
    "precision",
    "set_seed",
    "solve",
    "warmup_cosine",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    from bigzoo._errors import no_attribute

    raise no_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
