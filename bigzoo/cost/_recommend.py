"""`recommend`: the devices of a plan in order."""

from __future__ import annotations

import dataclasses
from typing import Any

from bigzoo._errors import check_choice, check_int, message
from bigzoo.cost._plan import plan
from bigzoo.cost._plan_types import FIGURES, TrainingPlan
from bigzoo.cost._report import CostReport


def recommend(
    model: Any,
    samples: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    on: Any = None,
    *,
    by: str = "hours",
    input_shape: Any = None,
    optimizer: Any = "adam",
    dtype: str | None = None,
    devices: int | None = None,
    price_per_hour: Any = None,
    grid_kg_per_kwh: float | None = None,
    pue: float | None = None,
    report: CostReport | None = None,
) -> TrainingPlan:
    """The rows of a plan, the best first.

    Args:
        model: A `TrainingPlan`, or a model with the arguments of `plan`.
        samples, epochs, batch_size, on: As in `plan`; leave them out if `model` is a plan.
        by: "hours", "energy", "carbon" or "money": the least of this comes first, by the middle of
            the range. Devices for which it isn't known come last.
        input_shape, optimizer, dtype, devices, price_per_hour, grid_kg_per_kwh, pue, report: As in
            `plan`.

    Returns:
        A `TrainingPlan` with the rows in order. It says so where two ranges overlap, as then the
        order may be the other way round.

    Raises:
        ValueError: if nothing is known to order by, such as money without prices.
        TypeError: if an argument is missing, or has the wrong type.

    Example:
        >>> model = bz.models.cnn((64, 64, 3), num_classes=2)
        >>> best = bz.cost.recommend(model, 10_000, 5, 32, ["t4", "h100-sxm"], by="hours")
        >>> best.rows[0].device
        'h100-sxm'
    """
    by = check_choice("by", by, FIGURES)
    if not isinstance(model, TrainingPlan):
        given = {"samples": samples, "epochs": epochs, "batch_size": batch_size, "on": on}
        lacking = [name for name, value in given.items() if value is None]
        if lacking:
            fix = "Give them, or a TrainingPlan as the only argument."
            raise TypeError(f"recommend lacks {', '.join(lacking)}. {fix}")
        model = plan(
            model,
            check_int("samples", samples),
            check_int("epochs", epochs),
            check_int("batch_size", batch_size),
            on,
            input_shape=input_shape,
            optimizer=optimizer,
            dtype=dtype,
            devices=devices,
            price_per_hour=price_per_hour,
            grid_kg_per_kwh=grid_kg_per_kwh,
            pue=pue,
            report=report,
        )
    elif samples is not None:
        raise TypeError(message("samples", samples, "nothing beside a plan, which has its own"))
    return _ordered(model, by)


def _ordered(model: TrainingPlan, by: str) -> TrainingPlan:
    field = FIGURES[by]
    known = [row for row in model.rows if getattr(row, field) is not None]
    if not known:
        reasons = "; ".join(dict.fromkeys(reason for row in model.rows for reason in row.reasons))
        raise ValueError(f"There is nothing to order by {by!r}: {reasons}.")
    known.sort(key=lambda row: getattr(row, field).mid)
    rest = [row for row in model.rows if getattr(row, field) is None]
    return dataclasses.replace(model, rows=(*known, *rest), ordered_by=by)
