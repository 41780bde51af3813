"""A comma-separated file as batches of numbers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from bigzoo._errors import check_choice, check_number, message
from bigzoo.data._batches import Batches
from bigzoo.data._columns import Column, fit_column, require_feature_space
from bigzoo.data._encoder import TableEncoder
from bigzoo.data._split import split_rows
from bigzoo.data._table import MISSING_VALUES, Table, as_numbers, decimal_commas, read_table

_MAX_CLASS_NUMBERS = 10  # whole numbers with more different values than this are amounts


def csv(
    path: str | os.PathLike[str],
    *,
    target: str,
    task: str | None = None,
    val_fraction: float = 0.2,
    groups: str | None = None,
    time: str | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    categories: Iterable[str] = (),
    drop: Iterable[str] = (),
    missing_values: Iterable[str] = MISSING_VALUES,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> tuple[Batches, Batches | None]:
    """A training and a validation part from a comma-separated file, as numbers.

    The first line names the columns. A column of numbers is scaled to mean 0 and standard deviation
    1, missing values are filled with the median, and a feature "is missing" is added. Any other
    column holds categories: each becomes a feature that is 0 or 1, "missing" is one of them.
    All this is learned from the training part alone; `train.encoder` does the same to new rows.

    The target is read as classes if it is text, or whole numbers with at most 10 different values
    and at least two rows per value on average; as numbers otherwise. `task` decides it for you.

    Args:
        path: A text file.
        target: Name of the column to predict. It must have a value in each row.
        task: "classification", "regression", or None for the rule above.
        val_fraction: Share of the validation part, from 0 (none) to 1 (excluded); classes have
            their share in both parts.
        groups: Name of a column whose equal values stay in one part (see `bigzoo.data.split`); it
            is no feature.
        time: Name of a column by which the latest rows become the validation part: numbers, or
            texts that sort like dates (2024-05-31). It is no feature.
        batch_size: Samples per batch, at least 1.
        shuffle: Whether the training part has a new order in each epoch.
        seed: At least 0; split and order are drawn from it.
        categories: Columns of numbers that are names, such as postal codes.
        drop: Columns to leave out.
        missing_values: Texts that stand for a missing value.
        delimiter: One character between two values.
        encoding: Of the text.

    Returns:
        `(train, val)`: `Batches` with x of shape (n, features), float32, and y of shape (n,), int64
        class numbers, or (n, 1), float32. `class_names` are the sorted values of the target, and
        `encoder` is a `TableEncoder`. val is None for `val_fraction=0`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no table, a column is absent, the target is missing in some row,
            numbers have decimal commas, or a text column has more than 20 different values and more
            than half as many as the training part has rows.
        ImportError: without TensorFlow, which Keras' FeatureSpace needs on every backend.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "pets.csv")
        >>> rows = ["weight,coat,pet"] + ["4,long,cat", "20,short,dog"] * 10
        >>> with open(path, "w") as file:
        ...     print(*rows, sep="\\n", file=file)
        >>> train, val = bz.data.csv(path, target="pet")
        >>> train.class_names, train.x.shape, val.x.shape
        (('cat', 'dog'), (16, 4), (4, 4))
        >>> train.encoder.transform({"weight": 12, "coat": "long"}).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
        >>> train.encoder.feature_names
        ('weight', 'coat=(other)', 'coat=short', 'coat=long')
    """
    require_feature_space("bigzoo.data.csv")
    fraction = check_number("val_fraction", val_fraction, 0, below=1)
    table = read_table(path, delimiter=delimiter, encoding=encoding, missing_values=missing_values)
    y, class_names = _target(table, target, task)
    dropped = [target, *_names("drop", drop), *[name for name in (groups, time) if name]]
    as_categories = _names("categories", categories)
    for name in [*dropped, *as_categories]:
        table.column(name)
    features = [name for name in table.columns if name not in dropped]
    if not features:
        raise ValueError(f"{table.source} has no column left as a feature beside {target!r}.")
    train_rows, val_rows = _split(table, y, fraction, groups, time, seed)
    columns = [
        fit_column(table, name, train_rows, as_category=name in as_categories) for name in features
    ]
    _refuse_names_of_rows(columns, len(train_rows))
    encoder = TableEncoder(columns, target, class_names, missing_values)
    # A category that the training part lacks is no fault of the file; it counts as unknown.
    x = encoder.encode(table, unknown="other")
    _warn_of_constants(encoder, x[train_rows])
    whole = Batches(
        x,
        y,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        class_names=class_names,
        encoder=encoder,
    )
    val = whole.select(val_rows).replace(shuffle=False) if len(val_rows) else None
    return whole.select(train_rows), val


def _target(
    table: Table, target: Any, task: str | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers with their names, or numbers of shape (n, 1) and None."""
    check_choice("task", task, (None, "classification", "regression"))
    if not isinstance(target, str):
        raise TypeError(message("target", target, "the name of a column"))
    values = table.column(target, "target")
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"The target {target!r} has no value in {table.where(missing)}; expected one in each "
            "row. Remove those rows, or fill the values in."
        )
    numbers, wrong = as_numbers(values)
    if task != "classification" and (what := decimal_commas(values, wrong)):
        raise ValueError(
            f"The target {target!r} holds {what}, or pass "
            '`task="classification"` if they are names.'
        )
    if task == "regression" and wrong:
        raise ValueError(
            f"`task` is 'regression' and {target!r} is {values[wrong[0]]!r} in "
            f"{table.where(wrong)}; expected a finite number in each row."
        )
    if task is None:
        task = "classification" if wrong or _looks_like_classes(numbers) else "regression"
        if task == "classification" and wrong and len(wrong) <= len(values) / 10:
            raise ValueError(
                f"The target {target!r} holds numbers, but {values[wrong[0]]!r} in "
                f'{table.where(wrong)}. Correct that, or pass `task="classification"`.'
            )
    if task == "regression":
        return numbers[:, None].astype(np.float32), None
    return _classes(values, numbers, bool(wrong), target)


