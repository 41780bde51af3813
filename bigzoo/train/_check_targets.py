"""Shape of labels against the shape of the output and what the loss does with the two."""

from __future__ import annotations

import keras
import numpy as np

from bigzoo.train._check_labels import Labels, shape_text
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error

# These compare shapes themselves, so a wrong one is refused and not broadcast.
_STRICT = ("sparse", "categorical", "binary")


def check_shape(pair: Pair, labels: Labels) -> list[Finding]:
    """Shapes that Keras refuses in the middle of the first step, or broadcasts in silence."""
    shape, loss = pair.info.shape, pair.loss
    if shape is None or loss is None or labels.y.ndim == 0:
        return []
    y, units = labels.y.shape, pair.info.units
    if loss.kind == "sparse":
        return _sparse_shape(pair, labels)
    if loss.kind == "custom":
        return _custom_shape(pair, labels)
    target, output = _aligned(y, shape)
    if _same(target[1:], output[1:]) and len(target) == len(output):
        return []
    if units is not None and units > 1 and labels.column and len(shape) == 2 and labels.integral:
        return [_integers(pair, labels, units)]
    if units == 1 and len(shape) == 2 and labels.wide and labels.y.ndim == 2 and labels.binary:
        return [_too_wide(pair, labels)]
    return [_mismatch(pair, labels, target, output)]


def _aligned(
    y: tuple[int, ...], output: tuple[int | None, ...]
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Both shapes after Keras' losses have added or dropped a last axis of size 1."""
    if len(y) == len(output) + 1 and y[-1] == 1:
        return (y, (*output, 1)) if len(output) == 1 else (y[:-1], output)
    if len(output) == len(y) + 1 and output[-1] == 1:
        return ((*y, 1), output) if len(y) == 1 else (y, output[:-1])
    return y, output


def _same(left: tuple[int | None, ...], right: tuple[int | None, ...]) -> bool:
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(a == b or a is None or b is None for a, b in pairs)


def _sparse_shape(pair: Pair, labels: Labels) -> list[Finding]:
    y, shape = labels.y.shape, pair.info.shape or ()
    squeezed = y[:-1] if len(y) == len(shape) and y[-1] == 1 else y
    if _same(squeezed[1:], shape[1:-1]):
        return []
    name = "sparse_categorical_crossentropy"
    expected = f"one integer per prediction, shape {shape_text(shape[:-1])}, for {name}"
    if len(y) == len(shape) and labels.wide:
        code = "one-hot-with-sparse-loss" if labels.one_hot else "label-shape"
        fix = 'loss="categorical_crossentropy"  # or: y = y.argmax(axis=-1)'
        if labels.multi_hot:
            fix = 'activation="sigmoid" in the last layer with loss="binary_crossentropy"'
        return [error(code, pair.where_y, labels.describe, expected, fix)]
    fix = f"y = y.reshape{shape_text(shape[:-1])}".replace("(n", "(len(y)").replace("any", "-1")
    return [error("label-shape", pair.where_y, labels.describe, expected, fix)]


def _integers(pair: Pair, labels: Labels, units: int) -> Finding:
    """Integer labels where the loss wants one number per unit."""
    name = pair.loss.name if pair.loss else "the loss"
    expected = f"shape (n, {units}) for {name} with {units} units, or a loss for integer labels"
    one_hot = f"y = keras.utils.to_categorical(y, {units})"
    fix = f'loss="sparse_categorical_crossentropy"  # or: {one_hot}'
    if pair.info.kind not in ("softmax", "linear") or (pair.loss and pair.loss.kind == "kl"):
        fix = one_hot
    elif pair.info.kind == "linear":
        sparse = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
        fix = f"keras.layers.Dense(1) as the last layer, or loss={sparse} for classes"
        if pair.loss and pair.loss.from_logits:
            fix = f"loss={sparse}"
    code = "integer-labels"
    if pair.loss and pair.loss.kind not in _STRICT:
        code = "label-broadcast" if labels.y.ndim == 2 else "label-shape"
    return error(code, pair.where_y, labels.describe, expected, fix)


def _too_wide(pair: Pair, labels: Labels) -> Finding:
    width = labels.y.shape[-1]
    expected = "shape (n,) or (n, 1) for an output of 1 unit"
    if labels.multi_hot:
        fix = f'keras.layers.Dense({width}, activation="sigmoid") as the last layer'
    elif width == 2:
        fix = "y = y.argmax(axis=-1)"
    else:
        fix = f'keras.layers.Dense({width}, activation="softmax") as the last layer'
    strict = pair.loss is not None and pair.loss.kind in _STRICT
    code = "label-shape" if strict else "label-broadcast"
    return error(code, pair.where_y, labels.describe, expected, fix)


def _mismatch(
    pair: Pair, labels: Labels, target: tuple[int | None, ...], output: tuple[int | None, ...]
) -> Finding:
    shape = pair.info.shape or ()
    expected = f"the shape of the output, {shape_text(shape)}"
    silent = pair.loss is not None and pair.loss.kind not in _STRICT and _broadcasts(target, output)
    if silent:
        expected += ": the loss would broadcast, and compare every label with every output"
    if len(target) == len(output) == 2 and target[1] is not None:
        fix = f"keras.layers.Dense({target[1]}) as the last layer"
        if target[1] == 1:
            fix += f", or y of shape {shape_text(shape)}"
    else:
        fix = f"y = y.reshape{shape_text(shape)}".replace("(n", "(len(y)").replace("any", "-1")
    code = "label-broadcast" if silent else "label-shape"
    return error(code, pair.where_y, labels.describe, expected, fix)


def _broadcasts(target: tuple[int | None, ...], output: tuple[int | None, ...]) -> bool:
    """Whether the two broadcast for some number of rows."""
    rows = 0  # stands for n, which differs from each other size; 0 broadcasts with 1 alone
    left = [rows, *[size or 1 for size in target[1:]]]
    right = [rows, *[size or 1 for size in output[1:]]]
    try:
        np.broadcast_shapes(tuple(left), tuple(right))
    except ValueError:
        return False
    return True


def _custom_shape(pair: Pair, labels: Labels) -> list[Finding]:
    """A `keras.Loss` of the user's is given the labels as they are: try what it does with (n,)."""
    shape, y = pair.info.shape or (), labels.y.shape
    function = pair.loss.function if pair.loss else None
    if not isinstance(function, keras.Loss) or {len(y), len(shape)} != {1, 2}:
        return []
    if (y if len(y) == 2 else shape)[-1] != 1:
        return []
    truth = np.array([0.0, 1.0, 1.0], "float32")
    guess = np.array([0.2, 0.3, 0.9], "float32")
    flat = (truth, guess[:, None]) if len(y) == 1 else (truth[:, None], guess)
    try:
        got = keras.ops.convert_to_numpy(function(*flat))
        right = keras.ops.convert_to_numpy(function(truth[:, None], guess[:, None]))
    except Exception:  # the user's code; if it fails in `fit` too, Keras shows where
        return []
    if got.shape == right.shape and np.allclose(got, right, rtol=1e-4, atol=1e-6):
        return []
    name = pair.loss.name if pair.loss else ""
    expected = f"the shape of the output, {shape_text(shape)}: {name} broadcasts, and compares"
    expected += " every label with every output"
    fix = "y = y.reshape(-1, 1)" if len(shape) == 2 else "y = y.reshape(-1)"
    return [error("label-broadcast", pair.where_y, labels.describe, expected, fix)]
