"""What the optimizer does to the weights in a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bigzoo.cost._optimizer import Slots
from bigzoo.cost._program import item_bits
from bigzoo.cost._report import Operation


def update_operations(
    slots: Slots, variables: Sequence[Any], layers: Mapping[int, str], dtype: str | None = None
) -> list[Operation]:
    """One elementwise operation per weight: the reads and writes of its update.

    Weight, gradient and slots are read once, weight and slots written once, as a fused update
    does. Where a backend doesn't fuse, its slower rate is in what `calibrate` measures. `layers`
    has the layer's name for the `id` of each weight.
    """
    return [
        _update(variable, arrays, layers.get(id(variable), ""), dtype)
        for variable, arrays in zip(variables, slots.arrays, strict=True)
    ]


def _update(variable: Any, arrays: int, layer: str, dtype: str | None) -> Operation:
    size = math.prod(tuple(variable.shape))
    dtype = dtype or keras.backend.standardize_dtype(variable.dtype)
    item = item_bits(dtype) // 8
    return Operation(
        name="optimizer update",
        kind="elementwise",
        phase="update",
        layer=layer,
        dtype=dtype,
        flops=0,
        # A decayed mean is two products and a sum; then the weight's own.
        elementwise_flops=size * (2 + 4 * arrays),
        read_bytes=size * item * (2 + arrays),
        write_bytes=size * item * (1 + arrays),
    )
