"""`EnergyMeter`: the energy of a training, measured where the machine can, else estimated."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from bigzoo._errors import check_int, check_number, message
from bigzoo._tables import bullets
from bigzoo._units import digits_text, energy_text, range_text, seconds_text
from bigzoo.cost._accelerators import backend_devices
from bigzoo.cost._catalogue import get
from bigzoo.cost._energy_counters import Adder, Counter, Found, find_counters
from bigzoo.cost._power import DEVICE_DRAW, DEVICE_DRAW_WHY, Range


@dataclass(frozen=True)
class EnergyResult:
    """The energy of one `fit`.

    Attributes:
        energy_joules: None if nothing is known.
        low_joules, high_joules: What it lies between, by the stated errors of the sensors, or by
            the range of the estimate.
        method: "measured: …" with what was counted, "estimated: …" with the assumption, or
            "unknown: …" with what is lacking.
        seconds: From the beginning of the fit to its end, with validation.
        epochs: Epochs that ended.
        complete: Whether the fit came to its end. If not, all figures go up to the end of the last
            epoch; with no epoch ended, only `high_joules` is known.
        parts: Counter -> joules.
        gpu_joules, cpu_joules: Sums of `parts`; None where nothing was counted.
        notes: What one must know to use the figures.
    """

    energy_joules: float | None
    low_joules: float | None
    high_joules: float | None
    method: str
    seconds: float
    epochs: int
    complete: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    gpu_joules: float | None = None
    cpu_joules: float | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = "unknown" if self.energy_joules is None else energy_text(self.energy_joules)
        if self.low_joules is not None and self.high_joules is not None:
            text += f" ({range_text(self.low_joules, self.high_joules, energy_text, 3)})"
        end = "" if self.complete else ", not complete"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        first = f"energy {text} in {seconds_text(self.seconds)}, {epochs}{end}"
        return "\n".join([first, bullets([self.method, *self.notes])])


@dataclass(frozen=True)
class EnergyComparison:
    """A plan beside a measurement, for the epochs that were measured.

    Attributes:
        planned_joules: The plan's range, for as many epochs as were measured.
        measured_joules: Of the same devices.
        error: Plan's middle over measurement, less 1: +0.2 is a plan that is 20% too high.
        inside: Whether the measurement lies in the plan's range.
        planned_seconds: The plan's range for these epochs.
        measured_seconds: Of the fit, with validation, which the plan leaves out.
        seconds_error: As `error`.
        method: How the energy was measured.
    """

    planned_joules: Range
    measured_joules: float
    error: float
    inside: bool
    planned_seconds: Range
    measured_seconds: float
    seconds_error: float
    method: str

    def __str__(self) -> str:
        planned, seconds = self.planned_joules, self.planned_seconds
        where = "inside" if self.inside else "outside of"
        return (
            f"energy: planned {energy_text(planned.mid)} "
            f"({range_text(planned.low, planned.high, energy_text)}), "
            f"got {energy_text(self.measured_joules)}: "
            f"{self.error:+.0%}, {where} the range\n"
            f"time: planned {seconds_text(seconds.mid)} "
            f"({range_text(seconds.low, seconds.high, seconds_text)}), "
            f"got {seconds_text(self.measured_seconds)}: {self.seconds_error:+.0%}\n"
            f"{self.method}"
        )


class EnergyMeter(keras.callbacks.Callback):
    """Callback that measures the energy of a `fit`.

    NVIDIA's GPUs (Volta and newer, with `pip install "bigzoo[energy]"`) and Linux' RAPL counters of
    Intel's and AMD's processors are read where there are any: of the GPUs if the model runs on
    them, of the processors always. Fans, disks and power supplies have no counter, and whatever
    else runs on the machine is counted too. Without counters the energy is time times a range of
    power: by `watts` as given, or by the rating of the device `on`, of which 50 to 100% is drawn;
    without these it is unknown, and the result says what is lacking.

    Args:
        on: The device that the model trains on, of `bz.cost.hardware` or its name, for an estimate
            where nothing can be measured.
        watts: Power as you know it, a number or (low, high), for an estimate; takes the place of
            `on`.
        devices: How many of these devices the model trains on, at least 1.

    Raises:
        ValueError: if the device is unknown or its power is, or `watts` isn't above 0.
        TypeError: if an argument has the wrong type.

    Example:
        >>> meter = bz.cost.EnergyMeter(watts=(20, 60))
        >>> model = bz.models.linear_regression(3)
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), callbacks=[meter], verbose=0)
        >>> meter.result.energy_joules > 0
        True
    """

    def __init__(self, on: Any = None, watts: Any = None, devices: int = 1) -> None:
        super().__init__()
        self._devices = check_int("devices", devices, 1)
        self._watts, self._assumption = _power(on, watts)
        self._ended: list[EnergyResult] = []
        self._run: _Run | None = None

    @property
    def result(self) -> EnergyResult | None:
        """Of the last fit, up to now if it still runs; None before the first."""
        if self._run is not None:
            return self._run.result()
        return self._ended[-1] if self._ended else None

    @property
    def results(self) -> tuple[EnergyResult, ...]:
        """Of every fit, the first one first."""
        return (*self._ended, *([self._run.result()] if self._run is not None else []))

    def compare(self, row: Any) -> EnergyComparison:
        """Put the last fit beside a row of `bz.cost.plan`.

        The plan is cut to the epochs that were measured. Its energy is that of the devices alone:
        it is held against the GPUs' counters if there are any, else against the processors', else
        against the estimate.

        Args:
            row: A row of the plan, for the device that the model was trained on.

        Returns:
            An `EnergyComparison`; it prints itself.

        Raises:
            ValueError: if nothing was measured, no epoch ended, or the row has no energy.
            TypeError: if `row` isn't a row of a plan.
        """
        result = self.result
        if result is None or not result.epochs or result.energy_joules is None:
            got = "no fit was measured" if result is None else result.method
            if result is not None and not result.epochs:
                got = "no epoch ended"
            raise ValueError(f"There is nothing to compare: {got}. Train with this callback.")
        if not all(hasattr(row, name) for name in ("device_kwh", "hours", "epochs", "device")):
            fix = "Take one of bz.cost.plan(...).rows."
            raise TypeError(message("row", row, "a row of a plan", fix))
        if row.device_kwh is None or row.hours is None:
            reasons = "; ".join(row.reasons)
            raise ValueError(f"The plan has no energy for {row.device!r}: {reasons}.")
        return _compare(result, row)

    # === Keras calls these ===

    def on_train_begin(self, logs: Any = None) -> None:
        self._close()  # of a fit that an error ended: Keras doesn't tell
        found = find_counters(bool(backend_devices(keras.backend.backend())))
        self._run = _Run(found, self._watts * self._devices if self._watts else None)
        self._run.assumption = self._assumption
        # A meter that is thrown away in the middle of a fit must not leave a thread behind.
        weakref.finalize(self, self._run.stop)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._run is not None:
            self._run.mark()

    def on_train_end(self, logs: Any = None) -> None:
        if self._run is not None:
            self._run.complete = True
        self._close()

    def _close(self) -> None:
        if self._run is not None:
            self._ended.append(self._run.result())
            self._run.stop()
            self._run = None


class _Run:
    """One fit that is being measured."""

    def __init__(self, found: Found, watts: Range | None) -> None:
        self._found = found
        self._watts = watts
        self.assumption = ""
        self.complete = False
        self._epochs = 0
        self._stopped = False
        self._adder = Adder(found.counters)
        self._begin = time.monotonic()
        self._mark = 0.0, self._adder.look()

    def mark(self) -> None:
        self._epochs += 1
        self._mark = time.monotonic() - self._begin, self._adder.look()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._adder.stop()
            self._found.close()

    def result(self) -> EnergyResult:
        cut = not self.complete and self._epochs > 0
        now = time.monotonic() - self._begin, self._adder.look()
        seconds, joules = self._mark if cut else now
        parts = {name: value for name, value in joules.items() if name in self._adder.joules}
        notes = [*self._adder.problems]
        if not self.complete:
            end = "the end of the last epoch" if cut else "now: no epoch has ended"
            notes.append(f"the fit didn't come to its end; counted up to {end}")
        energy, method, more = self._energy(seconds, parts)
        known = energy is not None and (self.complete or cut)
        return EnergyResult(
            energy_joules=energy.mid if energy and known else None,
            low_joules=energy.low if energy and known else None,
            high_joules=energy.high if energy else None,
            method=method,
            seconds=seconds,
            epochs=self._epochs,
            complete=self.complete,
            parts=parts,
            gpu_joules=self._sum("gpu", parts),
            cpu_joules=self._sum("cpu", parts),
            notes=(*notes, *more),
        )

    def _energy(self, seconds: float, parts: Mapping[str, float]) -> tuple[Any, str, list[str]]:
        """Range of joules (None if unknown), the method, notes."""
        used = [counter for counter in self._found.counters if parts.get(counter.name)]
        if used:
            low = sum(parts[counter.name] * (1 - counter.error) for counter in used)
            high = sum(parts[counter.name] * (1 + counter.error) for counter in used)
            energy = Range(low, sum(parts.values()), high)
            method = f"measured: {', '.join(counter.name for counter in used)}"
            return energy, method, [*_notes(used), *self._found.reasons]
        lacking = list(self._found.reasons)
        if self._found.counters:
            lacking.append("the counters stood still: the fit was shorter than their steps")
        if self._watts is not None:
            return self._watts * seconds, f"estimated: {self.assumption}", lacking
        fix = "give EnergyMeter(watts=(low, high)), or on= with the name of the device"
        return None, f"unknown: no energy counter, and no power was given; {fix}", lacking

    def _sum(self, kind: str, parts: Mapping[str, float]) -> float | None:
        counters = [c for c in self._found.counters if c.kind == kind and parts.get(c.name)]
        return sum(parts[counter.name] for counter in counters) if counters else None


def _notes(counters: list[Counter]) -> list[str]:
    return list(dict.fromkeys(counter.note for counter in counters if counter.note))


def _power(on: Any, watts: Any) -> tuple[Range | None, str]:
    """Watts of one device, and how they are known."""
    if watts is not None:
        pair = watts if isinstance(watts, (tuple, list)) else (watts, watts)
        if len(pair) != 2:
            raise ValueError(message("watts", watts, "a number, or (low, high)"))
        low = check_number("watts", pair[0], above=0)
        high = check_number("watts", pair[1], minimum=low)
        text = range_text(low, high, lambda value, digits: f"{digits_text(value, 3)} W")
        return Range(low, (low + high) / 2, high), f"time times {text}, as given"
    if on is None:
        return None, ""
    device = _device(on)
    if device.power_watts is None:
        fix = "Give `watts` instead."
        raise ValueError(f"The rated power of {device.name!r} is not known. {fix}")
    rated = device.power_watts
    text = f"time times the power of {device.title}, rated {rated.value:g} W ({rated.source})"
    return DEVICE_DRAW * rated.value, f"{text}; {DEVICE_DRAW_WHY}"


def _device(on: Any) -> Any:
    if isinstance(on, str):
        return get(on)
    if not hasattr(on, "power_watts"):
        fix = "Take one with bz.cost.hardware.get(name), or give `watts`."
        raise TypeError(message("on", on, "a device or its name", fix))
    return on


def _compare(result: EnergyResult, row: Any) -> EnergyComparison:
    part = result.epochs / row.epochs
    planned, seconds = row.device_kwh * (3.6e6 * part), row.hours * (3600 * part)
    counted = result.gpu_joules if result.gpu_joules is not None else result.cpu_joules
    measured = float(counted if counted is not None else result.energy_joules or 0.0)
    return EnergyComparison(
        planned_joules=planned,
        measured_joules=measured,
        error=planned.mid / measured - 1,
        inside=measured in planned,
        planned_seconds=seconds,
        measured_seconds=result.seconds,
        seconds_error=seconds.mid / result.seconds - 1,
        method=result.method,
    )
