"""Training data against validation data: rows in common, classes that one of them lacks."""

from __future__ import annotations

import math

import numpy as np

from bigzoo.train._check_data import Limits, View, leaves
from bigzoo.train._check_labels import Labels
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error, warning

_PROBES = 64  # numbers of a row that make its key; rows with equal keys are compared in full
_COMPARED = 256  # rows compared in full


def check_classes(
    train: list[Pair], val: list[Pair], train_view: View, val_view: View
) -> list[Finding]:
    """Classes that only one of the two has."""
    if not all(view.whole or view.complete for view in (train_view, val_view)):
        return []
    findings = []
    for ours, theirs in zip(train, val, strict=True):
        left, right = _classes(ours), _classes(theirs)
        if left is not None and right is not None:
            findings += _missing(left, right, theirs)
    return findings


def _classes(pair: Pair) -> np.ndarray | None:
    """The classes in the labels of a pair; None where the labels aren't classes."""
    kinds = ("sparse", "categorical", "binary", "hinge", "categorical_hinge")
    if pair.y is None or pair.loss is None or pair.loss.kind not in kinds:
        return None
    labels = Labels(pair.y)
    return labels.classes[0] if labels.numeric and labels.finite and labels.classes else None


def _missing(train: np.ndarray, val: np.ndarray, pair: Pair) -> list[Finding]:
    fix = "(x, y), (x_val, y_val) = bz.data.split(x, y)  # every class in both parts"
    findings = []
    absent = _names(np.setdiff1d(train, val))
    if absent:
        code, expected = "class-missing-in-validation", "rows of each class of the training data"
        findings.append(warning(code, pair.where_y, f"no row of {absent}", expected, fix))
    absent = _names(np.setdiff1d(val, train))
    if absent:
        code, expected = "class-missing-in-training", "only classes that the training data has"
        findings.append(warning(code, pair.where_y, f"rows of {absent}", expected, fix))
    return findings


def _names(classes: np.ndarray) -> str:
    if classes.size == 0:
        return ""
    names = ", ".join(f"{value:g}" for value in classes[:5])
    more = ", ..." if classes.size > 5 else ""
    return f"class{'es' if classes.size > 1 else ''} {names}{more}"


def check_overlap(train: View, val: View, limits: Limits) -> list[Finding]:
    """Validation rows that are training rows too, by exact comparison."""
    left, right = leaves(train.stored_x), leaves(val.stored_x)
    if not left or len(left) != len(right):
        return []
    if any(a.ndim == 0 or a.shape[1:] != b.shape[1:] for a, b in zip(left, right, strict=True)):
        return []
    if any(a.dtype.kind not in "buif" or a.size == 0 for a in (*left, *right)):
        return []
    if any(isinstance(a, np.memmap) for a in (*left, *right)):
        return []  # every probe would be a read from the disk
    count, share = _common(left, right, limits.hash_rows)
    if count == 0:
        return []
    make = error if share >= 0.01 else warning
    got = f"{count} of {len(right[0])} validation rows are training rows too"
    fix = "(x, y), (x_val, y_val) = bz.data.split(x, y)  # of rows that are all different"
    expected = "rows that training has never seen; the score is too good otherwise"
    return [make("rows-in-common", "validation x", got, expected, fix)]


def _common(left: list[np.ndarray], right: list[np.ndarray], limit: int) -> tuple[int, float]:
    """(number, share) of the rows of `right` that are in `left` too; (0, 0) where that is natural.

    With more than `limit` rows, an even selection of them stands for all.
    """
    train_rows, val_rows = _selection(len(left[0]), limit), _selection(len(right[0]), limit)
    ours, theirs = _keys(left, train_rows), _keys(right, val_rows)
    order = np.argsort(ours, kind="stable")
    place = order[np.minimum(np.searchsorted(ours[order], theirs), len(ours) - 1)]
    hits = np.flatnonzero(ours[place] == theirs)
    if hits.size == 0:
        return 0, 0.0
    tried = hits[:: math.ceil(hits.size / _COMPARED)]
    equal = [_equal(left, int(train_rows[place[j]]), right, int(val_rows[j])) for j in tried]
    share = hits.size / len(theirs) * sum(equal) / len(equal)
    # Data that repeats its own rows as often (a few categories) repeats them across a split too.
    repeated = 1 - len(np.unique(ours)) / len(ours)
    if repeated >= share / 2:
        return 0, 0.0
    return max(1, round(share * len(right[0]))), share


def _selection(count: int, limit: int) -> np.ndarray:
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).astype(np.int64)


def _keys(arrays: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """One float64 for each of `rows`, from some of its numbers; equal rows have equal keys."""
    total = np.zeros(len(rows))
    rng = np.random.default_rng(0)
    for array in arrays:
        size = math.prod(array.shape[1:])
        chosen = np.arange(size)
        if size > _PROBES:
            chosen = np.sort(rng.choice(size, _PROBES, replace=False))
        index = np.unravel_index(chosen, array.shape[1:]) if array.ndim > 1 else ()
        probes = array[(rows[:, None], *(part[None] for part in index))].astype("float64")
        # Column by column: a matrix product may round differently for another number of rows.
        for column, weight in zip(probes.T, rng.uniform(1, 2, probes.shape[1]), strict=True):
            total += column * weight
    return total


def _equal(left: list[np.ndarray], i: int, right: list[np.ndarray], j: int) -> bool:
    return all(np.array_equal(a[i], b[j]) for a, b in zip(left, right, strict=True))
