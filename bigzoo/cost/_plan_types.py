"""`TrainingPlan` and its rows, as data, text and HTML."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigzoo._tables import WIDTH, Table, bullets, html_bullets, html_paragraph, paragraph
from bigzoo._units import (
    NOTHING,
    bytes_text,
    digits_text,
    energy_text,
    mass_text,
    range_text,
    seconds_text,
)
from bigzoo.cost._power import Range
from bigzoo.cost._render import plain

if TYPE_CHECKING:
    from bigzoo.cost._estimate import StepEstimate

# What a plan can be ordered by -> the field of a row.
SHARDED_PARTS = {"optimizer": "optimizer", "all": "weights, gradients, optimizer"}
FIGURES = {"hours": "hours", "energy": "kwh", "carbon": "kg_co2e", "money": "money"}


@dataclass(frozen=True)
class PlanRow:
    """What the training takes on one kind of device. None is always explained in `reasons`.

    Attributes:
        device: Name of the device.
        epochs: Of the plan.
        memory_bytes: Of one device.
        fits: Whether one device holds the model with the whole batch: "yes" if even the upper end
            of the peak's interval fits, "no" if not even the lower one does, else "close".
        largest_batch: Most samples that one device holds: surely (`low`), most likely, at best;
            no more than there are samples in the data.
        data_parallel_devices: Devices among which the batch must be parted to fit surely; None if
            not even one sample fits on each.
        sharded_optimizer_devices: The same with the optimizer's slots sharded.
        sharded_devices: The same with weights, gradients and slots sharded.
        devices: How many the following figures count with.
        sharding: What these share: "none", "optimizer" or "all".
        step: The estimate of one step.
        hours: From the first step to the last.
        device_kwh: Energy of the devices alone, as their own counters measure it.
        kwh: With the rest of the computer and the building.
        kg_co2e: Of that.
        money: In the currency of the price.
        assumptions: Behind the step's time.
        reasons: Why something is None.
    """

    device: str
    epochs: int
    memory_bytes: float | None = None
    fits: str | None = None
    largest_batch: Range | None = None
    data_parallel_devices: int | None = None
    sharded_optimizer_devices: int | None = None
    sharded_devices: int | None = None
    devices: int | None = None
    sharding: str = "none"
    step: StepEstimate | None = None
    hours: Range | None = None
    device_kwh: Range | None = None
    kwh: Range | None = None
    kg_co2e: Range | None = None
    money: Range | None = None
    assumptions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingPlan:
    """What `bigzoo.cost.plan` found. It prints as a table, also in a notebook.

    Attributes:
        model: Name of the model.
        samples, epochs, batch_size: As given.
        steps: Training steps in all.
        dtype, optimizer: That were counted with.
        peak_bytes: Memory of one step on one device with the whole batch.
        rows: One per device.
        assumptions: That hold for all rows.
        ordered_by: What `recommend` ordered the rows by; "" for the order as given.
    """

    model: str
    samples: int
    epochs: int
    batch_size: int
    steps: int
    dtype: str
    optimizer: str
    peak_bytes: Range
    rows: tuple[PlanRow, ...]
    assumptions: tuple[str, ...]
    ordered_by: str = ""

    def __str__(self) -> str:
        parts = [paragraph(self._title()), paragraph(self._setting())]
        for table in self._tables():
            parts += ["", table.text()]
        if lines := [*self._order(), *self._notes()]:
            parts += ["", bullets(lines)]
        return "\n".join([*parts, "", "Assumed:", bullets(self._all_assumptions())])

    def _repr_html_(self) -> str:
        parts = [html_paragraph(self._title(), bold=True), html_paragraph(self._setting())]
        parts += [table.html() for table in self._tables()]
        parts.append(html_bullets([*self._order(), *self._notes()]))
        parts += [html_paragraph("Assumed:"), html_bullets(self._all_assumptions())]
        return f"<div>{''.join(parts)}</div>"

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain dicts, lists, numbers and strings, which JSON can hold."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def _title(self) -> str:
        order = f", least {self.ordered_by} first" if self.ordered_by else ""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs:,} epochs"
        return f"Training {self.model} on {self.samples:,} samples, {epochs}{order}"

    def _setting(self) -> str:
        peak = self.peak_bytes
        return (
            f"batch: {self.batch_size:,}; steps: {self.steps:,}; dtype: {self.dtype}; optimizer: "
            f"{self.optimizer}; one device would need {bytes_text(peak.mid, 2)} "
            f"({range_text(peak.low, peak.high, bytes_text)})"
        )

    def _tables(self) -> list[Table]:
        """Whether it fits, and what it takes; the latter in two tables if one is too wide."""
        room = Table(
            ("device", "fits", "batch that fits", "at best", "devices", "sharded"),
            tuple(_room_cells(row) for row in self.rows),
            left=(0, 1, 5),
        )
        header = ("device", "time", "energy", "CO2e", "money")
        rows = tuple(_cost_cells(row) for row in self.rows)
        whole = Table(header, rows)
        if max(map(len, whole.text().splitlines())) <= WIDTH:
            return [room, whole]
        first = Table(header[:3], tuple(row[:3] for row in rows))
        second = Table((header[0], *header[3:]), tuple((row[0], *row[3:]) for row in rows))
        return [room, first, second]

    def _order(self) -> list[str]:
        """Where the ranges don't decide the order."""
        if not self.ordered_by:
            return []
        field = FIGURES[self.ordered_by]
        known = [row for row in self.rows if getattr(row, field) is not None]
        return [
            f"{first.device} or {second.device}: their ranges overlap, so that the order is "
            "likely, not sure"
            for first, second in itertools.pairwise(known)
            if getattr(second, field).low <= getattr(first, field).high
        ]

    def _notes(self) -> list[str]:
        """Why something is missing, and how much sharding would help; equal lines once."""
        lines: dict[str, list[str]] = {}
        for row in self.rows:
            for text in (*row.reasons, *_needs(row)):
                lines.setdefault(text, []).append(row.device)
        return self._of_whom(lines, len(self.rows))

    def _all_assumptions(self) -> list[str]:
        lines: dict[str, list[str]] = {}
        for row in self.rows:
            for text in row.assumptions:
                lines.setdefault(text, []).append(row.device)
        estimated = sum(row.step is not None for row in self.rows)
        return [*self.assumptions, *self._of_whom(lines, estimated)]

    def _of_whom(self, lines: dict[str, list[str]], every: int) -> list[str]:
        """Each line with the devices that it is about, unless it is about all."""
        return [
            text if len(names) == every else f"{', '.join(names)}: {text}"
            for text, names in lines.items()
        ]


