"""How fast the active backend multiplies matrices: a short look, no calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

DTYPES = ("float32", "bfloat16")
_FIRST_SIZE = 256
# A product that takes this long is large enough to time; larger ones only cost patience.
_LONG_ENOUGH = 0.02


def matmul_rates(seconds: float = 0.7, largest: int = 2048) -> Mapping[str, float | None]:
    """Dtype -> FLOP/s of the best of several products of square matrices; None where it fails.

    Args:
        seconds: Time for each dtype, about.
        largest: Rows of the largest matrix; a GPU needs 4096 to show what it can do.
    """
    return {dtype: _rate(dtype, seconds, largest) for dtype in DTYPES}


def _rate(dtype: str, seconds: float, largest: int) -> float | None:
    try:
        return _best(dtype, seconds, largest)
    except Exception:  # a dtype that the backend can't multiply on this device, or no memory
        return None


def _best(dtype: str, seconds: float, largest: int) -> float:
    end = time.perf_counter() + seconds
    size, best = _FIRST_SIZE, 0.0
    matrix = _matrix(size, dtype)
    _product(matrix)  # the first compiles, and starts threads
    while True:
        start = time.perf_counter()
        _product(matrix)
        now = time.perf_counter()
        took = max(now - start, 1e-9)
        best = max(best, 2.0 * size**3 / took)
        # The next size takes about eight times as long; its first run is a warm-up.
        if size < largest and took < _LONG_ENOUGH and now + 16 * took < end:
            size *= 2
            matrix = _matrix(size, dtype)
            _product(matrix)
        elif now + took >= end:
            return best


def _matrix(size: int, dtype: str) -> Any:
    # Not constant, and small enough that no product overflows.
    values = np.linspace(-1, 1, size * size, dtype="float32").reshape(size, size)
    return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)


def _product(matrix: Any) -> None:
    """One product, waited for: backends return before a GPU has finished."""
    result = keras.ops.matmul(matrix, matrix)
    keras.ops.convert_to_numpy(keras.ops.cast(result[:1, :1], "float32"))
