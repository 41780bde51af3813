"""Which batch fits into how much memory, from a few analyses of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bigzoo.cost._power import Range
from bigzoo.cost._report import CostReport

# Sharding -> the fields of a report of which each of n devices holds 1/n. Stages 1 and 3 of ZeRO.
SHARDED = {
    "none": (),
    "optimizer": ("optimizer_bytes",),
    "all": ("optimizer_bytes", "gradient_bytes", "weight_bytes"),
}
SHARDED_WHY = (
    "sharding over n devices leaves 1/n of the optimizer's slots, or of weights, gradients and "
    "slots, on each (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, figure 1); whole "
    "layers that are gathered for their step are not counted"
)
_TRIES = 4


@dataclass(frozen=True)
class Need:
    """Devices that are needed until a batch fits; None if no number of them is enough."""

    none: int | None
    optimizer: int | None
    all: int | None


class Memory:
    """Peak memory of one replica at any batch size.

    Memory grows with the batch in a straight line, as its states don't depend on the batch and its
    activations are proportional to it. Two analyses give the line.

    Args:
        analyze: Batch size -> report.
        batch_size: A batch that is surely of interest.
        report: A report that is there already.
    """

    def __init__(
        self, analyze: Callable[[int], CostReport], batch_size: int, report: CostReport | None
    ) -> None:
        self._analyze = analyze
        self._reports = {} if report is None else {report.batch_size: report}
        first, second = batch_size, max(1, batch_size // 2)
        second = second if second != first else 2 * first
        self._points = [(size, _peak(self.report(size))) for size in (first, second)]

    def report(self, batch_size: int) -> CostReport:
        if batch_size not in self._reports:
            self._reports[batch_size] = self._analyze(batch_size)
        return self._reports[batch_size]

    def peak(self, batch_size: float, devices: int = 1, sharding: str = "none") -> Range:
        """Bytes on each device, with this many samples on each."""
        (first, one), (second, other) = self._points
        share = (batch_size - first) / (second - first)
        saved = self._states(sharding) * (1 - 1 / devices)
        ends = zip(_ends(one), _ends(other), strict=True)
        low, mid, high = (max(1.0, a + (b - a) * share - saved) for a, b in ends)
        return Range(low, mid, high)

    def fits(self, memory_bytes: float, batch_size: int) -> str:
        """ "yes", "no", or "close" where the interval of the peak doesn't decide it."""
        return verdict(self.peak(batch_size), memory_bytes)

    def largest(self, memory_bytes: float, limit: int) -> Range:
        """Largest batch by the upper end of the peak's interval, its middle, its lower end.

        The first, which surely fits, is checked by an analysis at that size.
        """
        high, mid, low = (
            min(limit, self._crossing(memory_bytes, end)) for end in ("low", "mid", "high")
        )
        for _ in range(_TRIES):
            if low < 1 or _peak(self.report(low)).high <= memory_bytes:
                break
            # Not quite a straight line: go down by what is too much, and at least by one sample.
            over = _peak(self.report(low)).high - memory_bytes
            slope = max(self._slope("high"), 1.0)
            low = max(0, low - max(1, math.ceil(over / slope)))
        else:
            low = 0 if low >= 1 and _peak(self.report(low)).high > memory_bytes else low
        return Range(low, max(low, mid), max(low, high))

    def need(self, memory_bytes: float, batch_size: int) -> Need:
        """How many devices are needed for this batch, each with its part of it."""
        return Need(*(self._devices(memory_bytes, batch_size, name) for name in SHARDED))

    def _devices(self, memory_bytes: float, batch_size: int, sharding: str) -> int | None:
        if self.peak(1, batch_size, sharding).high > memory_bytes:
            return None  # one sample on each device is the least
        # More devices never need more on each, so that the first that fits can be searched for.
        low, high = 1, batch_size
        while low < high:
            middle = (low + high) // 2
            samples = math.ceil(batch_size / middle)
            if self.peak(samples, middle, sharding).high <= memory_bytes:
                high = middle
            else:
                low = middle + 1
        return low

    def _states(self, sharding: str) -> int:
        report = self.report(self._points[0][0])
        return sum(getattr(report, name) for name in SHARDED[sharding])

    def _slope(self, end: str) -> float:
        (first, one), (second, other) = self._points
        return (getattr(other, end) - getattr(one, end)) / (second - first)

    def _crossing(self, memory_bytes: float, end: str) -> int:
        first, one = self._points[0]
        slope, left = self._slope(end), memory_bytes - getattr(one, end)
        if slope <= 0:
            return 2**62 if left >= 0 else 0
        return max(0, first + math.floor(left / slope))


def verdict(peak: Range, memory_bytes: float) -> str:
    """Whether what lies in this range fits."""
    if peak.high <= memory_bytes:
        return "yes"
    return "no" if peak.low > memory_bytes else "close"


def _peak(report: CostReport) -> Range:
    return Range(report.peak_low_bytes, report.peak_bytes, report.peak_high_bytes)


def _ends(peak: Range) -> tuple[float, float, float]:
    return peak.low, peak.mid, peak.high
