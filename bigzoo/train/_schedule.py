"""A learning rate that warms up, then falls along a cosine over the run's length."""

from __future__ import annotations

import math
from typing import Any

import keras

from bigzoo._errors import check_int, check_number, message

# A peak learning rate above this makes every optimizer of Keras diverge on standardised data.
MAX_LEARNING_RATE = 10.0


@keras.saving.register_keras_serializable(package="bigzoo")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    r"""Linear warm-up to a peak, then half a cosine down to a small rest.

    With \(t\) the number of steps since `first_step`, \(w\) = `warmup_steps`, \(T\) = `total_steps`
    and \(f\) = `final_fraction`, the rate is \(\eta (t + 1) / w\) for \(t < w\), then
    \(\eta (f + (1 - f)(1 + \cos(\pi (t - w) / (T - w))) / 2)\), and \(\eta f\) from \(T\) on. While
    `total_steps` is None the length of the run isn't known and the rate stays at its peak after the
    warm-up; `bigzoo.fit` sets it, since it knows the number of epochs and batches.

    The rest is above 0 on purpose: a model that is trained further after its schedule has ended
    learns slowly, instead of not at all.

    Paper: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Args:
        learning_rate: Peak, above 0 and at most 10.
        warmup_steps: Optimizer steps of linear warm-up, at least 0.
        total_steps: Optimizer steps from `first_step` to the end of the cosine, above
            `warmup_steps`, or None for a constant rate after the warm-up.
        first_step: Value of `optimizer.iterations` at which the schedule starts, at least 0.
        final_fraction: Rate at the end as a fraction of the peak, in [0, 1].

    Raises:
        ValueError, TypeError: if an argument is outside these ranges.

    Example:
        >>> schedule = bz.train.WarmupCosine(0.1, warmup_steps=10, total_steps=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 9, 55, 100)]
        [0.01, 0.1, 0.051, 0.001]
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 100,
        total_steps: int | None = None,
        *,
        first_step: int = 0,
        final_fraction: float = 0.01,
    ) -> None:
        self.learning_rate = check_number(
            "learning_rate", learning_rate, maximum=MAX_LEARNING_RATE, above=0
        )
        self.warmup_steps = check_int("warmup_steps", warmup_steps, 0)
        self.total_steps = None
        if total_steps is not None:
            self.total_steps = check_int("total_steps", total_steps, self.warmup_steps + 1)
        self.first_step = check_int("first_step", first_step, 0)
        self.final_fraction = check_number("final_fraction", final_fraction, 0, 1)

    def __call__(self, step: Any) -> Any:
        ops = keras.ops
        # Subtract as integers: float32 can't tell steps apart beyond 2**24.
        done = ops.cast(ops.convert_to_tensor(step), "int32") - self.first_step
        done = ops.cast(ops.maximum(done, 0), "float32")
        rate: Any = ops.cast(self.learning_rate, "float32")
        if self.total_steps is not None:
            length = self.total_steps - self.warmup_steps
            part = ops.clip((done - self.warmup_steps) / length, 0.0, 1.0)
            cosine = 0.5 * (1.0 + ops.cos(math.pi * part))
            rate = rate * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
        if self.warmup_steps:
            rate = rate * ops.minimum((done + 1.0) / self.warmup_steps, 1.0)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "first_step": self.first_step,
            "final_fraction": self.final_fraction,
        }

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"WarmupCosine({values})"


def schedule_of(model: keras.Model) -> WarmupCosine | None:
    """The model's `WarmupCosine` as an equal copy, or None where it has another learning rate."""
    optimizer = _inner_optimizer(model)
    if optimizer is None:
        return None
    try:
        config = optimizer.get_config().get("learning_rate")
    except (NotImplementedError, TypeError, ValueError):  # a rate that can't be serialised
        return None
    if not isinstance(config, dict) or config.get("registered_name") != "bigzoo>WarmupCosine":
        return None
    return WarmupCosine.from_config(config["config"])


def set_schedule(model: keras.Model, config: dict[str, Any]) -> WarmupCosine:
    """Give `model` the `WarmupCosine` with this config: its own from a checkpoint, for example."""
    optimizer = _inner_optimizer(model)
    if optimizer is None:
        raise ValueError(message("model", model.name, "a compiled model", "Call bigzoo.compile."))
    schedule = WarmupCosine.from_config(config)
    optimizer.learning_rate = schedule
    # The old numbers are constants in the traced step.
    model.make_train_function(force=True)
    return schedule


def extend(model: keras.Model, steps: int) -> WarmupCosine | None:
    """Stretch the model's `WarmupCosine` over the next `steps` optimizer steps.

    The schedule starts at the optimizer's present step, and its warm-up takes at most a tenth of
    the run. A model with any other learning rate is left alone.

    Args:
        model: A compiled model.
        steps: Optimizer steps that are to come, at least 1: epochs times batches an epoch, divided
            by `gradient_accumulation_steps` where the optimizer accumulates.

    Returns:
        The schedule that is now in use, or None if the model has no `WarmupCosine`.
    """
    steps = check_int("steps", steps, 1)
    schedule = schedule_of(model)
    if schedule is None:
        return None
    config = schedule.get_config()
    config["first_step"] = _iterations(model)
    config["warmup_steps"] = min(schedule.warmup_steps, steps // 10)
    config["total_steps"] = steps
    return set_schedule(model, config)


def _inner_optimizer(model: keras.Model) -> Any:
    """The optimizer with the learning rate, inside the wrapper that scales losses in float16."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _iterations(model: keras.Model) -> int:
    iterations = _inner_optimizer(model).iterations
    # A variable under tf.distribute has no int(), and its numpy() works.
    return int(keras.ops.convert_to_numpy(iterations))
