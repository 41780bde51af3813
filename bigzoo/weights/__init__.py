"""Weights: checkpoints in, from files, folders, the Hugging Face hub, or a table of known ones."""

from __future__ import annotations

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo.weights._checkpoint import Checkpoint, open_checkpoint
from bigzoo.weights._list import WeightsTable, list_weights
from bigzoo.weights._load import load_weights
from bigzoo.weights._prefetch import prefetch

__all__ = [
    "Checkpoint",
    "WeightsTable",
    "list_weights",
    "load_weights",
    "open_checkpoint",
    "prefetch",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
