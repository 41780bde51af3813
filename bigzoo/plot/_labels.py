"""Class labels out of whatever holds them: integers, names, one-hot rows, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigzoo._errors import message


def to_numpy(name: str, values: Any) -> np.ndarray:
    """`values` as a numpy array that isn't empty; tensors of any backend and lists are welcome."""
    if values is None or isinstance(values, (str, bytes, dict)):
        raise TypeError(message(name, values, "an array"))
    if hasattr(values, "detach"):  # a torch tensor that wants gradients refuses numpy
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        fix = "All rows must have the same shape."
        raise ValueError(message(name, type(values).__name__, "an array", fix)) from error
    if array.ndim == 0 or array.size == 0:
        raise ValueError(message(name, array, "at least one row"))
    if str(array.dtype) == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"`{name}` has NaN or infinite values; expected finite numbers.")
    return array


def check_class_names(class_names: Any) -> tuple[str, ...] | None:
    """`class_names` as a tuple of str, or None."""
    if class_names is None:
        return None
    expected = "a list of names, one per class"
    if isinstance(class_names, (str, bytes)) or not isinstance(class_names, (Sequence, np.ndarray)):
        raise TypeError(message("class_names", class_names, expected))
    if len(class_names) == 0:
        raise ValueError(message("class_names", class_names, expected))
    return tuple(str(name) for name in class_names)


def to_labels(
    name: str, values: Any, class_names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class numbers, and the probability of each where `values` are probabilities.

    Args:
        name: What the caller calls `values`, for errors.
        values: Integers of shape (n,) or (n, 1); names of shape (n,); one-hot rows or scores
            (n, classes), of which the largest counts; or probabilities of class 1, (n,) or (n, 1).
        class_names: Needed for names only.
    """
    array = to_numpy(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2:
        raise ValueError(message(name, array, "an array of shape (n,) or (n, classes)"))
    if array.dtype.kind in "UO":
        return _from_names(name, array, class_names), None
    if array.dtype.kind not in "biuf":
        raise TypeError(message(name, array, "numbers"))
    return _from_rows(name, array) if array.ndim == 2 else _from_vector(name, array)


def _from_rows(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    labels = array.argmax(axis=1)
    one_hot = bool(np.isin(array, (0, 1)).all())
    if one_hot and (array.sum(axis=1) != 1).any():
        fix = "For several labels per row, look at one class at a time: `y[:, k]`."
        expected = "one-hot rows, each with exactly one 1"
        raise ValueError(message(name, array, expected, fix))
    is_probability = array.min() >= 0 and np.allclose(array.sum(axis=1), 1, atol=1e-2)
    if one_hot or not is_probability:
        return labels, None  # logits have an order but aren't probabilities
    return labels, array.max(axis=1).astype(float)


def _from_vector(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    whole = array.dtype.kind != "f" or bool((array == np.floor(array)).all())
    if whole:
        if array.min() < 0:
            raise ValueError(f"`{name}` has the label {array.min():g}; expected labels from 0 up.")
        return array.astype(np.int64), None
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"`{name}` has values from {array.min():.4g} to {array.max():.4g}; expected whole "
            "labels or probabilities in 0–1. Logits: apply `keras.ops.sigmoid` first."
        )
    labels = (array >= 0.5).astype(np.int64)
    return labels, np.where(labels == 1, array, 1 - array).astype(float)


def _from_names(name: str, array: np.ndarray, class_names: tuple[str, ...] | None) -> np.ndarray:
    if class_names is None:
        fix = "Give `class_names=`, in the order of the model's outputs."
        raise ValueError(
            message(name, array, "numbers, or `class_names` that say what is what", fix)
        )
    index = {known: number for number, known in enumerate(class_names)}
    unknown = sorted({str(value) for value in array.ravel()} - set(index))
    if unknown:
        raise ValueError(f"`{name}` has {unknown[0]!r}; expected one of {list(class_names)}.")
    return np.array([index[str(value)] for value in array.ravel()], dtype=np.int64)


def check_range(
    name: str, labels: np.ndarray, class_names: tuple[str, ...] | None, fix: str = ""
) -> None:
    """A ValueError if a label has no name."""
    if class_names is not None and labels.max() >= len(class_names):
        expected = f"labels from 0 to {len(class_names) - 1}, for {len(class_names)} class names"
        raise ValueError(
            f"`{name}` has the label {labels.max()}; expected {expected}. {fix}".strip()
        )
