"""`plan`: what a whole training takes on each of several devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bigzoo._errors import check_choice, check_int, check_number, message, shorten
from bigzoo.cost._analyze import analyze
from bigzoo.cost._catalogue import get
from bigzoo.cost._plan_memory import SHARDED, SHARDED_WHY, Memory, verdict
from bigzoo.cost._plan_types import PlanRow, TrainingPlan
from bigzoo.cost._power import (
    BUILDING,
    BUILDING_WHY,
    DEVICE_DRAW,
    DEVICE_DRAW_WHY,
    GRID,
    GRID_WHY,
    SYSTEM_DRAW,
    SYSTEM_DRAW_WHY,
    Range,
)
from bigzoo.cost._predict import predict
from bigzoo.cost._report import CostReport

_DIRTIEST = 2.0  # kg CO2e per kWh; no grid comes near, so that grams are noticed
_NO_PRICE = "no price, so no money: give price_per_hour={name of the device: price of one hour}"
# What ZeRO's third stage sends more than plain data parallelism does.
_GATHER = 0.5
_GATHER_WHY = "sharding of everything sends 1.5 times as much (Rajbhandari et al. 2020, section 7)"


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is the same for all devices."""

    memory: Memory
    samples: int
    epochs: int
    batch_size: int
    devices: int | None
    grid: Range
    building: Range
    prices: Mapping[str, float]

    @property
    def steps(self) -> int:
        return math.ceil(self.samples / self.batch_size) * self.epochs


