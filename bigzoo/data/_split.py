"""A training and a validation part that have no row in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigzoo._errors import check_int, check_number, message
from bigzoo.data._batches import Batches
from bigzoo.data._rows import as_rows, num_rows, permutation, read_all, select_rows, tree_map


def split(
    x: Any,
    y: Any = None,
    *,
    val_fraction: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Divide samples into a training and a validation part; no row is in both.

    Four ways, each the same for the same seed:

    - random;
    - stratified: each class has its share in both parts, exact to within one row;
    - `groups`: rows of one group (a patient, a video) stay together, since a model that has seen
      one of them knows the others;
    - `time`: the validation part is the latest, as it is when a model is used.

    Rows keep their stored order within each part.

    Args:
        x: `Batches`, or an array with n rows, or a dict or tuple of such arrays.
        y: Targets with n rows; not with `Batches`, which have their own.
        val_fraction: Share of the validation part, between 0 and 1 (both excluded).
        stratify: None stratifies where `y` holds class labels: integers, booleans or text of shape
            (n,) or (n, 1), floats 0 and 1, or one-hot rows, with at least two rows per class on
            average. True insists on it, False never does. An array of n labels is used instead of
            `y`. A class with a single row stays in the training part.
        groups: Array of n group names or numbers. The share is then met as nearly as whole groups
            allow, and nothing is stratified.
        time: Array of n numbers, dates (datetime64) or texts that sort like dates. Rows of the same
            time stay together; `seed` has no effect.
        seed: At least 0.

    Returns:
        `(train, val)` for `Batches` (the validation part neither shuffled nor augmented);
        `(x_train, y_train), (x_val, y_val)` for arrays; `x_train, x_val` if there is no `y`.

    Raises:
        ValueError: if lengths differ, options exclude each other, or a part would be empty.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> x, y = np.arange(10.0).reshape(10, 1), np.array([0] * 5 + [1] * 5)
        >>> (x_train, y_train), (x_val, y_val) = bz.data.split(x, y, val_fraction=0.4)
        >>> np.bincount(y_train), np.bincount(y_val)
        (array([3, 3]), array([2, 2]))
    """
    if isinstance(x, Batches):
        if y is not None:
            fix = "The targets are in the Batches already."
            raise TypeError(message("y", y, "None where `x` is Batches", fix))
        train, val = split_rows(
            x.num_samples, x.y, val_fraction, stratify=stratify, groups=groups, time=time, seed=seed
        )
        return x.select(train), x.select(val).replace(shuffle=False, augment=None)
    x = as_rows("x", x)
    y = None if y is None else as_rows("y", y, text=True)
    count = num_rows(("x", x)) if y is None else num_rows(("x", x), ("y", y))
    parts = split_rows(
        count, y, val_fraction, stratify=stratify, groups=groups, time=time, seed=seed
    )
    x_train, x_val = (_pick(x, rows) for rows in parts)
    if y is None:
        return x_train, x_val
    y_train, y_val = (_pick(y, rows) for rows in parts)
    return (x_train, y_train), (x_val, y_val)


