"""Checks of what `Batches` is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bigzoo._errors import message
from bigzoo.data._rows import as_rows, blocks, leaves

Augmenter = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]


def check_class_names(class_names: Any, y: Any) -> tuple[str, ...] | None:
    """The names as a tuple, or an error if they repeat or don't fit the labels."""
    if class_names is None:
        return None
    expected = 'the names of the classes, such as ("cat", "dog")'
    if isinstance(class_names, (str, bytes)) or not hasattr(class_names, "__iter__"):
        raise TypeError(message("class_names", class_names, expected))
    names = tuple(str(name) if isinstance(name, str) else name for name in class_names)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(message("class_names", names, expected))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            message("class_names", names, f"each name once ({repeated[0]!r} is there twice)")
        )
    if y is not None and hasattr(y, "shape"):
        _check_labels_fit(names, y)
    return names


def _check_labels_fit(names: tuple[str, ...], y: Any) -> None:
    columns = int(y.shape[1]) if len(y.shape) == 2 else 1
    if len(y.shape) == 2 and columns > 1 and columns != len(names):
        raise ValueError(
            f"`class_names` has {len(names)} names and `y` has {columns} columns; expected one "
            "name per column."
        )
    if columns != 1 or len(y.shape) > 2 or np.dtype(y.dtype).kind not in "iub":
        return
    low = min(int(block.min()) for block in blocks(y))
    high = max(int(block.max()) for block in blocks(y))
    if low < 0 or high >= len(names):
        raise ValueError(
            f"`y` has labels from {low} to {high} and `class_names` has {len(names)} names; "
            f"expected labels from 0 to {len(names) - 1}. Renumber them with `np.unique(y, "
            "return_inverse=True)`, or give as many names as there are classes."
        )


def check_weights(sample_weight: Any, y: Any) -> Any:
    if sample_weight is None:
        return None
    if y is None:
        raise ValueError("`sample_weight` is given without `y`; expected targets to be weighted.")
    weights = as_rows("sample_weight", sample_weight)
    if isinstance(weights, (dict, tuple)) or len(weights.shape) != 1:
        raise ValueError(
            message("sample_weight", sample_weight, "one number per sample, shape (n,)")
        )
    for block in blocks(weights):
        if not bool(np.all(np.isfinite(block) & (block >= 0))):
            raise ValueError("`sample_weight` has negative, NaN or infinite values; expected >= 0.")
    return weights


def check_augment(augment: Any) -> Augmenter | None:
    if augment is None or callable(augment):
        return augment
    expected = "None or a function augment(x, y, rng) -> (x, y)"
    raise TypeError(message("augment", augment, expected))


def check_augmented(result: Any, x: Any) -> tuple[Any, Any]:
    """What `augment` gave back, if it is a pair with as many samples as it was given."""
    expected = "a tuple (x, y)"
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(message("augment(x, y, rng)", result, expected))
    given, made = len(next(leaves("x", x))[1]), next(leaves("x", result[0]))[1]
    if len(getattr(made, "shape", ())) == 0:
        raise TypeError(message("augment(x, y, rng)[0]", made, "an array"))
    if int(made.shape[0]) != given:
        raise ValueError(
            message("augment(x, y, rng)[0]", made, f"{given} samples, as it was given")
        )
    return result


def check_selection(rows: Any, count: int) -> np.ndarray:
    index = np.asarray(rows)
    if index.ndim != 1 or index.dtype.kind not in "iu" or len(index) == 0:
        raise TypeError(message("rows", rows, "row numbers: integers of shape (m,), at least one"))
    index = index.astype(np.int64)
    if index.min() < 0 or index.max() >= count or len(np.unique(index)) != len(index):
        raise ValueError(message("rows", rows, f"distinct row numbers from 0 to {count - 1}"))
    return index
