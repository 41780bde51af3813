"""What the first convolution of a network looks for."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, message
from bigzoo.plot._figure import new_figure
from bigzoo.plot._graph import check_graph, named

_KINDS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)


def filters(model: keras.Model, layer: Any = None, *, columns: int = 8, limit: int = 64) -> Any:
    """Draw the filters of a convolution, one small picture each.

    Filters over three channels, as in a first layer, are drawn in colour: each is stretched so
    that its least weight is 0 and its largest 1. Others are drawn by their mean over the channels
    they read, on a scale that all of them share: red above zero, blue below. Deep layers' filters
    say little by themselves; `bz.plot.grad_cam` shows where such a layer sees something.

    Args:
        model: A Keras model with a 2-D convolution.
        layer: Name of the convolution; None takes the first one.
        columns: Pictures per row, at least 1.
        limit: Draw the first `limit` filters at most.

    Returns:
        A new `matplotlib.figure.Figure`.

    Raises:
        TypeError, ValueError: if the model has no such convolution.

    Example:
        >>> model = bz.models.cnn((32, 32, 3), num_classes=2)
        >>> figure = bz.plot.filters(model)
        >>> figure.get_suptitle()
        'stem_conv: 32 filters of 3 × 3'
    """
    columns = check_int("columns", columns, 1)
    limit = check_int("limit", limit, 1)
    operation = _find(model, layer)
    kernels = _kernels(operation)
    count, height, width, channels = kernels.shape
    shown = kernels[:limit]
    columns = min(columns, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(0.85 * columns, 4.2), 0.85 * rows + 0.6)
    scale = float(np.abs(shown.mean(axis=-1)).max()) or 1.0
    for place, kernel in enumerate(shown, start=1):
        ax = figure.add_subplot(rows, columns, place)
        if channels == 3:
            ax.imshow(_stretch(kernel), interpolation="nearest")
        else:
            mean = kernel.mean(axis=-1)
            ax.imshow(mean, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set(linewidth=0.5, color="black")
    some = f"the first {len(shown)} of {count}" if count > len(shown) else str(count)
    figure.suptitle(f"{operation.name}: {some} filters of {height} × {width}")
    return figure


def _find(model: Any, layer: Any) -> Any:
    if layer is not None:
        found = named(model, layer, "a 2-D convolution")
        if not isinstance(found, _KINDS):
            expected = "the name of a 2-D convolution"
            raise ValueError(message("layer", f"{found.name}: {type(found).__name__}", expected))
        return found
    for one in _all(check_graph(model)):
        if isinstance(one, _KINDS):
            return one
    raise ValueError(message("model", model.name, "a model with a 2-D convolution"))


def _all(operations: list[Any]) -> Any:
    for one in operations:
        if isinstance(one, keras.Model):
            yield from _all(list(one.layers))
        else:
            yield one


def _kernels(layer: Any) -> np.ndarray:
    """(filters, height, width, channels), float32."""
    weight = next(one for one in layer.weights if len(one.shape) == 4)
    kernel = np.asarray(keras.ops.convert_to_numpy(weight), dtype=np.float32)
    if isinstance(layer, keras.layers.DepthwiseConv2D):  # (h, w, channels, multiplier)
        return np.moveaxis(kernel.reshape(*kernel.shape[:2], -1), -1, 0)[..., np.newaxis]
    if isinstance(layer, keras.layers.Conv2DTranspose):  # (h, w, out, in)
        return np.moveaxis(kernel, 2, 0)
    return np.moveaxis(kernel, 3, 0)


def _stretch(kernel: np.ndarray) -> np.ndarray:
    low, high = float(kernel.min()), float(kernel.max())
    return (kernel - low) / (high - low) if high > low else np.full_like(kernel, 0.5)
