"""`compare`: an estimate beside a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigzoo._errors import message
from bigzoo._units import bytes_text, seconds_text
from bigzoo.cost._measure import Measurement
from bigzoo.cost._tables import Table


@dataclass(frozen=True)
class Comparison:
    """Signed errors of an estimate: (estimated - measured) / measured.

    Attributes:
        errors: Field -> its error; 0.1 is 10% too much.
        inside: Whether the measured step lies within the estimated range.
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
        title = f"The measured step is {'within' if self.inside else 'outside'} the range"
        return Table(("field", "estimated", "measured", "error"), tuple(rows), title, left=(0,))


def compare(estimate: Any, measurement: Measurement) -> Comparison:
    """The signed error of each field that both an estimate and a measurement have.

    Args:
        estimate: From `predict`, or a `CostReport` for its `peak_bytes`.
        measurement: From `measure`, for the same batch.

    Returns:
        A `Comparison`; positive errors are too high estimates.

    Raises:
        ValueError: if they are for different batches, or have no field in common.
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
    if getattr(estimate, "batch_size", None) != measurement.batch_size:
        fix = "Measure and estimate the same batch."
        expected = f"an estimate for {measurement.batch_size} samples in a step"
        raise ValueError(message("estimate", getattr(estimate, "batch_size", None), expected, fix))
    names = ("step_seconds", "peak_bytes")
    both: dict[str, tuple[float, float]] = {}
    for name in names:
        got, real = getattr(estimate, name, None), getattr(measurement, name)
        if got is not None and real is not None:
            both[name] = (got, real)
    if not both:
        raise ValueError(
            "The estimate and the measurement have no field in common: memory is measured on "
            "GPUs only. Give the estimate of `predict` for the time."
        )
    errors = {name: got / real - 1 for name, (got, real) in both.items()}
    low = getattr(estimate, "step_low_seconds", getattr(estimate, "peak_low_bytes", 0.0))
    high = getattr(estimate, "step_high_seconds", getattr(estimate, "peak_high_bytes", 0.0))
    real = next(iter(both.values()))[1]
    return Comparison(
        {name: pair[0] for name, pair in both.items()},
        {name: pair[1] for name, pair in both.items()},
        errors,
        bool(low <= real <= high),
    )


def _field_text(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return bytes_text(value)
    return seconds_text(value) if name == "step_seconds" else f"{value:,.4g}"
