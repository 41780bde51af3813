"""The loss of distillation, and the targets that it is given."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bigzoo._errors import message

# What a model's outputs are for distillation, by the kind that `_score.kind_of` gives.
FORMS = {
    "softmax": "classes",
    "softmax_logits": "classes",
    "sigmoid": "classes",  # one unit tells two classes apart
    "sigmoid_logits": "classes",
    "multilabel": "labels",
    "multilabel_logits": "labels",
    "numbers": "numbers",
}
# log p of anything smaller is taken for that of this, so that it stays finite in float32.
_TINY = 1e-37
# The nearest that float32 comes to 1 from below, so that log(1 - p) stays finite.
_BELOW_ONE = 1.0 - 2.0**-24


def to_logits(outputs: Any, kind: str) -> Any:
    """Logits (n, k) of outputs (n, units): two columns for one sigmoid unit; numbers as they are.

    The logarithm of probabilities is a vector of logits: the constant that it lacks for each row
    vanishes in the softmax, at any temperature.
    """
    if kind == "softmax":
        return ops.log(ops.maximum(outputs, _TINY))
    if kind in ("sigmoid", "multilabel"):
        p = ops.clip(outputs, _TINY, _BELOW_ONE)
        outputs = ops.log(p) - ops.log1p(-p)
    if kind in ("sigmoid", "sigmoid_logits"):
        return ops.concatenate([ops.zeros_like(outputs), outputs], axis=-1)
    return outputs


class DistillationLoss(keras.losses.Loss):
    """(1 - w) T² KL(teacher ‖ student at temperature T) + w CE(label, student at temperature 1).

    w is `alpha` for rows that have a label, and 0 for the others. Several sigmoid units are one
    question each, and numbers are compared by their squared error: the mean over the units.

    Source: Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531, section 2. T² keeps the
    size of the gradients the same at each temperature.

    Args:
        kind: Of the student's outputs, a key of `FORMS`.
        temperature: T, above 0.
        alpha: In [0, 1].

    `y_true` is what `pack` gives, `y_pred` the student's outputs.
    """

    def __init__(self, kind: str, temperature: float, alpha: float) -> None:
        super().__init__(name="distillation")
        self.kind = kind
        self.temperature = temperature
        self.alpha = alpha

    def call(self, y_true: Any, y_pred: Any) -> Any:
        units = (y_true.shape[-1] - 1) // 2
        teacher, label, known = ops.split(y_true, [units, 2 * units], axis=-1)
        # Of softmax and sigmoid the units are the last axis; numbers may have any shape.
        if self.kind == "numbers":
            y_pred = ops.reshape(y_pred, (-1, units))
        student = to_logits(y_pred, self.kind)
        soft, hard = _PAIRS[FORMS[self.kind]](teacher, student, label, self.temperature)
        weight = self.alpha * known[:, 0]
        return weight * hard + (1.0 - weight) * soft

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "temperature": self.temperature, "alpha": self.alpha}


def _classes(teacher: Any, student: Any, label: Any, temperature: float) -> tuple[Any, Any]:
    one = ops.log_softmax(teacher / temperature, axis=-1)
    two = ops.log_softmax(student / temperature, axis=-1)
    soft = temperature**2 * ops.sum(ops.exp(one) * (one - two), axis=-1)
    return soft, -ops.sum(label * ops.log_softmax(student, axis=-1), axis=-1)


def _labels(teacher: Any, student: Any, label: Any, temperature: float) -> tuple[Any, Any]:
    one, two = teacher / temperature, student / temperature
    # KL = p (log p - log q) + (1 - p) (log(1-p) - log(1-q)), each log from the logits.
    yes = ops.sigmoid(one) * (ops.log_sigmoid(one) - ops.log_sigmoid(two))
    no = ops.sigmoid(-one) * (ops.log_sigmoid(-one) - ops.log_sigmoid(-two))
    soft = temperature**2 * ops.mean(yes + no, axis=-1)
    hard = label * ops.log_sigmoid(student) + (1.0 - label) * ops.log_sigmoid(-student)
    return soft, -ops.mean(hard, axis=-1)


def _numbers(teacher: Any, student: Any, label: Any, temperature: float) -> tuple[Any, Any]:
    soft = ops.mean(ops.square(teacher - student), axis=-1)
    return soft, ops.mean(ops.square(label - student), axis=-1)


_PAIRS = {"classes": _classes, "labels": _labels, "numbers": _numbers}


# === Targets ===


def pack(outputs: np.ndarray, kind: str, y: Any) -> np.ndarray:
    """(n, 2 k + 1): the teacher's logits, the labels, and whether there is one; float32.

    Args:
        outputs: The teacher's, (n, units).
        kind: Of the teacher's outputs, a key of `FORMS`.
        y: Class numbers (n,), -1 where the class isn't known, one-hot rows, or numbers; None for no
            labels at all.
    """
    found = keras.ops.convert_to_numpy(to_logits(outputs.astype(np.float32), kind))
    logits = np.asarray(found).reshape(len(outputs), -1)
    if not np.isfinite(logits).all():
        raise ValueError("`teacher` gives NaN or infinite values; its training has diverged.")
    label, known = np.zeros_like(logits), np.zeros((len(logits), 1), np.float32)
    if y is not None:
        label, known = _label_columns(np.asarray(y), logits.shape, FORMS[kind])
    return np.concatenate([logits, label, known], axis=1).astype(np.float32)


def _label_columns(
    y: np.ndarray, shape: tuple[int, ...], form: str
) -> tuple[np.ndarray, np.ndarray]:
    rows, units = shape
    everywhere = np.ones((rows, 1), np.float32)
    if form != "classes":
        if y.size != rows * units:
            raise ValueError(message("y", y, f"{units} values for each of {rows} rows"))
        return y.reshape(shape).astype(np.float32), everywhere
    if y.ndim == 2 and y.shape[1] == units:
        return y.astype(np.float32), everywhere
    if y.size != rows:
        expected = f"class numbers of shape ({rows},) or one-hot rows of shape ({rows}, {units})"
        raise ValueError(message("y", y, expected))
    numbers = y.reshape(rows)
    low, high = float(numbers.min()), float(numbers.max())
    if low < -1 or high >= units or not np.array_equal(numbers, np.round(numbers)):
        raise ValueError(
            f"`y` has values from {low:g} to {high:g}; expected class numbers from 0 to "
            f"{units - 1}, and -1 for rows without a label."
        )
    numbers = numbers.astype(np.int64)
    is_known = numbers >= 0
    label = np.eye(units, dtype=np.float32)[np.maximum(numbers, 0)] * is_known[:, None]
    return label, is_known[:, None].astype(np.float32)
