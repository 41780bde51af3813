"""One gradient on a few rows, to see whether anything can be learned. Nothing is changed by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bigzoo.train._check_data import leaves
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error

_SMALL_PARAMETERS = 3_000_000
# JAX compiles each new operation by itself, which takes seconds for a few layers.
_SMALL_LAYERS = {"tensorflow": 40, "torch": 40, "jax": 3}
_SMALL_ELEMENTS = 8 * 64 * 64 * 3


def is_small(model: keras.Model, x: Any, rows: int) -> bool:
    """Whether a gradient on `rows` rows is so cheap that `fit` can afford it unasked."""
    layers = len(list(keras.tree.flatten(getattr(model, "layers", []))))
    elements = sum(leaf[:rows].size for leaf in leaves(x))
    most = _SMALL_LAYERS.get(keras.backend.backend(), 0)
    return (
        layers <= most and elements <= _SMALL_ELEMENTS and model.count_params() <= _SMALL_PARAMETERS
    )


def check_gradient(model: keras.Model, pairs: list[Pair], x: Any, rows: int) -> list[Finding]:
    """A loss or gradient that isn't finite, or a gradient that is zero everywhere.

    A few rows can all be in the dead part of a ReLU by chance, so a zero gradient is looked for
    again with eight times the rows.
    """
    found = _try(model, pairs, x, rows)
    if found and found[0].code == "zero-gradient":
        found = _try(model, pairs, x, 8 * rows)
    return found


def _try(model: keras.Model, pairs: list[Pair], x: Any, rows: int) -> list[Finding]:
    targets = [None if pair.y is None else _cut(pair.y, rows) for pair in pairs]
    features = keras.tree.map_structure(lambda leaf: _cut(leaf, rows), x)
    takes_mode = "training" in inspect.signature(model.call).parameters
    mode = {"training": False} if takes_mode else {}

    def loss_of(trainable: list[Any], fixed: list[Any]) -> Any:
        # `stateless_call` works on copies: weights, BatchNorm statistics and seeds stay.
        outputs, _ = model.stateless_call(trainable, fixed, features, **mode)
        flat = keras.tree.flatten(outputs)
        total: Any = 0.0
        for pair, target in zip(pairs, targets, strict=True):
            output = flat[_position(pairs, pair)]
            total = total + _value(pair.loss.function, target, output) if pair.loss else total
        return total

    value, gradients = _BACKENDS[keras.backend.backend()](model, loss_of)
    return _judge(model, value, gradients)


def _cut(array: np.ndarray, rows: int) -> np.ndarray:
    """`rows` rows from all over the array."""
    if len(array) <= rows:
        return array
    return array[np.linspace(0, len(array) - 1, rows).astype(np.int64)]


def _position(pairs: list[Pair], pair: Pair) -> int:
    """Place of the pair's output: an output with two losses has two pairs."""
    names: list[str] = []
    for one in pairs:
        if one.info.name not in names:
            names.append(one.info.name)
    return names.index(pair.info.name)


def _value(function: Any, target: Any, output: Any) -> Any:
    output = keras.ops.cast(output, "float32")
    truth = keras.ops.convert_to_tensor(target, dtype="float32")
    # As Keras does for loss functions: a last axis of size 1 is added where it is missing.
    if len(truth.shape) == len(output.shape) - 1 and output.shape[-1] == 1:
        truth = keras.ops.expand_dims(truth, -1)
    return keras.ops.mean(function(truth, output))


def _tensorflow_gradient(model: Any, loss_of: Callable[..., Any]) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    trainable = [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
    fixed = [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(trainable)
        value = loss_of(trainable, fixed)
    return value, [_dense(g) for g in tape.gradient(value, trainable)]


def _dense(gradient: Any) -> Any:
    return getattr(gradient, "values", gradient)  # the rows of an Embedding's sparse gradient


def _jax_gradient(model: Any, loss_of: Callable[..., Any]) -> tuple[Any, list[Any]]:
    import jax

    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    return jax.value_and_grad(loss_of)(trainable, fixed)


def _torch_gradient(model: Any, loss_of: Callable[..., Any]) -> tuple[Any, list[Any]]:
    import torch

    trainable = [v.value.detach().clone().requires_grad_() for v in model.trainable_variables]
    fixed = [v.value.detach() for v in model.non_trainable_variables]
    with torch.enable_grad():
        value = loss_of(trainable, fixed)
        return value, list(torch.autograd.grad(value, trainable, allow_unused=True))


_BACKENDS = {
    "tensorflow": _tensorflow_gradient,
    "jax": _jax_gradient,
    "torch": _torch_gradient,
}


def _judge(model: Any, value: Any, gradients: list[Any]) -> list[Finding]:
    loss = float(keras.ops.convert_to_numpy(value))
    if not np.isfinite(loss):
        got = f"a loss of {loss} on the first rows, before any training"
        fix = "scale x to about -1 to 1, and look whether the loss fits the output"
        return [error("loss-not-finite", "model", got, "a finite loss", fix)]
    sizes = [_size(gradient) for gradient in gradients]
    if not all(map(np.isfinite, sizes)):
        names = [v.path for v, s in zip(model.trainable_variables, sizes, strict=True) if s != s]
        got = f"gradients that are not finite, such as for {names[:1] or 'a weight'}"
        fix = "scale x to about -1 to 1, and look whether the loss fits the output"
        return [error("gradient-not-finite", "model", got, "finite gradients", fix)]
    kernels = [
        size
        for v, size in zip(model.trainable_variables, sizes, strict=True)
        if len(v.shape) >= 2 or len(sizes) == 1
    ]
    # A loss of exactly zero has nothing left to learn, and rightly no gradient.
    if loss == 0 or not sizes or any(kernels or sizes):
        return []
    which = "every weight" if not any(sizes) else "every kernel (only biases have one)"
    got = f"a gradient of exactly zero for {which}, at a loss of {loss:.4g}"
    fix = "remove relu from the last layer, start from random weights, scale x to about -1 to 1"
    expected = "a gradient that can change the weights: nothing would be learned"
    return [error("zero-gradient", "model", got, expected, fix)]


def _size(gradient: Any) -> float:
    if gradient is None:
        return 0.0
    return float(np.abs(np.asarray(keras.ops.convert_to_numpy(gradient), "float64")).sum())
