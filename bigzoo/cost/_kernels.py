"""Small computations on the active backend, compiled as a model's step is, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """`function` as one program: a tf.function without XLA, a jitted function, or plain torch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=False)
    if backend == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.no_grad()(function)


def gradient(function: Function, index: int) -> Function:
    """A compiled function of (upstream gradient, *arguments): the gradient of one argument."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return compiled(_tensorflow_gradient(function, index))
    if backend == "jax":
        return compiled(_jax_gradient(function, index))
    return _torch_gradient(function, index)


def _tensorflow_gradient(function: Function, index: int) -> Function:
    import tensorflow as tf

    def backward(upstream: Any, *arguments: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arguments[index])
            result = function(*arguments)
        return tape.gradient(result, arguments[index], output_gradients=upstream)

    return backward


def _jax_gradient(function: Function, index: int) -> Function:
    import jax

    def backward(upstream: Any, *arguments: Any) -> Any:
        def of_one(argument: Any) -> Any:
            return function(*arguments[:index], argument, *arguments[index + 1 :])

        return jax.vjp(of_one, arguments[index])[1](upstream)[0]

    return backward


def _torch_gradient(function: Function, index: int) -> Function:
    import torch

    def backward(upstream: Any, *arguments: Any) -> Any:
        # Forward runs with it: torch has no way to leave it out. Callers take it off.
        with torch.enable_grad():
            own = list(arguments)
            own[index] = own[index].detach().requires_grad_(True)
            return torch.autograd.grad(function(*own), own[index], upstream)[0]

    return backward


class NoFloatOutput(ValueError):
    """The model gives nothing that a loss could be made of."""


def mean_square(outputs: Any) -> Any:
    """The loss of a step that is timed or compiled: the mean of the squared float outputs."""
    leaves = [y for y in keras.tree.flatten(outputs) if "float" in str(y.dtype)]
    if not leaves:
        raise NoFloatOutput(
            "The model has no float output, so there is no loss to train it with. Take the "
            "outputs before they become whole numbers, or use training=False."
        )
    return sum(keras.ops.mean(keras.ops.square(keras.ops.cast(y, "float32"))) for y in leaves)


def random(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> Any:
    """Numbers in [0.5, 1): products and powers of them stay finite."""
    return keras.random.uniform(tuple(shape), 0.5, 1.0, dtype=dtype, seed=seed)


def wait(result: Any) -> None:
    """Returns when `result` is there: backends return before a GPU has finished."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.block_until_ready(result)
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    else:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def timed(function: Function, arguments: Sequence[Any], seconds: float) -> float:
    """Median seconds of a call, over at least 3 calls and about `seconds` in all."""
    wait(function(*arguments))  # compiles, and starts threads
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < 200):
        start = time.perf_counter()
        wait(function(*arguments))
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)
