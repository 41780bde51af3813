"""`StepEstimate`: how long a step is expected to take, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bigzoo._tables import Table
from bigzoo._units import bytes_text, seconds_text


@dataclass(frozen=True)
class StepEstimate:
    """How long a step takes, as a middle and a range, and what it is bound by.

    Attributes:
        on: Name of the hardware.
        devices: How many of them work together, data parallel.
        batch_size: Samples in a step over all devices.
        step_seconds: The middle of the estimate.
        step_low_seconds, step_high_seconds: Its range.
        compute_seconds: Of the middle: operations that wait for arithmetic.
        memory_seconds: Operations that wait for memory.
        overhead_seconds: To start the operations.
        communication_seconds: To add the gradients up over all devices, as far as it shows.
        mfu: Model FLOPs utilisation: the products' FLOPs per second over the peak; None where no
            peak is known.
        bound: The largest of the four: "compute", "memory", "overhead" or "communication".
        assumptions: What the figures rest on, in sentences.
        training: Whether it is a training step; None if that isn't known.
        peak_bytes: Memory that each device needs, the report's; None if that isn't known.
    """

    on: str
    devices: int
    batch_size: int
    step_seconds: float
    step_low_seconds: float
    step_high_seconds: float
    compute_seconds: float
    memory_seconds: float
    overhead_seconds: float
    communication_seconds: float
    mfu: float | None
    bound: str
    assumptions: tuple[str, ...] = field(default=())
    training: bool | None = None
    peak_bytes: int | None = None

    @property
    def samples_per_second(self) -> float:
        """Of all devices together, by the middle of the estimate."""
        return self.batch_size / self.step_seconds

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain numbers, strings and lists, which JSON can hold."""
        return {**self.__dict__, "assumptions": list(self.assumptions)}

    def __str__(self) -> str:
        return f"{self._table().text()}\n" + "\n".join(f"- {text}" for text in self.assumptions)

    def _repr_html_(self) -> str:
        return self._table().html()

    def _memory(self) -> list[tuple[str, str]]:
        if self.peak_bytes is None:
            return []
        return [("memory of a device", bytes_text(self.peak_bytes))]

    def _communication(self) -> list[tuple[str, str]]:
        if self.devices == 1:
            return []
        return [("adding gradients up", seconds_text(self.communication_seconds))]

    def _table(self) -> Table:
        kind = {True: "training ", False: "inference ", None: ""}[self.training]
        article = "An" if self.training is False else "A"
        title = f"{article} {kind}step of {self.batch_size} samples on {self.devices} x {self.on}"
        low, high = seconds_text(self.step_low_seconds), seconds_text(self.step_high_seconds)
        rows = [
            ("step", f"{seconds_text(self.step_seconds)} ({low} to {high})"),
            ("samples per second", f"{self.samples_per_second:,.4g}"),
            ("waiting for arithmetic", seconds_text(self.compute_seconds)),
            ("waiting for memory", seconds_text(self.memory_seconds)),
            ("starting operations", seconds_text(self.overhead_seconds)),
            *self._communication(),
            ("bound by", self.bound),
            ("MFU", "unknown" if self.mfu is None else f"{self.mfu:.1%}"),
            *self._memory(),
        ]
        return Table(("", ""), tuple(rows), title, left=(0, 1))
