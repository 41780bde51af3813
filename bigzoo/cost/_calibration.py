"""`Calibration`: the rates that a machine reaches, measured, and times looked up in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bigzoo._errors import suggest
from bigzoo._tables import Table
from bigzoo._units import bandwidth_text, bytes_text, rate_text, seconds_text
from bigzoo.cost._program import PRODUCTS
from bigzoo.cost._report import Operation

# Operations that evaluate a function per element, on which arithmetic takes longer than memory.
_FUNCTIONS = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "logistic",
        "sigmoid",
        "tanh",
        "erf",
        "erfc",
        "erf_inv",
        "erfinv",
        "pow",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "atan2",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "lgamma",
        "digamma",
        "softplus",
        "elu",
        "selu",
        "softmax",
        "logsoftmax",
        "cbrt",
        "gelu",
        "silu",
        "mish",
    ]
)


@dataclass(frozen=True)
class Sample:
    """One measurement: an operation of these dims (products) or these bytes, and its seconds."""

    dims: tuple[int, int, int, int]
    bytes: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class Calibration:
    """What this machine reaches on small computations like those of models.

    Attributes:
        name: Processor or accelerator.
        backend: Active Keras backend when it was measured.
        dtype: Of the arrays in it.
        date: When, as "2026-11-22 09:30".
        load: Share of the machine that others used just before, 0 to 1; None if not known.
        samples: Kind of operation -> what was measured.
        overhead_seconds: To start an operation within a compiled step.
        step_overhead_seconds: To start a compiled step.
        memory_bytes: Of the device; None if not known.
    """

    name: str
    backend: str
    dtype: str
    date: str
    load: float | None
    samples: Mapping[str, tuple[Sample, ...]] = field(repr=False)
    overhead_seconds: float = 0.0
    step_overhead_seconds: float = 0.0
    memory_bytes: int | None = None

    def peak(self, dtype: str) -> float | None:
        """The best rate of a product in FLOP/s; None for a dtype that was not measured."""
        if dtype != self.dtype:
            return None
        rates = [s.flops / s.seconds for kind in PRODUCTS for s in self.samples.get(kind, ())]
        return max(rates, default=None)

    @property
    def bandwidth_bytes_per_second(self) -> float:
        """Of elementwise work on arrays that no cache holds."""
        largest = max(self.samples["elementwise"], key=lambda sample: sample.bytes)
        return largest.bytes / largest.seconds

    @property
    def rates(self) -> dict[str, float]:
        """Kind of operation -> its median rate: FLOP/s for products, bytes/s for the others."""
        return {kind: _median_rate(kind, found) for kind, found in self.samples.items()}

    def seconds(self, op: Operation, working_set_bytes: int = 0) -> tuple[float, float, float]:
        """Seconds of arithmetic, of memory traffic, and to start, for one run of `op`.

        Args:
            op: An operation of a report.
            working_set_bytes: What was written since `op`'s inputs were. If that is more than
                `op` moves, its inputs have left the caches that their own size would fit in, and
                the bandwidth is that of this size. Products, which use a byte often, don't care.
        """
        moved = op.read_bytes + op.write_bytes
        kind = kind_of(op)
        if kind not in self.samples:
            raise ValueError(
                f"The calibration has no rate for {kind!r}. {suggest(kind, self.samples)}"
            )
        found = self.samples[kind]
        if op.kind in PRODUCTS:
            rate = _rate_near(op, found)
            return op.flops / rate, moved / self.bandwidth_bytes_per_second, self.overhead_seconds
        bandwidth = _bandwidth_near(max(moved, working_set_bytes), found)
        return 0.0, moved / bandwidth, self.overhead_seconds

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain dicts, lists, numbers and strings, which JSON can hold."""
        plain = {key: value for key, value in self.__dict__.items() if key != "samples"}
        plain["samples"] = {
            kind: [{**sample.__dict__, "dims": list(sample.dims)} for sample in found]
            for kind, found in self.samples.items()
        }
        return plain

    def __str__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        title = f"{self.name}, {self.dtype}, {self.backend}, {self.date}"
        rows = [(kind, _range_of(kind, found)) for kind, found in self.samples.items()]
        rows += [
            ("start of an operation", seconds_text(self.overhead_seconds)),
            ("start of a step", seconds_text(self.step_overhead_seconds)),
            ("load by others before", "unknown" if self.load is None else f"{self.load:.0%}"),
            ("memory", "unknown" if self.memory_bytes is None else bytes_text(self.memory_bytes)),
        ]
        return Table(("kind of operation", "measured"), tuple(rows), title, left=(0, 1))


def kind_of(op: Operation) -> str:
    """The kind of measurement that stands for an operation."""
    if op.phase == "update":
        return "update"
    if op.kind in ("conv", "depthwise"):
        for side, suffix in (("left", "input gradient"), ("right", "weight gradient")):
            if op.name.endswith(f"gradient of {side}"):
                return f"{op.kind} {suffix}"
        return op.kind
    if op.kind == "matmul":
        return "matmul" if op.dims[0] == 1 else "batched matmul"
    if op.kind == "elementwise":
        return "function" if op.name.split(" ")[0].lower() in _FUNCTIONS else "elementwise"
    return {"unknown": "move"}.get(op.kind, op.kind)


def _rate_near(op: Operation, samples: Sequence[Sample]) -> float:
    """FLOP/s at these dims, from the measured ones by distance in log space."""
    total = weights = 0.0
    for sample in samples:
        distance = sum(
            math.log2(max(a, 1) / max(b, 1)) ** 2 for a, b in zip(op.dims, sample.dims, strict=True)
        )
        weight = 1 / (distance + 0.05) ** 1.5
        total += weight * math.log(sample.flops / sample.seconds)
        weights += weight
    return math.exp(total / weights)


def _bandwidth_near(moved: int, samples: Sequence[Sample]) -> float:
    """Bytes per second at this size, between the measured ones next to it, in log space."""
    ordered = sorted(samples, key=lambda sample: sample.bytes)
    rates = [sample.bytes / sample.seconds for sample in ordered]
    if moved <= ordered[0].bytes:
        return rates[0]
    for i in range(1, len(ordered)):
        if moved <= ordered[i].bytes:
            low, high = ordered[i - 1].bytes, ordered[i].bytes
            part = math.log(moved / low) / math.log(high / low)
            return math.exp((1 - part) * math.log(rates[i - 1]) + part * math.log(rates[i]))
    return rates[-1]


def _rates(kind: str, samples: Sequence[Sample]) -> list[float]:
    return sorted((s.flops if s.flops else s.bytes) / s.seconds for s in samples)


def _median_rate(kind: str, samples: Sequence[Sample]) -> float:
    rates = _rates(kind, samples)
    return rates[len(rates) // 2]


def _range_of(kind: str, samples: Sequence[Sample]) -> str:
    rates = _rates(kind, samples)
    text = rate_text if samples[0].flops else bandwidth_text
    return text(rates[0]) if len(rates) == 1 else f"{text(rates[0])} to {text(rates[-1])}"
