"""Models: each is a function that returns a plain, uncompiled, functional `keras.Model`."""

from __future__ import annotations

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo.models._table import ModelTable, list_models
from bigzoo.models.cnn import cnn
from bigzoo.models.linear_regression import linear_regression
from bigzoo.models.logistic_regression import logistic_regression
from bigzoo.models.mlp import mlp

__all__ = [
    "ModelTable",
    "cnn",
    "linear_regression",
    "list_models",
    "logistic_regression",
    "mlp",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