def split_rows(
    count: int,
    y: Any,
    val_fraction: float,
    *,
    stratify: Any = None,
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row numbers of the training and of the validation part; arguments as in `split`."""
    fraction = check_number("val_fraction", val_fraction, above=0, below=1)
    rng = np.random.default_rng(check_int("seed", seed, 0))
    insists = stratify is not None and stratify is not False
    if [insists, groups is not None, time is not None].count(True) > 1:
        raise ValueError(
            "More than one of `stratify`, `groups` and `time` is given; expected at most one. "
            "Choose the one that is like the later use of the model."
        )
    if count < 2:
        raise ValueError(f"There is {count} sample; expected at least 2 to make two parts.")
    if groups is not None:
        is_val = _by_group(_column("groups", groups, count), fraction, rng)
    elif time is not None:
        is_val = _by_time(_column("time", time, count), fraction)
    else:
        labels = None if stratify is False else _labels(y, stratify, count)
        if labels is None:
            is_val = _random(count, fraction, rng)
        else:
            is_val = _stratified(labels, fraction, rng)
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


# === The four ways: each gives a boolean per row, True for validation ===


def _val_count(count: int, fraction: float) -> int:
    return min(count - 1, max(1, round(count * fraction)))


def _random(count: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    is_val = np.zeros(count, dtype=bool)
    is_val[permutation(count, rng)[: _val_count(count, fraction)]] = True
    return is_val


def _stratified(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    exact = sizes * fraction
    wanted = np.floor(exact).astype(np.int64)
    # Largest remainders get one row more, until the total is right; ties are drawn by lot. The last
    # row of a class is never taken from the training part.
    lot = permutation(len(sizes), rng)
    by_remainder = lot[np.argsort(-(exact - wanted)[lot], kind="stable")]
    missing = _val_count(len(labels), fraction) - int(wanted.sum())
    able = [
        one for one in by_remainder if wanted[one] < exact[one] and wanted[one] + 1 < sizes[one]
    ]
    wanted[able[: max(0, missing)]] += 1
    if wanted.sum() == 0:
        raise ValueError(
            f"A stratified validation part of {fraction:g} would be empty: no class has rows "
            f"enough ({len(labels)} rows in {len(sizes)} classes). Raise `val_fraction`, or set "
            "`stratify=False`."
        )
    shuffled = permutation(len(labels), rng)
    by_class = shuffled[np.argsort(inverse[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(labels)) - np.repeat(starts, sizes)  # of each row within its class
    is_val = np.zeros(len(labels), dtype=bool)
    is_val[by_class] = place < np.repeat(wanted, sizes)
    return is_val


def _by_group(groups: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"`groups` has one group ({names[0]!r}); expected at least 2 to divide.")
    target = _val_count(len(groups), fraction)
    chosen, taken = np.zeros(len(names), dtype=bool), 0
    for group in permutation(len(names), rng):
        if abs(taken + sizes[group] - target) < abs(taken - target):
            chosen[group] = True
            taken += sizes[group]
    if (
        not chosen.any()
    ):  # each group alone is more than twice the share: the smallest comes nearest
        chosen[np.argmin(sizes)] = True
    if chosen.all():
        chosen[np.argmin(sizes)] = False
    return chosen[inverse.reshape(-1)]


def _by_time(time: np.ndarray, fraction: float) -> np.ndarray:
    order = np.sort(time)
    # A cut is possible only where the time changes.
    cuts = np.flatnonzero(order[1:] != order[:-1]) + 1
    if len(cuts) == 0:
        raise ValueError(
            f"`time` is {order[0]!r} in every row; expected at least 2 different times."
        )
    wished = len(order) - _val_count(len(order), fraction)
    cut = cuts[np.argmin(np.abs(cuts - wished))]
    return time >= order[cut]


# === What the user gave ===


def _labels(y: Any, stratify: Any, count: int) -> np.ndarray | None:
    if stratify is not None and not isinstance(stratify, (bool, np.bool_)):
        return _column("stratify", stratify, count)
    labels = None if y is None or isinstance(y, (dict, tuple)) else _class_labels(y)
    if stratify is None:
        return labels if labels is not None and 2 * len(np.unique(labels)) <= count else None
    if labels is None:
        got = "there is no `y`" if y is None else "`y` holds no class labels"
        raise ValueError(
            f"`stratify` is True but {got}; expected integers, text or one-hot rows. Pass an array "
            "of labels as `stratify`, or set it to False."
        )
    return labels


def _class_labels(y: Any) -> np.ndarray | None:
    if len(y.shape) > 2 or np.dtype(y.dtype).kind not in "fiubOUS":
        return None
    values = read_all(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind in "OUS":
        return values.astype(str) if values.ndim == 1 else None
    if values.ndim == 1 and values.dtype.kind in "iub":
        return values
    if not bool(np.all((values == 0) | (values == 1))):
        return None
    if values.ndim == 1:
        return values
    return values.argmax(axis=1) if bool(np.all(values.sum(axis=1) == 1)) else None


def _column(name: str, value: Any, count: int) -> np.ndarray:
    column = np.asarray(value)
    expected = f"one value per sample: an array of shape ({count},)"
    if column.ndim != 1:
        raise TypeError(message(name, value, expected))
    if len(column) != count:
        raise ValueError(message(name, value, expected))
    is_missing = column != column  # NaN and NaT alone differ from themselves
    if column.dtype == object:
        is_missing = is_missing | np.array([item is None for item in column])
        column = column.astype(str) if isinstance(column[0], str) else column
    if bool(np.any(is_missing)):
        row = int(np.argmax(is_missing))
        raise ValueError(f"`{name}` has no value in row {row}; expected one in each row.")
    return column


def _pick(tree: Any, rows: np.ndarray) -> Any:
    return tree_map(lambda source: select_rows(source, rows), tree)
