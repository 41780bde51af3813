"""Real samples to calibrate on and to compare with, checked against the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo.compress._data import rows, spread, take
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._inference import TRAINING_ONLY
from bigzoo.deploy._signature import (
    Signature,
    example_inputs,
    nest_inputs,
    signature_of,
    to_flat,
)

_CALIBRATED = 100  # more samples change the ranges of activations no further
_FEWEST = 40  # below, all rows are used for both: too few would be left to compare on
_MADE_UP = 64
_LOOKED_AT = 64  # rows on which BatchNormalization is checked
_FAR = 1000.0  # times the variance that the model was trained on


@dataclass(frozen=True)
class Samples:
    """What a quantised model is calibrated on and what it is compared on.

    Attributes:
        calibration: One array per input; None without data.
        flat: The rows to compare on, one array per input.
        x: The same in the form that the model takes.
        y: Their targets, or None.
        note: What a reader of the figures must know, or "".
    """

    calibration: list[np.ndarray] | None
    flat: list[np.ndarray]
    x: Any
    y: Any
    note: str


def samples_of(model: keras.Model, data: Any, most: int, seed: int) -> Samples:
    """Rows of `data`, split; made-up inputs where it is None."""
    signature = signature_of(model)
    if data is None:
        flat = example_inputs(model, _MADE_UP, seed)
        note = "Compared on made-up inputs, not on data: give `calibration` for figures to trust."
        return Samples(None, flat, nest_inputs(signature, flat), None, note)
    x, y = rows(data, most, "calibration")
    flat = _checked(model, signature, x)
    check_scale(model, flat)
    total = len(flat[0])
    if total < _FEWEST:
        note = f"Calibrated and compared on the same {total} rows: give {_FEWEST} or more."
        return Samples(flat, flat, nest_inputs(signature, flat), y, note)
    chosen = spread(total, min(_CALIBRATED, max(8, total // 4)))
    others = np.setdiff1d(np.arange(total), chosen)
    held_out = take(flat, others)
    return Samples(
        take(flat, chosen),
        held_out,
        nest_inputs(signature, held_out),
        None if y is None else take(y, others),
        f"Compared on {len(others):,} rows that were not used for the calibration.",
    )


def _checked(model: keras.Model, signature: Signature, x: Any) -> list[np.ndarray]:
    try:
        flat = to_flat(signature, x)
    except (ValueError, TypeError) as error:
        text = f"`calibration` doesn't fit the model {model.name!r}: {error}"
        raise type(error)(text) from error
    for array in flat:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("`calibration` has NaN or infinite values; expected finite numbers.")
    return flat


# === Scale ===


def check_scale(model: keras.Model, flat: list[np.ndarray]) -> None:
    """An error where the samples surely have another scale than the model was trained on.

    Ranges that are measured on such samples are wrong for all others. Three layers tell the scale:
    a `Rescaling` by 1/64 or less takes pixels 0-255; a `Normalization` has the mean and the
    variance of its training data; and a `BatchNormalization` those of what reaches it. Only what
    can't be chance is an error.
    """
    if len(flat) != 1 or flat[0].dtype.kind not in "fiu":
        return
    first = _first_layer(model)
    if isinstance(first, keras.layers.Rescaling):
        _check_rescaling(first, flat[0])
    elif isinstance(first, keras.layers.Normalization):
        _check_normalization(first, flat[0])
    _check_batch_normalization(model, flat[0])


def _first_layer(model: keras.Model) -> Any:
    """The first layer that changes numbers, in models inside the model too."""
    passes = (keras.layers.InputLayer, keras.layers.Resizing, *TRAINING_ONLY)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return _first_layer(layer)
        if not isinstance(layer, passes):
            return layer
    return None


def _check_rescaling(layer: Any, x: np.ndarray) -> None:
    scale = float(np.max(np.abs(np.asarray(layer.scale, np.float64))))
    low, high = float(x.min()), float(x.max())
    # Black-and-white images of 0 and 1 may be pixels; fractions below 1 aren't.
    fractions = high <= 1.0 and not np.array_equal(x, np.round(x))
    standardised = low < 0 and high < 16
    if scale <= 1 / 64 and (fractions or standardised):
        raise ValueError(
            f"`calibration` has values from {low:.3g} to {high:.3g}, and the model's layer "
            f"{layer.name!r} scales pixels itself; expected pixels from 0 to 255. Give the images "
            "as they were before any scaling, such as `255 * x`."
        )


def _check_normalization(layer: Any, x: np.ndarray) -> None:
    mean, variance = getattr(layer, "mean", None), getattr(layer, "variance", None)
    if mean is None or variance is None or len(x) < 10:
        return
    mean = np.asarray(keras.ops.convert_to_numpy(mean), np.float64)
    deviation = np.sqrt(np.asarray(keras.ops.convert_to_numpy(variance), np.float64))
    scores = (x - mean) / np.maximum(deviation, 1e-6)
    far, spread = float(np.median(np.abs(scores))), float(np.median(scores.std(axis=0)))
    if far > 30 or spread < 0.02:
        raise ValueError(
            f"`calibration` has another scale than what the layer {layer.name!r} was adapted to: "
            f"the median value lies {far:.2g} standard deviations from its mean, with a spread of "
            f"{spread:.2g}; expected about 0.7 and 1. Give data as the model was trained on."
        )


def _check_batch_normalization(model: keras.Model, x: np.ndarray) -> None:
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not found:
        return
    layer = found[0]
    try:
        before = keras.Model(model.inputs[0], layer.input)
    except (AttributeError, ValueError):  # reached by way of another model
        return
    expected = np.asarray(keras.ops.convert_to_numpy(layer.moving_variance), np.float64)
    values = np.asarray(CompiledCall(before)(x[:_LOOKED_AT]), np.float64)
    axis = layer.axis if layer.axis >= 0 else values.ndim + layer.axis
    got = values.var(axis=tuple(i for i in range(values.ndim) if i != axis))
    ratio = float(np.median(got / np.maximum(expected, 1e-12)))
    # After few steps the moving variance is still near 1, where it began: only a larger one is
    # evidence that the training data varied more.
    grown = float(np.median(expected)) > 2.0
    if ratio > _FAR or (ratio < 1 / _FAR and grown):
        raise ValueError(
            f"`calibration` has another scale than the training data: what reaches {layer.name!r} "
            f"varies {ratio:.2g} times as much as it did in training; expected about 1. Give data "
            "as the model was trained on, such as pixels from 0 to 255 instead of 0 to 1."
        )
