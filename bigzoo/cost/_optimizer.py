"""What an optimizer keeps and does per weight, learned from a copy that works on tiny weights.

So any optimizer counts right, also one of the user's own: factored slots, gradient accumulation,
moving averages of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import message, shorten, suggest
from bigzoo.cost._program import item_bits

# Sides of the tiny weights: all different, so that a slot's shape tells which axes it has.
_SIDES = (2, 3, 5, 7, 11, 13, 17)
_KNOWN = [
    "sgd",
    "rmsprop",
    "adam",
    "adamw",
    "adadelta",
    "adagrad",
    "adamax",
    "adafactor",
    "nadam",
    "ftrl",
    "lion",
    "lamb",
    "muon",
    "loss_scale_optimizer",
]


@dataclass(frozen=True)
class Slots:
    """The optimizer's name, its slots in bytes, and the arrays of each weight's size it has."""

    name: str
    bytes: int
    per_weight: float


def get_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    """A fresh optimizer like the one given, by name or object; the user's own stays untouched."""
    if isinstance(optimizer, str):
        try:
            return keras.optimizers.get(optimizer.lower())
        except ValueError:
            fix = suggest(optimizer, _KNOWN)
            raise ValueError(message("optimizer", optimizer, "a known name", fix)) from None
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    raise TypeError(message("optimizer", optimizer, "a name or a keras optimizer"))


def slots(optimizer: Any, variables: Sequence[Any]) -> Slots:
    """The slots that `optimizer` would keep for `variables`; nothing of their size is made."""
    fresh = get_optimizer(optimizer)
    shapes = {rank: _probe(fresh, rank) for rank in {len(variable.shape) for variable in variables}}
    total = 0
    for variable in variables:
        bits = item_bits(keras.backend.standardize_dtype(variable.dtype))
        for shape in shapes[len(variable.shape)]:
            size = math.prod(_scaled(side, variable.shape) for side in shape)
            total += size * bits // 8
    weights = sum(
        math.prod(v.shape) * item_bits(keras.backend.standardize_dtype(v.dtype)) // 8
        for v in variables
    )
    return Slots(type(fresh).__name__, total, total / weights if weights else 0.0)


def _probe(optimizer: keras.optimizers.Optimizer, rank: int) -> list[tuple[int, ...]]:
    """Shapes of the slots for one tiny weight of this rank."""
    copy = get_optimizer(optimizer)
    weight = keras.Variable(keras.ops.ones(_SIDES[:rank]), name="kernel")
    try:
        before = len(copy.variables)
        copy.build([weight])
    except Exception as error:
        raise ValueError(
            f"The optimizer {optimizer.name!r} can't be built for a weight of rank {rank}: "
            f"{shorten(error)}. Give another `optimizer`."
        ) from error
    return [tuple(v.shape) for v in copy.variables[before:]]


def _scaled(side: int, shape: Sequence[int]) -> int:
    return int(shape[_SIDES.index(side)]) if side in _SIDES[: len(shape)] else side
