"""What the optimizer does to the weights in a step, traced on one tiny weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from bigzoo.cost._optimizer import get_optimizer
from bigzoo.cost._program import item_bits
from bigzoo.cost._report import Operation

# Passes over arrays of the weight's size, where the trace can't be had: read weight, gradient and
# slots, write weight and slots.
_SIDES = (3, 5)


def update_operations(optimizer: Any, variables: Sequence[Any]) -> list[Operation]:
    """One elementwise operation per weight: the reads and writes of its update.

    Each array is read and written once, as a fused update does. TensorFlow's unfused one moves
    more; the time of a step is measured there with the optimizer's own rate.
    """
    arrays = _arrays(optimizer)
    return [_update(variable, arrays) for variable in variables]


def _arrays(optimizer: Any) -> int:
    """Arrays of the weight's size that the optimizer keeps, gradient accumulation included."""
    fresh = get_optimizer(optimizer)
    weight = keras.Variable(keras.ops.ones(_SIDES), name="kernel")
    before = len(fresh.variables)
    fresh.build([weight])
    return sum(tuple(v.shape) == _SIDES for v in fresh.variables[before:])


def _update(variable: Any, arrays: int) -> Operation:
    size = math.prod(tuple(variable.shape))
    dtype = keras.backend.standardize_dtype(variable.dtype)
    item = item_bits(dtype) // 8
    return Operation(
        name="optimizer update",
        kind="elementwise",
        phase="update",
        layer="",
        dtype=dtype,
        flops=0,
        elementwise_flops=size * (2 + 4 * arrays),
        read_bytes=size * item * (2 + arrays),
        write_bytes=size * item * (1 + arrays),
    )
