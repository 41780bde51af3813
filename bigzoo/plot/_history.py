"""Curves of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bigzoo._errors import message
from bigzoo.plot._figure import BLUE, GREY, RED, check_axes, new_figure, tidy

# Keras logs the schedule's value beside the metrics; it comes last, and validation has none.
_LAST = ("learning_rate", "lr")


def history(history: Any, *, metric: str | None = None, ax: Any = None) -> Any:
    """Draw loss and metrics over the epochs, for training and validation data.

    One panel for the loss and one for each metric. The best epoch, the one with the lowest
    validation loss (training loss where there is no validation), is marked in every panel. With
    `validation_freq=k` the validation values stand at every k-th epoch.

    Args:
        history: What `bz.fit` or `model.fit` returned (`keras.callbacks.History`), or its dict
            `{"loss": [...], "val_loss": [...], ...}` with one number per epoch.
        metric: Draw this one only, such as "loss" or "accuracy"; None draws all.
        ax: Axes to draw on; takes one panel, so it needs `metric` or a history of the loss alone.

    Returns:
        A new `matplotlib.figure.Figure` (`savefig` works, a notebook shows it), or `ax` if given.

    Raises:
        TypeError: if `history` is neither a History nor a dict of lists of numbers.
        ValueError: if it has no epoch, or no such metric.

    Example:
        >>> log = {"loss": [0.9, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]}
        >>> figure = bz.plot.history(log)
        >>> len(figure.axes)
        1
    """
    curves, epochs = _read(history)
    names = _panel_names(curves, metric)
    best = _best_epoch(curves, epochs)
    if ax is not None:
        check_axes(ax)
        if len(names) > 1:
            fix = f'Choose one, such as `metric="{names[0]}"`.'
            raise ValueError(f"`ax` takes one panel, but the history has {names}. {fix}")
        _draw(ax, names[0], curves, epochs, best)
        return ax
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(1.0 + 4.2 * columns, 0.3 + 3.1 * rows)
    for position, name in enumerate(names, start=1):
        _draw(figure.add_subplot(rows, columns, position), name, curves, epochs, best)
    return figure


def _read(history: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The curves by name, and the number of each epoch, counted from 1."""
    log = getattr(history, "history", history)
    expected = "a History as `fit` returns it, or its dict of lists"
    if not isinstance(log, Mapping):
        raise TypeError(message("history", history, expected))
    curves = {}
    for name, values in log.items():
        if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
            raise TypeError(message(f"history[{name!r}]", values, "a list, one number per epoch"))
        try:
            curves[str(name)] = np.array([float(value) for value in values])
        except (TypeError, ValueError) as error:
            fix = "one number per epoch"
            raise TypeError(message(f"history[{name!r}]", values, fix)) from error
    curves = {name: values for name, values in curves.items() if len(values)}
    if not curves:
        raise ValueError(message("history", log, "at least one epoch", "Train first."))
    count = max(map(len, curves.values()))
    numbers = getattr(history, "epoch", None)
    if not isinstance(numbers, Sequence) or len(numbers) != count:
        numbers = range(count)
    return curves, np.array([int(number) + 1 for number in numbers])


def _panel_names(curves: Mapping[str, np.ndarray], metric: str | None) -> list[str]:
    names = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    names.sort(key=lambda name: (name in _LAST, name != "loss", not name.endswith("_loss")))
    if metric is None:
        return names
    if metric not in names:
        raise ValueError(message("metric", metric, f"one of {names}"))
    return [metric]


def _epochs_of(values: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """Epoch numbers of a curve that may have a value at every k-th epoch only."""
    step = max(1, len(epochs) // len(values))
    return epochs[step - 1 :: step][: len(values)]


def _best_epoch(curves: Mapping[str, np.ndarray], epochs: np.ndarray) -> int | None:
    values = curves.get("val_loss", curves.get("loss"))
    if values is None or not np.isfinite(values).any() or len(epochs) < 2:
        return None
    lowest = np.where(np.isfinite(values), values, np.inf).argmin()
    return int(_epochs_of(values, epochs)[lowest])


def _draw(
    ax: Any, name: str, curves: Mapping[str, np.ndarray], epochs: np.ndarray, best: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    title = name.replace("_", " ")
    marker_size = 4.0 if len(epochs) <= 40 else 0.0
    styles = (
        (name, title if name in _LAST else "training", BLUE, "-", "o"),
        (f"val_{name}", "validation", RED, "--", "s"),
    )
    for key, label, color, line, marker in styles:
        if key not in curves:
            continue
        values, at = curves[key], _epochs_of(curves[key], epochs)
        size = marker_size if len(at) > 1 else 6.0
        ax.plot(at, values, line, color=color, marker=marker, markersize=size, label=label)
        if not np.isfinite(values).all():
            ax.plot(
                [], [], " ", label=f"{label}: NaN or infinite in {(~np.isfinite(values)).sum()}"
            )
    if best is not None:
        _mark_best(ax, name, curves, epochs, best)
    tidy(ax)
    ax.set_title(title)
    ax.set_xlabel("epoch")
    ax.set_ylabel(title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")


def _mark_best(
    ax: Any, name: str, curves: Mapping[str, np.ndarray], epochs: np.ndarray, best: int
) -> None:
    values = curves.get(f"val_{name}", curves.get(name))
    if values is None:
        return
    value = dict(zip(_epochs_of(values, epochs).tolist(), values, strict=False)).get(best)
    text = f"best epoch {best}" if value is None else f"best epoch {best}: {value:.4g}"
    ax.axvline(best, color=GREY, linestyle=":", linewidth=1.2, label=text, zorder=1)
    if value is not None:
        ax.plot([best], [value], "o", color=GREY, markersize=10, fillstyle="none", zorder=3)
