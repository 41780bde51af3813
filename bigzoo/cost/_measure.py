"""`measure`: the time of real steps, and what the device's allocator says of their memory."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_int, shorten
from bigzoo._units import bytes_text, seconds_text
from bigzoo.cost._analyze import analyze
from bigzoo.cost._calibration import Calibration
from bigzoo.cost._device import Device
from bigzoo.cost._inputs import input_specs
from bigzoo.cost._kernels import NoFloatOutput, compiled, mean_square, wait
from bigzoo.cost._memory import training_step
from bigzoo.cost._optimizer import get_optimizer
from bigzoo.cost._predict import find_hardware, utilisation
from bigzoo.cost._stateless import run


@dataclass(frozen=True)
class Measurement:
    """What steps took here.

    Attributes:
        batch_size: Samples in a step.
        steps: How many were timed.
        step_seconds: Their median.
        step_low_seconds, step_high_seconds: The quarter of the steps that were below, and above.
        peak_bytes: Most memory by the device's allocator; None where there is none, as on CPUs.
        backend: Active Keras backend.
        training: Whether they were training steps.
        mfu: Model FLOPs utilisation by the median step: the products' FLOPs per second over the
            peak of `on`; None where no peak is known.
        on: Name of the hardware whose peak that is; None if none was given.
    """

    batch_size: int
    steps: int
    step_seconds: float
    step_low_seconds: float
    step_high_seconds: float
    peak_bytes: int | None
    backend: str
    training: bool
    mfu: float | None = None
    on: str | None = None

    @property
    def samples_per_second(self) -> float:
        """By the median step."""
        return self.batch_size / self.step_seconds

    def to_dict(self) -> dict[str, Any]:
        """The measurement as plain numbers and strings, which JSON can hold."""
        return dict(self.__dict__)

    def __str__(self) -> str:
        low, high = seconds_text(self.step_low_seconds), seconds_text(self.step_high_seconds)
        what = "training" if self.training else "inference"
        peak = "" if self.peak_bytes is None else f", peak {bytes_text(self.peak_bytes)}"
        mfu = "" if self.mfu is None else f", {100 * self.mfu:.3g}% of the peak of {self.on}"
        return (
            f"{what} step of {self.batch_size} samples on {self.backend}: "
            f"{seconds_text(self.step_seconds)} (half of {self.steps} between {low} and {high})"
            f"{peak}{mfu}"
        )


def measure(
    model: keras.Model,
    batch_size: int = 1,
    input_shape: Any = None,
    *,
    steps: int = 20,
    optimizer: Any = "adam",
    training: bool = True,
    on: Device | Calibration | str | None = None,
) -> Measurement:
    """Times real steps of `model` on random inputs, compiled as Keras compiles them, without XLA
    on TensorFlow.

    The loss is the mean of the squared outputs. The model's weights, states and optimizer are the
    same afterwards as before. It works on one device.

    Args:
        model: Any Keras model.
        batch_size: Samples in a step.
        input_shape: As for `analyze`.
        steps: How many to time, after two that are not.
        optimizer: Name or optimizer to train with.
        training: Whether to train; else a forward pass in inference.
        on: The hardware that this is, as for `predict`: its peak gives `mfu`.

    Returns:
        A `Measurement`.

    Raises:
        ValueError, TypeError: as `analyze`; also for a model that takes strings, is spread over
            several devices, or has no float output to train.
        RuntimeError: if the first step fails, with the reason.

    Example:
        >>> found = bz.cost.measure(bz.models.mlp(8), batch_size=4, steps=3)
        >>> found.step_seconds > 0
        True
    """
    steps = check_int("steps", steps, minimum=1)
    training = check_bool("training", training)
    hardware = None if on is None else find_hardware(on)
    specs = input_specs(model, batch_size, input_shape)
    _check_one_device(model)
    inputs = keras.tree.map_structure(_random_input, specs)
    with _unchanged(model):
        step = _training(model, optimizer) if training else _inference(model)
        _reset_peak()
        _first_steps(model, step, inputs, training)
        samples = []
        for _ in range(steps):
            start = time.perf_counter()
            wait(step(inputs))
            samples.append(time.perf_counter() - start)
        peak = _allocator_peak()
    low, high = np.quantile(samples, [0.25, 0.75])
    middle, mfu = statistics.median(samples), None
    if hardware is not None:
        report = analyze(model, batch_size, input_shape, optimizer, training, memory="traced")
        mfu = utilisation(report, middle, hardware)
    return Measurement(
        batch_size=keras.tree.flatten(specs)[0].shape[0],
        steps=steps,
        step_seconds=middle,
        step_low_seconds=float(low),
        step_high_seconds=float(high),
        peak_bytes=peak,
        backend=keras.backend.backend(),
        training=training,
        mfu=mfu,
        on=None if hardware is None else hardware.name,
    )


def _check_one_device(model: keras.Model) -> None:
    spread = keras.distribution.distribution() is not None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        values = [v.value for v in model.variables]
        spread = spread or any(isinstance(v, tf.distribute.DistributedValues) for v in values)
    if spread:
        raise ValueError(
            f"The model {model.name!r} is made for several devices, by a distribution strategy; "
            "`measure` works on one. Build it outside the strategy."
        )


def _first_steps(
    model: keras.Model, step: Callable[[Any], Any], inputs: Any, training: bool
) -> None:
    """Two steps that don't count, since the first compiles; what fails, fails here."""
    try:
        for _ in range(2):
            wait(step(inputs))
    except NoFloatOutput:
        raise
    except Exception as error:
        what = "training" if training else "inference"
        shapes = ", ".join(str(tuple(x.shape)) for x in keras.tree.flatten(inputs))
        raise RuntimeError(
            f"The first {what} step of the model {model.name!r} failed on inputs of shape "
            f"{shapes}: {_reason(error)}. Look whether `input_shape` is one that the model can "
            "take, such as no more tokens than it has positions, and the batch fits into memory."
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in a line. TensorFlow says it after pages of where, before the node."""
    lines = str(error).splitlines()
    marks = [i for i, line in enumerate(lines) if "[[{{node" in line]
    if marks and marks[0] > 0 and lines[marks[0] - 1].strip():
        return shorten(ValueError(lines[marks[0] - 1]))
    return shorten(error)


def _random_input(spec: Any) -> Any:
    """Fractions for floats, ones for whole numbers: an id that every table has."""
    if spec.dtype == "string":
        raise ValueError(
            "The model takes strings, and `measure` makes up numbers only. Measure the part of it "
            "that follows on the layer that turns them into numbers."
        )
    generator = np.random.default_rng(0)
    values = generator.random(spec.shape) if "float" in spec.dtype else np.ones(spec.shape)
    return keras.ops.convert_to_tensor(values.astype("float32"), dtype=spec.dtype)


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Gives the model's variables their values back."""
    # Copies: on TensorFlow and torch the arrays themselves are written into.
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables]
    try:
        yield
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)


