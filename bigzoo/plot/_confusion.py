"""Confusion matrix with precision and recall."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigzoo.plot._figure import LIGHT, check_axes, new_figure
from bigzoo.plot._labels import check_class_names, check_range, to_labels

_MOST_NUMBERS = 25  # with more classes the numbers in the cells can't be read
_MOST_NAMES = 60


def confusion(y_true: Any, y_pred: Any, class_names: Any = None, *, ax: Any = None) -> Any:
    """Draw how often each class was taken for each other, with precision and recall.

    Rows are true classes, columns predicted ones. The shade of a cell is its share of its row.
    The last column has each class's recall (the share of its samples that was found), the last
    row its precision (the share of predictions of it that was right); "–" stands where a class
    has no sample or was never predicted. With more than 25 classes there are no numbers.

    Args:
        y_true: True labels: integers (n,) or (n, 1), one-hot rows (n, classes), or names.
        y_pred: Predicted labels, probabilities or logits (n, classes), or probabilities of
            class 1 (n,) or (n, 1), of which 0.5 and more counts as class 1.
        class_names: One name per class; None writes the numbers.
        ax: Axes to draw on; None makes a figure.

    Returns:
        A new `matplotlib.figure.Figure`, or `ax` if given.

    Raises:
        TypeError, ValueError: if the lengths differ, or labels are negative or have no name.

    Example:
        >>> figure = bz.plot.confusion([0, 0, 1, 1], [0, 1, 1, 1], ["cat", "dog"])
        >>> figure.axes[0].get_title()
        'accuracy 75.0% of 4'
    """
    names = check_class_names(class_names)
    true, _ = to_labels("y_true", y_true, names)
    guess, _ = to_labels("y_pred", y_pred, names)
    if len(true) != len(guess):
        got = f"`y_true` has {len(true)} rows and `y_pred` {len(guess)}"
        raise ValueError(f"{got}; expected as many of one as of the other.")
    check_range("y_true", true, names)
    check_range("y_pred", guess, names)
    count = len(names) if names else int(max(true.max(), guess.max(), 1)) + 1
    if count > 5000:
        raise ValueError(f"The largest label is {count - 1}; expected at most 5,000 classes.")
    shown = names or tuple(map(str, range(count)))
    matrix, precision, recall = count_confusion(true, guess, count)

    result = ax
    if ax is None:
        side = min(11.0, 2.6 + 0.62 * count)
        result = new_figure(side + 0.4, side)
        ax = result.add_subplot()
    check_axes(ax)
    _draw(ax, matrix, precision, recall, shown)
    return result


def count_confusion(
    true: np.ndarray, guess: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrix (rows true, columns predicted), precision and recall (NaN where undefined)."""
    pairs = true.astype(np.int64) * count + guess
    matrix = np.bincount(pairs, minlength=count * count).reshape(count, count)
    right = np.diag(matrix).astype(float)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)
    nothing = np.full(count, np.nan)
    precision = np.divide(right, predicted, out=nothing.copy(), where=predicted > 0)
    recall = np.divide(right, actual, out=nothing.copy(), where=actual > 0)
    return matrix, precision, recall


def _draw(
    ax: Any,
    matrix: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
    names: tuple[str, ...],
) -> None:
    count = len(names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_title(f"accuracy {np.trace(matrix) / matrix.sum():.1%} of {matrix.sum():,}")
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ticks = np.arange(count)
    if count > _MOST_NAMES:
        ticks = ticks[:: -(-count // 20)]
    shown = [_shorten(names[i]) for i in ticks]
    across, down = list(shown), list(shown)
    if count <= _MOST_NUMBERS:
        _write_numbers(ax, matrix, share)
        _write_scores(ax, precision, recall)
        ticks = np.append(ticks, count + 0.05)
        across.append("recall")
        down.append("precision")
    long = max(map(len, shown)) > 6 or count > 8
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(ticks, across, **turned)
    ax.set_yticks(ticks, down)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _font_size(count: int) -> float:
    return 11.0 if count <= 6 else 9.0 if count <= 12 else 6.5


def _write_numbers(ax: Any, matrix: np.ndarray, share: np.ndarray) -> None:
    size = _font_size(len(matrix))
    for row, column in np.ndindex(matrix.shape):
        color = "white" if share[row, column] > 0.55 else "black"
        text = f"{matrix[row, column]:,}"
        ax.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _write_scores(ax: Any, precision: np.ndarray, recall: np.ndarray) -> None:
    """A column for the recall and a row for the precision, set off in grey."""
    from matplotlib.patches import Rectangle

    count, size = len(recall), _font_size(len(recall))
    ax.set_xlim(-0.5, count + 0.55)
    ax.set_ylim(count + 0.55, -0.5)
    ax.add_patch(Rectangle((count - 0.45, -0.5), 1.0, count, color=LIGHT, linewidth=0))
    ax.add_patch(Rectangle((-0.5, count - 0.45), count, 1.0, color=LIGHT, linewidth=0))
    style = {"ha": "center", "va": "center", "fontsize": size, "color": "black"}
    for i in range(count):
        ax.text(count + 0.05, i, _percent(recall[i]), **style)
        ax.text(i, count + 0.05, _percent(precision[i]), **style)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}" if value < 1 else "100%"


def _shorten(name: str, limit: int = 20) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
