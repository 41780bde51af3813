"""What an optimizer keeps and does per weight, learned from a copy that works on tiny weights.

So any optimizer counts right, also one of the user's own: factored slots, gradient accumulation,
moving averages of weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import message, shorten, suggest
from bigzoo.cost._program import item_bits

# Sides of the tiny weights: all different, so that a slot's shape tells which axes it has.
_SIDES = (2, 3, 5, 7, 11, 13, 17)
_KNOWN = (
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
)


@dataclass(frozen=True)
class Slots:
    """What an optimizer keeps.

    Attributes:
        name: Of the optimizer's class.
        bytes: Of all its slots.
        arrays: Slots of the weight's own shape, for each trainable weight.
    """

    name: str = ""
    bytes: int = 0
    arrays: tuple[int, ...] = ()


def get_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    """A fresh optimizer like the one given, by name or object; the user's own stays untouched."""
    if isinstance(optimizer, str):
        if optimizer.lower() not in _KNOWN:
            fix = suggest(optimizer, _KNOWN)
            raise ValueError(message("optimizer", optimizer, "a known name", fix))
        return keras.optimizers.get(optimizer.lower())
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    raise TypeError(message("optimizer", optimizer, "a name or a keras optimizer"))


def slots(optimizer: Any, variables: Sequence[Any], dtype: str | None = None) -> Slots:
    """The slots that `optimizer` would keep for `variables`; nothing of their size is made.

    Args:
        optimizer: Name or optimizer.
        variables: The trainable weights.
        dtype: Of the weights, if not the one that they have.
    """
    fresh = get_optimizer(optimizer)
    probed: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    total, arrays = 0, []
    for variable in variables:
        rank, path = len(variable.shape), _path_that_matters(fresh, variable)
        if (rank, path) not in probed:
            probed[rank, path] = _probe(fresh, rank, path)
        shapes = probed[rank, path]
        sizes = [math.prod(_scaled(side, variable.shape) for side in shape) for shape in shapes]
        bits = item_bits(dtype or keras.backend.standardize_dtype(variable.dtype))
        total += sum(sizes) * bits // 8
        arrays.append(sum(shape == _SIDES[:rank] for shape in shapes))
    return Slots(type(fresh).__name__, total, tuple(arrays))


def _path_that_matters(optimizer: Any, variable: Any) -> str:
    """Muon keeps other slots for the layers that it leaves to Adam, which it knows by path."""
    return str(variable.path) if hasattr(optimizer, "exclude_layers") else "kernel"


def _probe(optimizer: keras.optimizers.Optimizer, rank: int, path: str) -> list[tuple[int, ...]]:
    """Shapes of the slots for one tiny weight of this rank and path."""
    copy = get_optimizer(optimizer)
    *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        weight = keras.Variable(keras.ops.ones(_SIDES[:rank]), name=name)
    before = len(copy.variables)
    try:
        copy.build([weight])
    except Exception as error:
        raise ValueError(
            f"The optimizer {optimizer.name!r} can't be built for a weight of rank {rank}: "
            f"{shorten(error)}. Give another `optimizer`."
        ) from error
    return [tuple(v.shape) for v in copy.variables[before:]]


def _scaled(side: int, shape: Sequence[int]) -> int:
    return int(shape[_SIDES.index(side)]) if side in _SIDES[: len(shape)] else side