def _inference(model: keras.Model) -> Callable[[Any], Any]:
    if keras.backend.backend() != "jax":
        return compiled(lambda x: model(x, training=False))
    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    step = compiled(lambda w, o, x: run(model, w, o, x, False)[0])
    return lambda x: step(weights, others, x)


def _training(model: keras.Model, optimizer: Any) -> Callable[[Any], Any]:
    backend = keras.backend.backend()
    if backend == "jax":
        return _training_jax(model, optimizer)
    fresh = get_optimizer(optimizer)
    fresh.build(model.trainable_variables)
    if backend == "tensorflow":
        return compiled(_training_tensorflow(model, fresh))
    return _training_torch(model, fresh)


def _training_tensorflow(model: keras.Model, optimizer: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    weights = model.trainable_variables

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = mean_square(model(x, training=True))
        optimizer.apply(tape.gradient(loss, [v.value for v in weights]), weights)
        return loss

    return step


def _training_torch(model: keras.Model, optimizer: Any) -> Callable[[Any], Any]:
    import torch

    weights = model.trainable_variables

    def step(x: Any) -> Any:
        loss = mean_square(model(x, training=True))
        slopes = torch.autograd.grad(loss, [v.value for v in weights], allow_unused=True)
        with torch.no_grad():
            optimizer.apply(list(slopes), weights)
        return loss.detach()

    return step


def _training_jax(model: keras.Model, optimizer: Any) -> Callable[[Any], Any]:
    import jax

    function, variables = training_step(model, optimizer)
    # Copies, since the step takes its states' memory over.
    state = [tuple(jax.numpy.array(v.value) for v in group) for group in variables]
    step = jax.jit(function, donate_argnums=0)
    now = [tuple(list(group) for group in state)]

    def advance(x: Any) -> Any:
        now[0], loss = step(now[0], x)
        return loss

    return advance


# --- memory of a device ------------------------------------------------------------------------


def _reset_peak() -> None:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.reset_memory_stats("GPU:0")
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def _allocator_peak() -> int | None:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    elif backend == "jax":
        import jax

        # JAX can't reset it: the most since the process began.
        found = jax.devices()[0].memory_stats() or {}
        return found.get("peak_bytes_in_use")
    else:
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
    return None