def _looks_like_classes(numbers: np.ndarray) -> bool:
    distinct = np.unique(numbers)
    is_whole = bool(np.all(distinct == np.floor(distinct)))
    few = len(distinct) <= _MAX_CLASS_NUMBERS and 2 * len(distinct) <= len(numbers)
    return is_whole and few


def _classes(
    values: list[Any], numbers: np.ndarray, is_text: bool, target: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    if is_text:
        distinct, y = np.unique(np.array(values, dtype=str), return_inverse=True)
        names = tuple(map(str, distinct))
    else:  # 2 before 10, and "1" and "1.0" are one class
        distinct, y = np.unique(numbers, return_inverse=True)
        names = tuple(
            f"{value:g}" if value != int(value) else str(int(value)) for value in distinct
        )
    if len(names) < 2:
        raise ValueError(f"The target {target!r} is {names[0]!r} in each row; expected 2 classes.")
    if len(names) > 20 and 2 * len(names) > len(values):
        raise ValueError(
            f"The target {target!r} has {len(names)} classes in {len(values)} rows; expected "
            'several rows per class. Pass `task="regression"` if it is an amount.'
        )
    return y.astype(np.int64).reshape(-1), names


def _split(
    table: Table, y: np.ndarray, fraction: float, groups: str | None, time: str | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if fraction == 0:
        return np.arange(len(table)), np.arange(0)
    return split_rows(
        len(table),
        y,
        fraction,
        stratify=False if y.ndim == 2 else None,
        groups=None if groups is None else _key_column(table, "groups", groups),
        time=None if time is None else _key_column(table, "time", time),
        seed=seed,
    )


def _key_column(table: Table, argument: str, name: str) -> np.ndarray:
    values = table.column(name, argument)
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"Column {name!r} (`{argument}`) has no value in {table.where(missing)}; expected one "
            "in each row."
        )
    numbers, wrong = as_numbers(values)
    return np.array(values, dtype=str) if wrong else numbers


def _names(argument: str, names: Any) -> list[str]:
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise TypeError(message(argument, names, 'names of columns, such as ["age", "city"]'))
    return [str(name) for name in names]


def _refuse_names_of_rows(columns: list[Column], count: int) -> None:
    """Refuse columns whose values name single rows: a model would learn them by heart."""
    found = [
        column
        for column in columns
        if column.categories is not None and len(column.categories) > max(20, count / 2)
    ]
    if found:
        shown = ", ".join(f"{column.name!r} ({len(column.categories or ())})" for column in found)
        drop = [column.name for column in found]
        raise ValueError(
            f"Text columns with more than half as many different values as rows ({count} in the "
            f"training part): {shown}. A model can't learn from names of single rows. "
            f"Pass `drop={drop}`."
        )


def _warn_of_constants(encoder: TableEncoder, x: np.ndarray) -> None:
    named = zip(encoder.feature_names, np.ptp(x, axis=0) == 0, strict=True)
    # The feature of unknown categories is 0 all over the training part by its nature.
    constant = [name for name, still in named if still and not name.endswith("=(other)")]
    if constant:
        warnings.warn(
            f"Constant in the training part: {', '.join(constant[:8])}. A constant column tells "
            "nothing; leave it out with `drop`.",
            stacklevel=3,
        )
