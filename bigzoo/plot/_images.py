"""A grid of pictures with their labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bigzoo._errors import check_int, message
from bigzoo.plot._figure import WRONG, new_figure
from bigzoo.plot._labels import check_class_names, check_range, to_labels, to_numpy

_SCALE_FIX = "Undo the model's scaling first, such as `(x + 1) * 127.5` for values in -1–1."


def images(
    x: Any,
    y_true: Any = None,
    y_pred: Any = None,
    class_names: Any = None,
    *,
    columns: int = 6,
    limit: int = 24,
) -> Any:
    """Draw images in a grid, each with its true and its predicted label.

    A wrong prediction has a red frame, a cross, and the true label below it.

    Args:
        x: Images (n, height, width, channels) or (n, height, width), one image
            (height, width, channels), or a dataset of `bz.data`. uint8, or numbers in 0–255 or
            in 0–1; 1, 3 or 4 channels.
        y_true: True labels: integers (n,), one-hot rows, or names. A dataset brings its own.
        y_pred: Predicted labels, or probabilities (n, classes) or (n, 1) as `predict` gives them.
        class_names: One name per class. A dataset brings its own.
        columns: Images per row, at least 1.
        limit: Draw the first `limit` images at most.

    Returns:
        A new `matplotlib.figure.Figure`.

    Raises:
        TypeError, ValueError: if shapes, ranges or lengths don't fit.

    Example:
        >>> x = np.zeros((3, 8, 8, 3), "uint8")
        >>> figure = bz.plot.images(x, [0, 1, 1], [0, 1, 0], class_names=["cat", "dog"])
        >>> [ax.get_title() for ax in figure.axes]
        ['cat', 'dog', '✗ cat\\n(is dog)']
    """
    columns = check_int("columns", columns, 1)
    limit = check_int("limit", limit, 1)
    if class_names is None:
        class_names = getattr(x, "class_names", None)
    names = check_class_names(class_names)
    pictures, own_labels, total = _read(x, limit)
    if y_true is None:
        true, _ = _labels("y_true", own_labels, names, None)
    else:
        true, _ = _labels("y_true", y_true, names, total)
    guess, probability = _labels("y_pred", y_pred, names, total)

    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    lines = 0 if true is None and guess is None else 1 if guess is None or true is None else 2
    figure = new_figure(1.7 * columns, (1.7 + 0.2 * lines) * rows)
    for i, picture in enumerate(pictures):
        ax = figure.add_subplot(rows, columns, i + 1)
        _draw(ax, picture)
        _caption(
            ax,
            None if true is None else _name(true[i], names),
            None if guess is None else _name(guess[i], names),
            None if probability is None else float(probability[i]),
        )
    return figure


def _read(x: Any, limit: int) -> tuple[np.ndarray, Any, int]:
    """The first images as floats in 0–1, their labels if any, and how many images there are."""
    labels = None
    if hasattr(x, "take") and hasattr(x, "arrays"):  # a dataset of bz.data
        total = int(getattr(x, "num_samples", limit))
        x, labels = x.take(min(limit, total)).arrays()
        total = max(total, len(x))
    elif hasattr(x, "element_spec"):  # tf.data: its first batch
        batch = next(iter(x), None)
        x, labels = batch[:2] if isinstance(batch, tuple) and len(batch) > 1 else (batch, None)
        total = 0 if x is None else len(x)
    else:
        total = -1
    if isinstance(x, dict):
        raise TypeError(message("x", list(x), "one array of images", "Pick one by its key."))
    array = to_numpy("x", x)
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        array = array[np.newaxis]
    elif array.ndim == 3:
        array = array[..., np.newaxis]
    _check_shape(array)
    total = len(array) if total < 0 else total
    return _to_unit(array[:limit]), labels, total


def _check_shape(array: np.ndarray) -> None:
    expected = "images of shape (n, height, width, channels) with 1, 3 or 4 channels"
    if array.ndim == 4 and array.shape[-1] in (1, 3, 4):
        return
    fix = ""
    if array.ndim == 4 and array.shape[1] in (1, 3, 4):
        fix = "Channels come last: `numpy.moveaxis(x, 1, -1)`."
    raise ValueError(message("x", array, expected, fix))


def _to_unit(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise TypeError(message("x", array, "pixels: numbers in 0–255 or 0–1"))
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 255.5:
        got = f"`x` has values from {low:.4g} to {high:.4g}"
        raise ValueError(f"{got}; expected pixels in 0–255 or 0–1. {_SCALE_FIX}")
    # Whole-number pixels of type uint8 are 0–255 even if the picture is black.
    scale = 1.0 if array.dtype.kind in "bf" and high <= 1.001 else 255.0
    return np.clip(array.astype(np.float32) / scale, 0.0, 1.0)


def _labels(
    name: str, values: Any, names: tuple[str, ...] | None, total: int | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if values is None:
        return None, None
    labels, probability = to_labels(name, values, names)
    if total is not None and len(labels) != total:
        raise ValueError(f"`{name}` has {len(labels)} rows; expected {total}, one per image.")
    check_range(name, labels, names)
    return labels, probability


def _name(label: int, names: tuple[str, ...] | None) -> str:
    return str(label) if names is None else names[label]


def _draw(ax: Any, picture: np.ndarray) -> None:
    small = max(picture.shape[:2]) <= 48  # show the pixels of a tiny picture, not a blur
    options = {"interpolation": "nearest" if small else "antialiased"}
    if picture.shape[-1] == 1:
        ax.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1, **options)
    else:
        ax.imshow(picture, **options)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _caption(ax: Any, true: str | None, guess: str | None, probability: float | None) -> None:
    if guess is None:
        ax.set_title(true or "", fontsize="small")
        return
    text = guess if probability is None else f"{guess} {probability:.0%}"
    if true is None or guess == true:
        ax.set_title(text, fontsize="small")
        return
    ax.set_title(f"✗ {text}\n(is {true})", fontsize="small", color=WRONG, fontweight="bold")
    ax.spines[:].set(visible=True, color=WRONG, linewidth=2.5)
