"""The model by itself: compiled, trainable, with a learning rate that can work."""

from __future__ import annotations

import math
from typing import Any

import keras

from bigzoo.train._report import Finding, error, warning
from bigzoo.train._schedule import iterations, numbers_of

_STEPS = (0, 1, 10, 100, 1_000, 10_000)
# Their step is rate × gradient; in all others the gradient is divided by its size.
_PLAIN = (keras.optimizers.SGD, keras.optimizers.Adadelta, keras.optimizers.Ftrl)


def check_trainable(model: keras.Model) -> list[Finding]:
    """Models of which nothing would be trained."""
    built = model.built and all(layer.built for layer in model.layers)
    if not built or model.trainable_weights:
        return []
    if not model.weights:
        got, fix = "a model without weights", "add a layer such as keras.layers.Dense"
    elif not model.trainable:
        got, fix = "a frozen model: trainable is False", "model.trainable = True"
    else:
        got = f"all {len(model.weights)} weights are frozen"
        fix = "model.layers[-1].trainable = True, and then compile again"
    return [error("nothing-trainable", "model", got, "at least one trainable weight", fix)]


def check_compiled(model: keras.Model, required: bool) -> tuple[list[Finding], list[str]]:
    """An error where training is next, a note otherwise."""
    if model.compiled:
        return [], []
    if required:
        fix = "bz.compile(model)"
        return [error("not-compiled", "model", "a model without a loss", "compile first", fix)], []
    note = "the model isn't compiled (bz.compile does it), so no loss and no learning rate"
    return [], [f"{note} are checked."]


def check_learning_rate(model: keras.Model, steps: int | None) -> list[Finding]:
    """The learning rate, or what a schedule gives at some steps."""
    optimizer = getattr(model, "optimizer", None) if model.compiled else None
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if optimizer is None:
        return []
    rates, scheduled = _rates(optimizer, steps)
    if not rates:
        return []
    low, high = min(rates), max(rates)
    where = f"optimizer {optimizer.name!r}"
    got = f"a learning rate of {high:g}"
    if scheduled:
        got = f"a schedule that goes from {low:g} to {high:g}"
    plain = isinstance(optimizer, _PLAIN)
    usual = "0.001 to 0.1" if plain else "0.0001 to 0.01"
    expected = f"a positive number, most often {usual} for {type(optimizer).__name__}"
    fix = f"bz.compile(model, learning_rate={0.01 if plain else 0.001})"
    if scheduled and high == 0 and steps is not None and steps < 10:
        return []  # a run that ends within the warm-up
    if not math.isfinite(low + high) or low < 0 or high == 0:
        return [error("learning-rate", where, got, expected, fix)]
    doubtful, wrong = (3.0, 100.0) if plain else (0.3, 3.0)
    if high > wrong:
        return [error("learning-rate", where, got, expected, fix)]
    if high > doubtful or high < 1e-7:
        return [warning("learning-rate", where, got, expected, fix)]
    return []


def _rates(optimizer: Any, steps: int | None) -> tuple[list[float], bool]:
    schedule = _schedule(optimizer)
    if schedule is None:
        has_rate = hasattr(optimizer, "learning_rate")
        return ([_float(optimizer.learning_rate)] if has_rate else []), False
    last = max(0, steps - 1) if steps else None
    tried = [step for step in _STEPS if last is None or step < last]
    tried += [last] if last is not None else []
    # A schedule counts from the optimizer's first step, and what it gave before is past.
    done = iterations(optimizer)
    numbers = numbers_of(schedule)
    rate = schedule if numbers is None else numbers.rate
    return [_float(rate(done + step)) for step in tried], True


def _schedule(optimizer: Any) -> Any:
    """A copy of the optimizer's schedule; None for a plain number."""
    try:
        config = optimizer.get_config()["learning_rate"]
    except (KeyError, NotImplementedError, TypeError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    try:
        return keras.optimizers.schedules.deserialize(config)
    except (KeyError, TypeError, ValueError):  # a schedule of the user's that isn't registered
        return None


def _float(rate: Any) -> float:
    return float(rate.numpy() if hasattr(rate, "numpy") else rate)


def check_amounts(
    view: Any, *, batch_size: int | None, epochs: int, steps_per_epoch: int | None
) -> list[Finding]:
    """Too few rows for a batch, too few batches for the epochs, a dataset without an end."""
    size = view.batch_size if view.kind != "arrays" else batch_size
    findings = []
    rows = view.num_samples
    if rows and size and rows < size:
        got = f"{rows} rows for batches of {size}"
        fix = f"batch_size={max(1, rows // 4)}"
        expected = "several batches in an epoch, so that it has several steps"
        findings.append(warning("fewer-than-a-batch", "data", got, expected, fix))
    batches = view.num_batches
    if batches is None and view.kind == "arrays" and rows and size:
        batches = math.ceil(rows / size)
    if view.kind == "one-shot" and epochs > 1 and steps_per_epoch is None:
        got = f"a one-shot generator or iterator for {epochs} epochs"
        expected = "data that can be read again: it is used up after the first epoch"
        fix = "steps_per_epoch=..., or an array, bz.data.Batches or tf.data.Dataset"
        findings.append(error("data-exhausted", "data", got, expected, fix))
    if batches == math.inf and steps_per_epoch is None:
        fix = "steps_per_epoch=100  # or leave out dataset.repeat()"
        got = "a dataset without an end"
        findings.append(error("endless-data", "data", got, "steps_per_epoch with it", fix))
    if batches is not None and steps_per_epoch and _runs_out(batches, epochs, steps_per_epoch):
        findings.append(_exhausted(batches, epochs, steps_per_epoch))
    return findings


def _runs_out(batches: float, epochs: int, steps: int) -> bool:
    """Whether Keras reaches the end of the data in the middle of an epoch.

    It begins the data anew only between two epochs, so that is where the end must be.
    """
    return steps * epochs > batches and (steps > batches or batches % steps != 0)


def _exhausted(batches: float, epochs: int, steps_per_epoch: int) -> Finding:
    got = f"{batches:g} batches for {epochs} epochs of {steps_per_epoch} steps"
    expected = f"{steps_per_epoch * epochs} batches: Keras cuts an epoch short at the data's end"
    fix = "leave out steps_per_epoch, so that each epoch reads all batches"
    return warning("data-exhausted", "data", got, expected, fix)
