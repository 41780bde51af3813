"""The curve of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bigzoo._errors import message
from bigzoo.plot._figure import BLUE, GREY, RED, check_axes, new_figure, tidy


def learning_rate(result: Any, *, ax: Any = None) -> Any:
    """Draw the loss over the learning rate, with the rate that the test suggests.

    Args:
        result: What `bz.find_learning_rate` returned, or a dict with "learning_rates" and "losses"
            (smoothed, one number per step) and, where known, "suggestion" (a rate) and
            "raw_losses" (of single batches, drawn thin).
        ax: Axes to draw on; None makes a figure.

    Returns:
        A new `matplotlib.figure.Figure`, or `ax` if given.

    Raises:
        TypeError: if `result` has no such curves.
        ValueError: if they differ in length or no loss is finite.

    Example:
        >>> curve = {"learning_rates": [1e-4, 1e-3, 1e-2], "losses": [0.7, 0.4, 2.0]}
        >>> figure = bz.plot.learning_rate({**curve, "suggestion": 1e-3})
        >>> figure.axes[0].get_title()
        'suggested learning rate 0.001'
    """
    rates, losses = _curve(result, "learning_rates"), _curve(result, "losses")
    if len(rates) != len(losses) or not len(rates):
        got = f"`result` has {len(rates)} learning rates and {len(losses)} losses"
        raise ValueError(f"{got}; expected one loss per rate, at least one.")
    usable = np.isfinite(losses) & (rates > 0)
    if not usable.any():
        raise ValueError("`result` has no finite loss; start the test at a lower learning rate.")
    figure = None
    if ax is None:
        figure = new_figure(6.0, 3.8)
        ax = figure.add_subplot()
    check_axes(ax)
    _draw(ax, result, rates, losses, usable)
    return ax if figure is None else figure


def _get(result: Any, name: str) -> Any:
    return result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)


def _curve(result: Any, name: str) -> np.ndarray:
    values = _get(result, name)
    expected = "a result of `bz.find_learning_rate` with `learning_rates` and `losses`"
    if values is None:
        raise TypeError(message("result", result, expected))
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise TypeError(message(f"result.{name}", values, "numbers")) from error


def _draw(ax: Any, result: Any, rates: np.ndarray, losses: np.ndarray, usable: np.ndarray) -> None:
    if _get(result, "raw_losses") is not None:
        raw = _curve(result, "raw_losses")
        if len(raw) == len(rates):
            ax.plot(rates, raw, color=GREY, linewidth=0.8, alpha=0.7, label="loss of one batch")
    ax.plot(rates[usable], losses[usable], color=BLUE, linewidth=2, label="loss")
    suggestion = _get(result, "suggestion")
    if suggestion is not None:
        text = f"suggested learning rate {float(suggestion):.2g}"
        ax.axvline(float(suggestion), color=RED, linestyle="--", linewidth=2, label="suggested")
        ax.set_title(text)
    _limit(ax, losses[usable])
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    tidy(ax)
    ax.legend(frameon=False, fontsize="small")


def _limit(ax: Any, curve: np.ndarray) -> None:
    """Cut off the explosion at the end: it would press the part that matters into a flat line."""
    start, low = float(curve[0]), float(curve.min())
    top = start + 1.0 * max(start - low, 0.05 * abs(start), 1e-8)
    if float(curve.max()) > top:
        ax.set_ylim(low - 0.08 * (top - low), top)
