"""Values of labels against the loss that uses them and the activation that must reach them."""

from __future__ import annotations

import numpy as np

from bigzoo.train._check_data import View
from bigzoo.train._check_labels import Labels
from bigzoo.train._check_loss import RANGES, group_of
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error, warning

_FEW_ROWS = 8  # with fewer, zeros and ones may be numbers by chance
_TOLERANCE = 1e-4  # labels may lie this far outside of what an activation reaches


def check_range(pair: Pair, labels: Labels, view: View) -> list[Finding]:
    """Values that the loss can't use, or that the activation can't reach."""
    if pair.loss is None or labels.y.size == 0:
        return []
    if pair.loss.kind == "sparse":
        return _classes(pair, labels, view)
    if pair.loss.kind == "binary":
        return _probabilities(pair, labels) or _several(pair, labels) or _unused(pair, labels, view)
    if pair.loss.kind in ("categorical", "kl", "categorical_hinge"):
        return _rows(pair, labels) or _unused(pair, labels, view)
    if pair.loss.kind == "hinge":
        return _hinge(pair, labels)
    if pair.loss.kind == "poisson":
        return _counts(pair, labels) or _reach(pair, labels)
    if pair.loss.kind == "regression":
        return _reach(pair, labels) or _regression(pair, labels)
    return []


def _classes(pair: Pair, labels: Labels, view: View) -> list[Finding]:
    units, loss, y = pair.info.units, pair.loss, labels.values
    if not labels.integral:
        expected = "integers that count the classes from 0"
        fix = 'loss="mse" with a linear last layer, if these are numbers to predict'
        return [error("labels-not-integers", pair.where_y, labels.describe, expected, fix)]
    if loss is not None and loss.ignore_class is not None:
        y = y[y != loss.ignore_class]
    if units is None or y.size == 0:
        return []
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= units:
        got = f"labels from {low} to {high}"
        expected = f"0 to {units - 1}, for {units} units"
        fix = _shift(labels, low, high, units)
        return [error("labels-out-of-range", pair.where_y, got, expected, fix)]
    return _unused(pair, labels, view)


def _shift(labels: Labels, low: int, high: int, units: int) -> str:
    found = labels.classes[0] if labels.classes is not None else np.empty(0)
    if low > 0 and high - low < units:
        return f"y = y - {low}"
    if found.size == 2 and (low, high) == (-1, 1):
        return "y = (y + 1) // 2"
    if found.size == 2 and (low, high) == (0, 255):
        return "y = y // 255"
    if 0 < found.size <= units:
        return "classes, y = np.unique(y, return_inverse=True)"
    if low >= 0:
        return f'keras.layers.Dense({high + 1}, activation="softmax") as the last layer'
    return "classes, y = np.unique(y, return_inverse=True), and one unit for each of classes"


def _probabilities(pair: Pair, labels: Labels) -> list[Finding]:
    if labels.low >= -_TOLERANCE and labels.high <= 1 + _TOLERANCE:
        return []
    got = f"labels from {labels.low:g} to {labels.high:g}"
    expected = f"0 and 1 (or values between), for {pair.loss.name if pair.loss else ''}"
    classes = labels.classes[0] if labels.classes is not None else None
    if classes is not None and len(classes) == 2:
        hint = _shift(labels, int(labels.low), int(labels.high), 2)
    elif classes is not None and labels.column:
        hint = (
            f'keras.layers.Dense({max(len(classes), int(labels.high) + 1)}, activation="softmax")'
        )
        hint += ' with loss="sparse_categorical_crossentropy"'
    else:
        hint = "y = (y - y.min()) / (y.max() - y.min())"
    return [error("labels-out-of-range", pair.where_y, got, expected, hint)]


def _several(pair: Pair, labels: Labels) -> list[Finding]:
    """Several true classes in a row, for outputs that sum to 1."""
    if pair.info.kind != "softmax" or not labels.wide or float(labels.row_sums.max()) <= 1.001:
        return []
    got = f"up to {int(labels.row_sums.max())} true classes in a row, for a softmax"
    expected = "one true class in each row: the units of a softmax sum to 1"
    fix = 'activation="sigmoid" in the last layer with loss="binary_crossentropy"'
    return [error("several-classes", pair.where_y, got, expected, fix)]


def _rows(pair: Pair, labels: Labels) -> list[Finding]:
    """Labels that must be one-hot, or probabilities that sum to 1."""
    name = pair.loss.name if pair.loss else ""
    if labels.low < -_TOLERANCE:
        got, expected = f"labels down to {labels.low:g}", "probabilities of classes, 0 to 1"
        fix = "y = keras.utils.to_categorical(y)  # from integer labels"
        return [error("labels-out-of-range", pair.where_y, got, expected, fix)]
    if not labels.wide:
        return []
    found = _several(pair, labels) if labels.binary else []
    if found:
        return found
    off = np.abs(labels.row_sums - 1) > 1e-2
    if not off.any():
        return []
    row = int(np.argwhere(off)[0][0])
    total = labels.row_sums.reshape(len(labels.y), -1)[row].max()
    got = f"rows that don't sum to 1, such as row {row} with {total:g}"
    fix = "y = y / y.sum(axis=-1, keepdims=True)"
    if labels.binary:
        fix = 'activation="sigmoid" in the last layer with loss="binary_crossentropy"'
    expected = f"one-hot labels, or probabilities that sum to 1, for {name}"
    return [error("labels-not-distribution", pair.where_y, got, expected, fix)]