def _room_cells(row: PlanRow) -> tuple[str, ...]:
    batch = row.largest_batch
    return (
        row.device,
        row.fits or "?",
        NOTHING if batch is None else f"{batch.low:,.0f}",
        NOTHING if batch is None else f"{batch.high:,.0f}",
        NOTHING if row.devices is None else f"{row.devices:,}",
        "nothing" if row.sharding == "none" else SHARDED_PARTS[row.sharding],
    )


def _cost_cells(row: PlanRow) -> tuple[str, ...]:
    return (
        row.device,
        _cell(row.hours, lambda hours, digits: seconds_text(3600 * hours, digits)),
        _cell(row.kwh, lambda kwh, digits: energy_text(3.6e6 * kwh, digits)),
        _cell(row.kg_co2e, mass_text),
        _cell(row.money, _money),
    )


def _cell(figure: Range | None, text: Callable[[float, int], str]) -> str:
    """The middle, and the range beside it."""
    if figure is None:
        return NOTHING
    middle = text(figure.mid, 2)
    between = range_text(figure.low, figure.high, text)
    # A dash, as four such cells stand in a line.
    return middle if between == middle else f"{middle} ({between.replace(' to ', '–')})"


def _money(value: float, digits: int) -> str:
    """In hundredths at the least: smaller coins are rare."""
    if value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 9.95 else digits_text(value, digits)


def _needs(row: PlanRow) -> list[str]:
    if row.fits != "no":
        return []
    ways = (
        (row.data_parallel_devices, "with the batch parted among them"),
        (row.sharded_optimizer_devices, "with the optimizer's slots sharded too"),
        (row.sharded_devices, "with weights, gradients and slots sharded"),
    )
    texts = [f"{count:,} {how}" for count, how in ways if count is not None]
    return [f"one is too small; it takes {', '.join(texts)}"] if texts else []
