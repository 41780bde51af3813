"""`compare`: an estimate beside a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bigzoo._errors import message
from bigzoo._tables import Table
from bigzoo._units import bytes_text, seconds_text
from bigzoo.cost._estimate import StepEstimate
from bigzoo.cost._measure import Measurement
from bigzoo.cost._report import CostReport


@dataclass(frozen=True)
class Comparison:
    """Signed errors of an estimate: (estimated - measured) / measured.

    Attributes:
        estimated, measured: Field -> its value on either side.
        errors: Field -> its error; 0.1 is 10% too much.
        inside: Whether what was measured lies within the estimated range: the step, or the memory
            if the estimate is a report.
    """

    estimated: Mapping[str, float]
    measured: Mapping[str, float]
    errors: Mapping[str, float]
    inside: bool

    def __str__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        rows = [
            (
                name,
                _field_text(name, self.estimated[name]),
                _field_text(name, self.measured[name]),
                f"{error:+.1%}",
            )
            for name, error in self.errors.items()
        ]
        what = "step" if "step_seconds" in self.errors else "memory"
        title = f"The measured {what} is {'within' if self.inside else 'outside'} the range"
        return Table(("field", "estimated", "measured", "error"), tuple(rows), title, left=(0,))


def compare(estimate: StepEstimate | CostReport, measurement: Measurement) -> Comparison:
    """The signed error of each field that both an estimate and a measurement have.

    Args:
        estimate: From `predict`, or a `CostReport` for its `peak_bytes`.
        measurement: From `measure`, for the same batch, training or inference as the estimate.
            `mfu` is compared where both are shares of the same hardware's peak.

    Returns:
        A `Comparison`; positive errors are too high estimates.

    Raises:
        ValueError: if they are for different batches, one is for training and the other isn't,
            the estimate is for several devices, or they have no field in common.
        TypeError: if `measurement` is not one.

    Example:
        >>> model = bz.models.mlp(8)
        >>> estimate = bz.cost.predict(bz.cost.analyze(model, 4), on="t4")
        >>> both = bz.cost.compare(estimate, bz.cost.measure(model, 4, steps=3))
        >>> list(both.errors)
        ['step_seconds']
    """
    if not isinstance(measurement, Measurement):
        fix = "Call bz.cost.measure(model, batch_size) first."
        raise TypeError(message("measurement", measurement, "a Measurement", fix))
    if not isinstance(estimate, (StepEstimate, CostReport)):
        expected = "a StepEstimate or a CostReport"
        raise TypeError(message("estimate", estimate, expected, "Call bz.cost.predict first."))
    _check_same_step(estimate, measurement)
    both = _in_common(estimate, measurement)
    if not both:
        raise ValueError(
            "The estimate and the measurement have no field in common: memory is measured on "
            "GPUs only. Give the estimate of `predict` for the time."
        )
    errors = {name: got / real - 1 for name, (got, real) in both.items()}
    if isinstance(estimate, StepEstimate):
        low, high = estimate.step_low_seconds, estimate.step_high_seconds
    else:
        low, high = float(estimate.peak_low_bytes), float(estimate.peak_high_bytes)
    real = next(iter(both.values()))[1]
    return Comparison(
        {name: pair[0] for name, pair in both.items()},
        {name: pair[1] for name, pair in both.items()},
        errors,
        bool(low <= real <= high),
    )


def _check_same_step(estimate: StepEstimate | CostReport, measurement: Measurement) -> None:
    if estimate.batch_size != measurement.batch_size:
        fix = "Measure and estimate the same batch."
        expected = f"an estimate for {measurement.batch_size} samples in a step"
        raise ValueError(message("estimate", estimate.batch_size, expected, fix))
    if estimate.training not in (None, measurement.training):
        names = {True: "training", False: "inference"}
        fix = "Give `training` the same value in bz.cost.analyze and bz.cost.measure."
        expected = f"one for {names[measurement.training]}, which was measured"
        raise ValueError(message("estimate", names[bool(estimate.training)], expected, fix))
    devices = getattr(estimate, "devices", 1)
    if devices != 1:
        expected = "an estimate for one device, on which `measure` works"
        raise ValueError(message("estimate", f"for {devices} devices", expected))


def _in_common(
    estimate: StepEstimate | CostReport, measurement: Measurement
) -> dict[str, tuple[float, float]]:
    """Field -> (estimated, measured), for those that both know."""
    names = ["step_seconds", "peak_bytes"]
    # Shares of different peaks don't compare.
    if isinstance(estimate, StepEstimate) and estimate.on == measurement.on:
        names.append("mfu")
    pairs = {name: (getattr(estimate, name, None), getattr(measurement, name)) for name in names}
    return {
        name: (got, real)
        for name, (got, real) in pairs.items()
        if got is not None and real is not None
    }


def _field_text(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return bytes_text(value)
    if name == "mfu":
        return f"{100 * value:.3g}%"
    return seconds_text(value)
