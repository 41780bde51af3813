"""How long calls take beside each other: in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_ROUNDS = 15
# A call shorter than this is repeated until its round is as long: clocks and switches cost too.
_ROUND_SECONDS = 0.01


@dataclass(frozen=True)
class Latency:
    """Time of one call before and after, from rounds in turns.

    Attributes:
        batch_size: Rows in a call.
        before_seconds, after_seconds: Medians over the rounds.
        speedup: Median over the rounds of before / after; 2 is twice as fast.
        low, high: The quartiles of the same.
    """

    batch_size: int
    before_seconds: float
    after_seconds: float
    speedup: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "faster", "slower", or "alike" where a quarter of the rounds says otherwise."""
        if self.low > 1.02:
            return "faster"
        return "slower" if self.high < 0.98 else "alike"


def latency(
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    x: Any,
    batch_size: int,
    seconds: float = 1.0,
) -> Latency:
    """Time both calls on the same rows, in turns.

    Args:
        before, after: Take `x` and return when the answer is there.
        x: Input of `batch_size` rows, in the form that both take.
        batch_size: Rows in `x`.
        seconds: About as long in all; at least three rounds are run.
    """
    repeats = [_repeats(call, x) for call in (before, after)]
    samples: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(samples) < 3 or (len(samples) < _ROUNDS and time.perf_counter() < end):
            # The second of a pair finds warm caches: each is second as often as the other.
            if len(samples) % 2:
                two = _timed(after, x, repeats[1])
                samples.append((_timed(before, x, repeats[0]), two))
            else:
                one = _timed(before, x, repeats[0])
                samples.append((one, _timed(after, x, repeats[1])))
    finally:
        if collecting:
            gc.enable()
    return _summary(samples, batch_size)


def _summary(samples: Sequence[tuple[float, float]], batch_size: int) -> Latency:
    ratios = [one / two for one, two in samples]
    low, middle, high = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
    before, after = (statistics.median(column) for column in zip(*samples, strict=True))
    return Latency(batch_size, before, after, middle, low, high)


def _repeats(call: Callable[[Any], Any], x: Any) -> int:
    call(x)  # compiles, allocates, starts threads
    once = min(_timed(call, x, 1) for _ in range(2))
    return max(1, min(1000, round(_ROUND_SECONDS / max(once, 1e-7))))


def _timed(call: Callable[[Any], Any], x: Any, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call(x)
    return (time.perf_counter() - start) / repeats
