"""Data, fitted line and residuals of a regression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bigzoo._errors import message
from bigzoo.plot._figure import BLUE, GREY, RED, check_axes, new_figure, tidy
from bigzoo.plot._labels import to_numpy

_MOST_POINTS = 5000  # more only darken the cloud; the figures in the title are of all points


def fit_line(x: Any, y: Any, model: Any, *, ax: Any = None) -> Any:
    """Draw data, the fitted line and the residuals of a regression with one output.

    With one feature: the data with the line, and the residuals (y minus prediction) over x. With
    several: the true values over the predicted ones, with the diagonal on which a perfect model
    would put them, and the residuals over the predicted values.

    Args:
        x: Features (n, features) or (n,), n at least 2, finite numbers.
        y: Targets (n,) or (n, 1).
        model: A Keras model, anything else with `predict(x)`, or the coefficients as the pair
            `(weights, bias)`: a number or one number per feature, and a number.
        ax: Axes to draw on; takes the data and the line, with the residuals as thin lines.

    Returns:
        A new `matplotlib.figure.Figure`, or `ax` if given.

    Raises:
        TypeError, ValueError: if lengths or the number of features differ.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0])
        >>> figure = bz.plot.fit_line(x, 2 * x + 1, (2.0, 1.0))
        >>> figure.axes[0].get_title()
        'MSE 0, R² 1.000'
    """
    features, target = _read(x, y)
    predicted = _predict(model, features)
    residuals = target - predicted
    figure = None
    if ax is None:
        figure = new_figure(9.0, 3.8)
        ax = figure.add_subplot(1, 2, 1)
    check_axes(ax)
    some = np.unique(np.linspace(0, len(target) - 1, _MOST_POINTS).astype(int))
    one = features.shape[1] == 1
    if one:
        _draw_line(ax, features[:, 0], target, predicted, some)
    else:
        _draw_diagonal(ax, target, predicted, some)
    ax.set_title(_title(target, residuals))
    if figure is None:
        return ax
    across = features[:, 0] if one else predicted
    _draw_residuals(figure.add_subplot(1, 2, 2), across, residuals, some, one)
    return figure


def _read(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    features, target = to_numpy("x", x), to_numpy("y", y)
    for name, array in (("x", features), ("y", target)):
        if array.dtype.kind not in "biuf":
            raise TypeError(message(name, array, "numbers"))
    if features.ndim == 1:
        features = features[:, np.newaxis]
    if features.ndim != 2:
        raise ValueError(message("x", features, "an array of shape (n, features) or (n,)"))
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim != 1:
        fix = "Draw one output at a time: `y[:, k]`."
        raise ValueError(message("y", target, "an array of shape (n,) or (n, 1)", fix))
    if len(features) != len(target):
        got = f"`x` has {len(features)} rows and `y` {len(target)}"
        raise ValueError(f"{got}; expected as many of one as of the other.")
    if len(target) < 2:
        raise ValueError(message("x", features, "at least 2 rows"))
    return features.astype(np.float64), target.astype(np.float64)


def _predict(model: Any, features: np.ndarray) -> np.ndarray:
    if callable(getattr(model, "predict", None)):
        return _predict_by_model(model, features)
    expected = "a Keras model, an object with `predict`, or the pair (weights, bias)"
    if not isinstance(model, (tuple, list)) or len(model) != 2:
        raise TypeError(message("model", model, expected))
    try:
        weights = np.asarray(model[0], dtype=np.float64).ravel()
        bias = float(np.asarray(model[1], dtype=np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise TypeError(message("model", model, expected)) from error
    if len(weights) != features.shape[1]:
        got = f"`model` has {len(weights)} weights, and `x` {features.shape[1]} features"
        raise ValueError(f"{got}; expected one weight per feature.")
    return features @ weights + bias


def _predict_by_model(model: Any, features: np.ndarray) -> np.ndarray:
    shape = getattr(model, "input_shape", None)
    expects = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
    if expects is not None and expects != features.shape[1]:
        got = f"`x` has {features.shape[1]} features"
        raise ValueError(f"{got}; expected {expects}, as many as the model takes.")
    # Only Keras models report a shape, and only they print a progress bar.
    options = {} if shape is None else {"verbose": 0}
    predicted = np.asarray(model.predict(features.astype(np.float32), **options), dtype=np.float64)
    if predicted.size != len(features):
        got = f"`model` predicts an array of shape {predicted.shape}"
        raise ValueError(f"{got}; expected ({len(features)}, 1): one number per row.")
    predicted = predicted.reshape(-1)  # (n, 1) against (n,) would broadcast to (n, n)
    if not np.isfinite(predicted).all():
        raise ValueError("`model` predicts NaN or infinite values; train it with a lower rate.")
    return predicted


def _title(target: np.ndarray, residuals: np.ndarray) -> str:
    mse = float(np.mean(residuals**2))
    spread = float(np.var(target))
    share = f", R² {1 - mse / spread:.3f}" if spread > 0 and math.isfinite(spread) else ""
    return f"MSE {mse:.4g}{share}"


def _draw_line(
    ax: Any, x: np.ndarray, y: np.ndarray, predicted: np.ndarray, some: np.ndarray
) -> None:
    order = np.argsort(x)
    if len(some) <= 300:
        ax.vlines(x[some], predicted[some], y[some], color=GREY, linewidth=0.6, alpha=0.7, zorder=1)
    _scatter(ax, x[some], y[some], "data")
    ax.plot(x[order], predicted[order], color=RED, linewidth=2, label="prediction", zorder=3)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    ax.legend(frameon=False, fontsize="small")
    tidy(ax)


def _draw_diagonal(ax: Any, y: np.ndarray, predicted: np.ndarray, some: np.ndarray) -> None:
    ends = [float(min(y.min(), predicted.min())), float(max(y.max(), predicted.max()))]
    if len(some) <= 300:
        at = predicted[some]
        ax.vlines(at, at, y[some], color=GREY, linewidth=0.6, alpha=0.7, zorder=1)
    _scatter(ax, predicted[some], y[some], "data")
    ax.plot(ends, ends, color=RED, linewidth=2, label="y = prediction", zorder=3)
    ax.set_xlabel("prediction")
    ax.set_ylabel("y")
    ax.legend(frameon=False, fontsize="small")
    tidy(ax)


def _draw_residuals(
    ax: Any, across: np.ndarray, residuals: np.ndarray, some: np.ndarray, one: bool
) -> None:
    _scatter(ax, across[some], residuals[some], "residuals")
    ax.axhline(0.0, color=RED, linewidth=2, zorder=3)
    ax.set_title(f"residuals: mean {residuals.mean():.2g}, deviation {residuals.std():.3g}")
    ax.set_xlabel("x" if one else "prediction")
    ax.set_ylabel("y − prediction")
    tidy(ax)


def _scatter(ax: Any, x: np.ndarray, y: np.ndarray, label: str) -> None:
    alpha = 0.8 if len(x) <= 300 else 0.3
    ax.scatter(x, y, s=16, color=BLUE, alpha=alpha, linewidths=0, label=label, zorder=2)
