"""From what a classifier puts out to probabilities and labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.deploy._class_names import output_units
from bigzoo.deploy._predictions import Prediction

# Layers that hand on what they get, or only turn it around.
_PASS_THROUGH = ("Reshape", "Flatten", "Identity", "Dropout", "Activation")


def output_kind(model: keras.Model) -> str:
    """ "softmax", "sigmoid" (one unit), "multilabel" (sigmoid, several units), or the same with
    "_logits" behind it where the model's last layer has no activation."""
    units = output_units(model)
    if units is None:
        shape = getattr(model, "output_shape", None)
        got = f"`model` has the output shape {shape}"
        raise ValueError(f"{got}; expected one output (batch, classes) of known size.")
    if len(model.output_shape) != 2:
        got = f"`model` has the output shape {model.output_shape}"
        raise ValueError(f"{got}; expected (batch, classes): one answer per image.")
    activation = _last_activation(model)
    if activation == "softmax":
        if units == 1:
            fix = "One unit needs a sigmoid."
            raise ValueError(f"`model` has a softmax over one unit, which is always 1. {fix}")
        return "softmax"
    if activation == "sigmoid":
        return "sigmoid" if units == 1 else "multilabel"
    if activation in ("linear", None):
        return "sigmoid_logits" if units == 1 else "softmax_logits"
    expected = "softmax, sigmoid or none (logits)"
    raise ValueError(f"`model` ends in the activation {activation!r}; expected {expected}.")


def _last_activation(model: keras.Model) -> str | None:
    """Name of the activation that the model ends with; None if its last layer has none."""
    # A functional model's operations are its layers and whatever of `keras.ops` stands between.
    for layer in reversed(getattr(model, "operations", model.layers)):
        if isinstance(layer, keras.Model):
            return _last_activation(layer)
        kind = type(layer).__name__
        if kind in ("Softmax", "Sigmoid"):  # a layer, or an operation such as keras.ops.softmax
            return kind.lower()
        name = getattr(getattr(layer, "activation", None), "__name__", None)
        if name == "linear" and kind == "Activation":
            continue
        if name is not None or kind not in _PASS_THROUGH:
            return name
    return None


def to_probabilities(outputs: Any, kind: str) -> np.ndarray:
    """Probabilities (n, classes); two columns for a single sigmoid unit."""
    values = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("`model` puts out NaN or infinite values; its training has diverged.")
    if kind == "softmax_logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    elif kind == "sigmoid_logits":
        values = 0.5 * (1.0 + np.tanh(0.5 * values))  # doesn't overflow
    if kind.startswith("sigmoid"):
        return np.concatenate([1.0 - values, values], axis=1)
    return values


def to_prediction(
    path: str, probabilities: np.ndarray, names: tuple[str, ...], kind: str, top: int
) -> Prediction:
    """One row of the table from one row of probabilities."""
    by_name = {name: float(p) for name, p in zip(names, probabilities, strict=True)}
    # Equal probabilities go to class 1 of a sigmoid (p >= 0.5), else to the first class.
    turned = probabilities[::-1] if kind.startswith("sigmoid") else probabilities
    order = np.argsort(-turned, kind="stable")
    if kind.startswith("sigmoid"):
        order = len(names) - 1 - order
    ranked = [(names[i], float(probabilities[i])) for i in order]
    if kind != "multilabel":
        best = ranked[0]
        return Prediction(path, best[0], best[1], by_name, tuple(ranked[:top]))
    chosen = tuple((name, p) for name, p in ranked if p >= 0.5)
    if not chosen:
        return Prediction(path, "(none)", ranked[0][1], by_name)
    label = ", ".join(name for name, _ in chosen)
    return Prediction(path, label, chosen[-1][1], by_name, chosen)


def check_top(top: int, classes: int) -> int:
    """`top`, or an error if there aren't as many classes."""
    if top > classes:
        raise ValueError(message("top", top, f"at most {classes}, the number of classes"))
    return top