def _hinge(pair: Pair, labels: Labels) -> list[Finding]:
    signs = bool(((labels.values == -1) | (labels.values == 1)).all())
    if labels.binary or signs:
        return []
    got = f"labels from {labels.low:g} to {labels.high:g}"
    expected = f"-1 and 1 (or 0 and 1), for {pair.loss.name if pair.loss else ''}"
    found = labels.classes[0] if labels.classes is not None else np.empty(0)
    fix = "y = np.where(y > np.median(y), 1, -1)"
    if found.size == 2:
        fix = f"y = np.where(y == {found[1]:g}, 1, -1)"
    return [error("labels-out-of-range", pair.where_y, got, expected, fix)]


def _counts(pair: Pair, labels: Labels) -> list[Finding]:
    if labels.low >= 0:
        return []
    got = f"labels down to {labels.low:g}"
    fix = 'loss="mse"'
    return [error("labels-out-of-range", pair.where_y, got, "counts of at least 0", fix)]


def _reach(pair: Pair, labels: Labels) -> list[Finding]:
    """Labels outside of what the last activation can give."""
    low, high = RANGES.get(pair.info.activation, (-np.inf, np.inf))
    outside = (labels.values < low - _TOLERANCE) | (labels.values > high + _TOLERANCE)
    share = float(outside.mean())
    if share == 0:
        return []
    make = error if share > 0.05 else warning
    got = f"labels from {labels.low:g} to {labels.high:g} for {pair.info.activation}"
    expected = f"labels within {low:g} to {high:g}, which is all that {pair.info.activation} gives"
    fix = "remove the activation of the last layer"
    return [make("labels-out-of-reach", pair.where_y, got, expected, fix)]


def _regression(pair: Pair, labels: Labels) -> list[Finding]:
    """Classes under a regression loss: it runs, but learns slowly and its score is no accuracy."""
    group = group_of(pair.info)
    if len(labels.y) < _FEW_ROWS or not _means_classes(labels, group):
        return _squared_softmax(pair) if group == "softmax" else []
    one_unit = pair.info.units == 1
    fix = f'loss="{"binary" if group == "sigmoid" else "categorical"}_crossentropy"'
    if group not in ("softmax", "sigmoid"):
        units, activation = (1, "sigmoid") if one_unit else (pair.info.units, "softmax")
        name = "binary" if one_unit else "categorical"
        layer = f'keras.layers.Dense({units}, activation="{activation}")'
        fix = f'{layer} as the last layer with loss="{name}_crossentropy"'
    got = f"{pair.loss.name if pair.loss else ''} for {labels.describe}, all 0 or 1"
    expected = "a crossentropy for classes"
    return [warning("regression-loss-for-classes", pair.where, got, expected, fix)]


def _means_classes(labels: Labels, group: str) -> bool:
    if not labels.binary or labels.low == labels.high or group == "unknown":
        return False
    if labels.column or (labels.one_hot and labels.y.ndim == 2):
        return True
    # Several labels in a row; with many columns it is rather a black and white image.
    return group == "sigmoid" and labels.y.ndim == 2 and labels.y.shape[1] <= 64


def _squared_softmax(pair: Pair) -> list[Finding]:
    got = f"{pair.loss.name if pair.loss else ''} after softmax"
    fix = 'loss="categorical_crossentropy"  # or "kl_divergence"'
    return [warning("loss-vs-activation", pair.where, got, "a crossentropy after softmax", fix)]


def _unused(pair: Pair, labels: Labels, view: View) -> list[Finding]:
    """Units of a softmax that no label ever asks for."""
    units = pair.info.units
    if units is None or units < 3 or pair.info.shape is None or len(pair.info.shape) != 2:
        return []
    if labels.classes is None or pair.info.kind == "sigmoid" or not _mixed(labels, view):
        return []
    used, rows = len(labels.classes[0]), len(labels.y)
    certain = rows >= 10 * units or (2 * used <= units and rows >= max(units, 16))
    if used >= units or not certain:
        return []
    unused = units - used
    got = f"{units} units for {used} classes: {unused} units never get a label"
    fix = f'keras.layers.Dense({used}, activation="softmax") as the last layer'
    high = int(labels.classes[0].max()) if labels.y.ndim == 1 or labels.column else used - 1
    if high >= used:
        fix = "classes, y = np.unique(y, return_inverse=True), then " + fix
    return [warning("unused-units", pair.where, got, "one unit per class", fix)]


def _mixed(labels: Labels, view: View) -> bool:
    """Whether the labels seen stand for all: taken from everywhere, or read in no order."""
    if view.whole or view.complete:
        return True
    flat = labels.values.argmax(-1) if labels.wide else labels.values.reshape(-1)
    changes = int((np.diff(flat) != 0).sum())
    return labels.classes is not None and changes > 4 * len(labels.classes[0])