def plan(
    model: keras.Model,
    samples: int,
    epochs: int,
    batch_size: int,
    on: Any,
    *,
    input_shape: Any = None,
    optimizer: Any = "adam",
    dtype: str | None = None,
    devices: int | None = None,
    price_per_hour: Any = None,
    grid_kg_per_kwh: float | None = None,
    pue: float | None = None,
    report: CostReport | None = None,
) -> TrainingPlan:
    """What training a model takes on each of several devices, before anything is bought or rented.

    For each device: whether one of them holds the model with this batch, the largest batch that it
    holds, how many are needed otherwise, and then hours, energy, CO2 and money. Every figure is a
    range with its assumptions, or None with the reason. Only the steps of training count: not
    validation, not the reading of data, not what goes wrong.

    Args:
        model: Any Keras model; it isn't trained and needs no weights in memory beyond its own.
        samples: Samples of training data, at least 1.
        epochs: Passes over them, at least 1.
        batch_size: Samples in a step, over all devices together, at least 1.
        on: A device or a calibration, or several: names such as "h100-sxm" and "a100-80", devices
            of `bz.cost.hardware`, what `bz.cost.calibrate` returned.
        input_shape, optimizer, dtype: As in `bz.cost.analyze`.
        devices: How many of each device to use, at most `batch_size`; None for one, or as few as
            hold the model where one doesn't.
        price_per_hour: What one device costs in an hour, in any currency: a number above 0, or a
            dict with a number for each device. There is no default: prices of one and the same
            device differ by a factor of five.
        grid_kg_per_kwh: kg CO2e per kWh of your electricity, above 0 and at most 2; None takes the
            world's average as the middle of a wide range.
        pue: Energy of the building per energy of the computers, at least 1; None takes a range.
        report: What `bz.cost.analyze` returned for this model in training, to save the time of
            doing it again.

    Returns:
        A `TrainingPlan`: `print` it, or look at its `rows`.

    Raises:
        ValueError: if a number is out of its range, a device is unknown, or the model needs an
            `input_shape`.
        TypeError: if an argument has the wrong type.

    Example:
        >>> model = bz.models.resnet("18", num_classes=10)
        >>> plan = bz.cost.plan(model, samples=50_000, epochs=10, batch_size=64, on="a100-80")
        >>> plan.rows[0].fits, plan.steps
        ('yes', 7820)
    """
    samples, epochs = check_int("samples", samples, 1), check_int("epochs", epochs, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    if devices is not None:
        fix = "Each device needs at least one sample of the batch."
        devices = check_int("devices", devices, 1, batch_size, fix)
    targets = _targets(on)
    prices, grid, building = _prices(price_per_hour, targets), _grid(grid_kg_per_kwh), _pue(pue)

    def at(size: int) -> CostReport:
        return analyze(
            model, batch_size=size, input_shape=input_shape, optimizer=optimizer, dtype=dtype
        )

    memory = Memory(at, batch_size, _check_report(report, model, dtype))
    job = _Job(memory, samples, epochs, batch_size, devices, grid, building, prices)
    first = memory.report(batch_size)
    rows = tuple(_row(job, name, target) for name, target in targets.items())
    return TrainingPlan(
        model=first.model,
        samples=samples,
        epochs=epochs,
        batch_size=batch_size,
        steps=job.steps,
        dtype=first.dtype,
        optimizer=first.optimizer,
        peak_bytes=memory.peak(batch_size),
        rows=rows,
        assumptions=_assumptions(job, rows, grid_kg_per_kwh, pue),
    )


# === One device ===


def _row(job: _Job, name: str, target: Any) -> PlanRow:
    reasons: list[str] = []
    room = _value(target, "memory_bytes")
    row = PlanRow(device=name, epochs=job.epochs, memory_bytes=room)
    if room is None:
        reasons.append(f"the memory of {name} is not known: whether the model fits can't be told")
    else:
        need = job.memory.need(room, job.batch_size)
        row = dataclasses.replace(
            row,
            fits=job.memory.fits(room, job.batch_size),
            largest_batch=job.memory.largest(room, job.samples),
            data_parallel_devices=need.none,
            sharded_optimizer_devices=need.optimizer,
            sharded_devices=need.all,
        )
    count, sharding = _layout(job, row)
    if count is None:
        reasons.append(f"it doesn't fit on {_many(job.devices)} {name}, sharded or not")
        return dataclasses.replace(row, reasons=tuple(reasons))
    row = dataclasses.replace(row, devices=count, sharding=sharding)
    return _costs(job, row, target, count, sharding, reasons)


def _layout(job: _Job, row: PlanRow) -> tuple[int | None, str]:
    """How many devices to count with, and what they share."""
    if job.devices is None:
        if row.fits != "no":
            return 1, "none"
        ways = (
            (row.data_parallel_devices, "none"),
            (row.sharded_optimizer_devices, "optimizer"),
            (row.sharded_devices, "all"),
        )
        return next(((count, name) for count, name in ways if count is not None), (None, "none"))
    if row.memory_bytes is None:
        return job.devices, "none"
    samples = math.ceil(job.batch_size / job.devices)
    fits = {
        sharding: verdict(job.memory.peak(samples, job.devices, sharding), row.memory_bytes)
        for sharding in SHARDED
    }
    # What surely fits is better than what shares less.
    sure = [name for name, answer in fits.items() if answer == "yes"]
    maybe = [name for name, answer in fits.items() if answer == "close"]
    return (job.devices, (sure + maybe)[0]) if sure or maybe else (None, "none")


def _costs(
    job: _Job, row: PlanRow, target: Any, count: int, sharding: str, reasons: list[str]
) -> PlanRow:
    try:
        each = job.memory.report(math.ceil(job.batch_size / count))
        step = predict(each, target, devices=count)
    except ValueError as error:  # a device without a peak for this dtype, say
        reasons.append(f"the time of a step can't be told: {shorten(error)}")
        return dataclasses.replace(row, reasons=tuple(reasons))
    more = _GATHER * step.communication_seconds if sharding == "all" else 0.0
    seconds = Range(
        step.step_low_seconds + more, step.step_seconds + more, step.step_high_seconds + more
    )
    hours = seconds * (job.steps / 3600)
    device_kwh = kwh = carbon = None
    watts = _value(target, "power_watts")
    if watts is None:
        reasons.append(f"the power of {row.device} is not known: neither energy nor CO2")
    else:
        rated = hours * (count * watts / 1000)
        device_kwh, kwh = rated * DEVICE_DRAW, rated * SYSTEM_DRAW * job.building
        carbon = kwh * job.grid
    money = hours * (count * job.prices[row.device]) if row.device in job.prices else None
    if money is None:
        reasons.append(_NO_PRICE)
    notes = [*step.assumptions, *([_GATHER_WHY] if more else [])]
    return dataclasses.replace(
        row,
        step=step,
        hours=hours,
        device_kwh=device_kwh,
        kwh=kwh,
        kg_co2e=carbon,
        money=money,
        assumptions=tuple(notes),
        reasons=tuple(reasons),
    )


def _value(target: Any, name: str) -> float | None:
    """A figure of a device, with or without its source; None if it has none."""
    figure = getattr(target, name, None)
    figure = getattr(figure, "value", figure)
    return None if figure is None else float(figure)


def _many(devices: int | None) -> str:
    return "any number of" if devices is None else str(devices)


# === Arguments ===


def _targets(on: Any) -> dict[str, Any]:
    """Devices and calibrations by name."""
    several = on if isinstance(on, Sequence) and not isinstance(on, str) else [on]
    if not several:
        fix = "Name one, such as on=['h100-sxm']."
        raise ValueError(message("on", on, "at least one device", fix))
    found: dict[str, Any] = {}
    for one in several:
        target = get(one) if isinstance(one, str) else one
        if not (hasattr(target, "peak") or hasattr(target, "rates")):
            fix = "bz.cost.hardware.list_devices() shows the names."
            raise TypeError(message("on", one, "a device, its name, or a calibration", fix))
        found[str(getattr(target, "name", "") or "this machine")] = target
    return found


def _prices(price: Any, targets: Mapping[str, Any]) -> dict[str, float]:
    if price is None:
        return {}
    fix = "Leave out what costs nothing."
    if not isinstance(price, Mapping):
        value = check_number("price_per_hour", price, above=0, fix=fix)
        return dict.fromkeys(targets, value)
    prices = {}
    for key, value in price.items():
        name = get(key).name if isinstance(key, str) and key not in targets else key
        check_choice("price_per_hour", name, targets)
        prices[name] = check_number(f"price_per_hour[{key!r}]", value, above=0, fix=fix)
    return prices


def _grid(kilograms: float | None) -> Range:
    if kilograms is None:
        return GRID
    fix = "It is in kilograms: 400 g are 0.4."
    value = check_number("grid_kg_per_kwh", kilograms, maximum=_DIRTIEST, above=0, fix=fix)
    return Range(value, value, value)


def _pue(pue: float | None) -> Range:
    if pue is None:
        return BUILDING
    value = check_number("pue", pue, 1.0, 10.0)
    return Range(value, value, value)


def _check_report(report: Any, model: Any, dtype: str | None) -> CostReport | None:
    if report is None:
        return None
    if not isinstance(report, CostReport):
        raise TypeError(message("report", report, "what bz.cost.analyze returned, or None"))
    if not report.training:
        fix = "Call analyze with training=True."
        raise ValueError(f"`report` is of a prediction; expected one of a training step. {fix}")
    params = model.count_params() if isinstance(model, keras.Model) else report.params
    if report.params != params or dtype not in (None, report.dtype):
        raise ValueError(
            f"`report` is of {report.model!r} with {report.params:,} parameters in {report.dtype}; "
            f"expected one of this model, with {params:,} in {dtype or report.dtype}. Leave it out."
        )
    return report


def _assumptions(
    job: _Job, rows: Sequence[PlanRow], grid: float | None, pue: float | None
) -> tuple[str, ...]:
    lines = [
        f"{job.steps:,} steps: {job.samples:,} samples in batches of {job.batch_size:,}, rounded "
        f"up, {job.epochs:,} times; validation, reading of data and compilation are not counted",
        "the whole memory of a device is there for the model; the framework and the driver take "
        "some of it",
    ]
    if any(row.fits == "no" for row in rows):
        lines.append(SHARDED_WHY)
    if any(row.kwh is not None for row in rows):
        lines += [SYSTEM_DRAW_WHY, f"for device_kwh: {DEVICE_DRAW_WHY}"]
        lines.append(BUILDING_WHY if pue is None else f"building: a factor of {pue:g}, as given")
        lines.append(GRID_WHY if grid is None else f"grid: {grid:g} kg CO2e per kWh, as given")
    if any(row.money is not None for row in rows):
        lines.append("money: hours times devices times the price as given")
    return tuple(lines)
