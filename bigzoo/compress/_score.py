"""One number for how good a model is: accuracy for classifiers, the loss for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.compress._data import outputs_of
from bigzoo.deploy._scores import output_kind


def score(
    call: Callable[[Any], Any], x: Any, y: Any, model: keras.Model, batch_size: int = 64
) -> tuple[str, float]:
    """Name and value of the score of `call` on (x, y): "accuracy", else "loss" or "mse".

    Args:
        call: What is scored: `model` itself, or a smaller one that takes and gives the same.
        x: Inputs as numpy arrays, in the form that `call` takes.
        y: Targets in the form of the outputs: class numbers, one-hot rows, or numbers.
        model: The model whose last layer and loss say what the outputs mean.
        batch_size: Rows per call.

    Returns:
        ("accuracy", share of right answers from 0 to 1), or ("loss", mean of the loss that `model`
        is compiled with), or ("mse", mean squared error) where it isn't compiled.
    """
    outputs = outputs_of(call, x, batch_size)
    return score_outputs(outputs, y, model)


def score_outputs(outputs: Any, y: Any, model: keras.Model) -> tuple[str, float]:
    """As `score`, from outputs that are there already."""
    one = not isinstance(outputs, (dict, list, tuple))
    if one and not isinstance(y, (dict, list, tuple)):
        right = _right_answers(np.asarray(outputs), np.asarray(y), model)
        if right is not None:
            return "accuracy", float(np.mean(right))
        loss = _single_loss(model)
        if loss is not None:
            return "loss", float(np.mean(np.asarray(loss(y, outputs))))
    elif getattr(model, "compiled", False):
        value = model.compute_loss(y=y, y_pred=outputs)
        return "loss", float(keras.ops.convert_to_numpy(value))
    return "mse", _squared_error(y, outputs)


def is_classifier(model: keras.Model, y: Any = None) -> bool:
    """Whether the only output of `model` are scores of classes.

    A softmax says so itself; so does a sigmoid, unless `y` are numbers between 0 and 1, such as
    pixels. A linear layer means logits if the loss that the model is compiled with is a
    cross-entropy, or, if there is no loss, if `y` are class numbers.
    """
    kind = kind_of(model)
    if kind is None:
        return False
    if not kind.endswith("_logits"):
        return kind == "softmax" or y is None or bool(np.isin(np.asarray(y), (0, 1)).all())
    name = loss_name(model)
    if name is not None:
        return "crossentropy" in name or "cross_entropy" in name
    units = int(model.output_shape[-1])
    return y is not None and _are_classes(np.asarray(y), max(units, 2), units)


def classes_of(model: keras.Model, y: Any = None) -> str | None:
    """How `difference` reads classes from the outputs; None where they are no classes."""
    if not is_classifier(model, y):
        return None
    kind = kind_of(model)
    # Several linear units with a binary cross-entropy are one question each.
    independent = kind == "softmax_logits" and "binary" in (loss_name(model) or "")
    return "multilabel_logits" if independent else kind


def kind_of(model: keras.Model) -> str | None:
    """What `bigzoo.deploy` calls the kind of the outputs; None if they aren't rows of scores."""
    try:
        return output_kind(model)
    except ValueError:
        return None


# === Details ===


def _right_answers(outputs: np.ndarray, y: np.ndarray, model: keras.Model) -> np.ndarray | None:
    """Whether each answer is right; None where the outputs aren't scores of classes."""
    kind = classes_of(model, y)
    if kind is None:
        return _right_tokens(outputs, y, model)
    boundary = 0.0 if kind.endswith("_logits") else 0.5
    if kind.startswith("multilabel"):
        return (outputs >= boundary) == (y.reshape(outputs.shape) >= 0.5)
    if kind.startswith("sigmoid"):
        return (outputs[:, 0] >= boundary) == (_labels(y, 2) >= 0.5)
    return np.argmax(outputs, axis=-1) == _labels(y, outputs.shape[-1])


def _right_tokens(outputs: np.ndarray, y: np.ndarray, model: keras.Model) -> np.ndarray | None:
    """For one answer per place, as of a model that tags words: labels of shape (n, places)."""
    is_long = outputs.ndim >= 3 and outputs.shape[-1] > 1
    if not is_long or y.shape != outputs.shape[:-1] or y.dtype.kind not in "iu":
        return None
    name = loss_name(model)
    if name is not None and "crossentropy" not in name:
        return None
    return np.argmax(outputs, axis=-1) == y


def _labels(y: np.ndarray, units: int) -> np.ndarray:
    """Class numbers of shape (n,), from such, from a column of them, or from one-hot rows."""
    if y.ndim == 2 and y.shape[1] == units and units > 1:
        return np.argmax(y, axis=1)
    if y.size != len(y):
        expected = f"class numbers of shape (n,) or one-hot rows of shape (n, {units})"
        raise ValueError(message("y", y, expected))
    return y.reshape(len(y))


def _are_classes(y: np.ndarray, classes: int, units: int) -> bool:
    if y.ndim == 2 and y.shape[1] == units > 1:
        return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())
    if y.size != len(y) or y.dtype.kind not in "iub":
        return False
    return bool(y.min() >= 0 and y.max() < classes)


def loss_name(model: keras.Model) -> str | None:
    """Name of the only loss that the model is compiled with, such as "mse"; None without one."""
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    if loss is None or isinstance(loss, (dict, list, tuple)):
        return None
    name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = name or getattr(loss, "__name__", type(loss).__name__)
    return str(name).lower()


def _single_loss(model: keras.Model) -> Callable[[Any, Any], Any] | None:
    """The loss that the model is compiled with, as a function of numpy arrays."""
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    # Keras itself finds the function for these two, by the shape of the targets.
    if loss is None or isinstance(loss, (dict, list, tuple)) or loss in ("crossentropy", "ce"):
        return None
    function = keras.losses.get(loss)

    def in_numpy(y: Any, outputs: Any) -> np.ndarray:
        # A vector against a column would broadcast to a square.
        y = y.reshape(outputs.shape) if y.size == outputs.size else y
        y = y.astype(outputs.dtype) if y.dtype.kind == "f" else y
        found = function(keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(outputs))
        return np.asarray(keras.ops.convert_to_numpy(found))

    return in_numpy


def _squared_error(y: Any, outputs: Any) -> float:
    pairs = list(zip(keras.tree.flatten(y), keras.tree.flatten(outputs), strict=True))
    errors = []
    for expected, got in pairs:
        expected, got = np.asarray(expected, np.float64), np.asarray(got, np.float64)
        if expected.size != got.size:
            raise ValueError(
                f"`y` has the shape {expected.shape} and the outputs {got.shape}; expected targets "
                "in the form of the outputs."
            )
        errors.append(np.mean(np.square(expected.reshape(got.shape) - got)))
    return float(np.sum(errors))
