"""`jit_compile` and `steps_per_execution` that suit the model and the hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from bigzoo.train._family import family, on_accelerator

MODES = ("auto", "measure", "keras")
# With more steps in one call Python costs nothing visible any more; callbacks, which run once in
# that many steps, still come often enough for a progress bar.
SMALL_MODEL_STEPS = 32


@dataclass(frozen=True)
class Speed:
    """Arguments for Keras' `compile`, and why.

    Attributes:
        jit_compile: True, False or "auto" (Keras decides).
        steps_per_execution: Batches that one call of the compiled step runs, at least 1.
        reason: Some words for the line that `bigzoo.compile` prints.
    """

    jit_compile: bool | str
    steps_per_execution: int
    reason: str

    @property
    def text(self) -> str:
        settings = f"jit_compile={self.jit_compile}, steps_per_execution={self.steps_per_execution}"
        return f"{settings} ({self.reason})"


KERAS_DEFAULT = Speed("auto", 1, "as Keras does")


def choose_speed(model: keras.Model, optimizer: Any, mode: str) -> Speed:
    """Settings for `mode` "auto", "measure" or "keras"."""
    if mode == "keras":
        return KERAS_DEFAULT
    guess = auto_speed(model)
    if mode == "auto":
        return guess
    from bigzoo.train._measure import measure_speed

    return measure_speed(model, optimizer, guess)


def auto_speed(model: keras.Model) -> Speed:
    """Settings from the kinds of layers, as measured in trials; nothing is run."""
    backend = keras.backend.backend()
    if backend == "torch":
        return Speed("auto", 1, "PyTorch runs step by step")
    if is_distributed(model):
        return Speed("auto", 1, "distributed")
    if on_accelerator():
        return Speed("auto", 1, "accelerator: Keras decides")
    kind = family(model)
    if backend == "jax":
        return Speed("auto", 1, "JAX compiles every step")
    if backend != "tensorflow":
        return Speed("auto", 1, f"{backend}: Keras decides")
    if kind == "mlp":
        # A step takes microseconds in the processor and milliseconds in Python.
        return Speed(True, SMALL_MODEL_STEPS, "dense layers on a CPU")
    if kind == "linear":
        # XLA takes about a second to compile and then has nothing to fuse.
        return Speed(False, SMALL_MODEL_STEPS, "linear model on a CPU")
    if kind == "conv":
        # XLA's convolutions on a CPU are several times slower than TensorFlow's own.
        return Speed(False, 1, "convolutions on a CPU")
    if kind == "attention":
        # XLA's products of bfloat16 matrices on a CPU take twice as long as oneDNN's; in float32
        # both are level, and XLA compiles for half a minute.
        return Speed(False, 1, "attention on a CPU")
    return Speed("auto", 1, "Keras decides")


def is_distributed(model: keras.Model) -> bool:
    """Whether the model's step runs on several replicas or a mesh of devices."""
    strategy = getattr(model, "distribute_strategy", None)
    if keras.backend.backend() == "tensorflow" and strategy is not None:
        import tensorflow as tf

        return strategy is not tf.distribute.get_strategy() or tf.distribute.has_strategy()
    if keras.backend.backend() == "jax":
        return keras.distribution.distribution() is not None
    return False
