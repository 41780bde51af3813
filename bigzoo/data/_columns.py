"""How the columns of a table become features: what is learned, and Keras' FeatureSpace for it."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import suggest
from bigzoo.data._table import Table, as_numbers, decimal_commas

_MISSING = "(missing)"


@dataclass(frozen=True)
class Column:
    """How one column becomes numbers.

    Attributes:
        name: Its name in the table.
        fill: For numbers: what stands for a missing value, the median.
        mean: For numbers: mean of the filled column.
        variance: For numbers: its variance; 1 for a constant column.
        has_missing: Whether values were missing where it was fitted; numbers then get a second
            feature that is 1 where the value was missing, texts a category of their own.
        categories: For text: its values in alphabetical order; None for numbers.
    """

    name: str
    fill: float = 0.0
    mean: float = 0.0
    variance: float = 1.0
    has_missing: bool = False
    categories: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """A name that Keras' layers can have."""
        return re.sub(r"\W+", "_", self.name, flags=re.ASCII)


def fit_column(table: Table, name: str, rows: np.ndarray, *, as_category: bool) -> Column:
    """Learn one column from the training part.

    Args:
        table: All rows: whether the column holds numbers or text is seen on all of them.
        name: Name of the column.
        rows: Row numbers of the training part; the statistics are theirs alone.
        as_category: Whether numbers are names of categories, as postal codes are.
    """
    values = table.column(name)
    numbers, wrong = as_numbers(values)
    known = sum(value is not None for value in values)
    if not as_category and (what := decimal_commas(values, wrong)):
        raise ValueError(
            f"Column {name!r} holds {what}, or pass `categories=[{name!r}]` if they are names."
        )
    if as_category or len(wrong) > known / 10:
        return _fit_category([values[row] for row in rows], name)
    if wrong:
        raise ValueError(
            f"Column {name!r} holds numbers, but {values[wrong[0]]!r} in {table.where(wrong)}. "
            f"Correct that, add it to `missing_values`, or pass `categories=[{name!r}]`."
        )
    part = numbers[rows]
    is_missing = np.isnan(part)
    if is_missing.all():
        raise ValueError(
            f"Column {name!r} has no value in the training part; expected some. Pass "
            f"`drop=[{name!r}]`."
        )
    fill = float(np.median(part[~is_missing]))
    filled = np.where(is_missing, fill, part)
    mean, variance = float(filled.mean()), float(filled.var())
    is_constant = variance <= (1e-12 * abs(mean)) ** 2
    return Column(name, fill, mean, 1.0 if is_constant else variance, bool(is_missing.any()))


def _fit_category(values: list[str | None], name: str) -> Column:
    has_missing = None in values
    found = {_MISSING if value is None else value for value in values}
    return Column(name, has_missing=has_missing, categories=tuple(sorted(found)))


# === Inputs ===


def feature_inputs(columns: tuple[Column, ...], table: Table, unknown: str) -> dict[str, Any]:
    """The table's columns as FeatureSpace takes them."""
    inputs: dict[str, np.ndarray] = {}
    for key, column in _keys(columns):
        values = table.column(column.name)
        if column.categories is None:
            inputs |= _number_inputs(key, column, values, table, unknown)
        else:
            inputs[key] = _category_inputs(column, values, table, unknown)
    return inputs


def _number_inputs(
    key: str, column: Column, values: list[str | None], table: Table, unknown: str
) -> dict[str, np.ndarray]:
    numbers, wrong = as_numbers(values)
    if wrong:
        raise ValueError(
            f"Column {column.name!r} has {values[wrong[0]]!r} in {table.where(wrong)}; expected "
            "a finite number."
        )
    is_missing = np.isnan(numbers)
    if not column.has_missing and unknown == "error":
        _refuse_missing(column, np.flatnonzero(is_missing), table)
    inputs = {key: np.where(is_missing, column.fill, numbers).astype(np.float32)}
    if column.has_missing:
        inputs[f"{key}_missing"] = is_missing.astype(np.float32)
    return inputs


def _category_inputs(
    column: Column, values: list[str | None], table: Table, unknown: str
) -> np.ndarray:
    known = set(column.categories or ())
    if unknown == "error":
        if not column.has_missing:
            missing = [row for row, value in enumerate(values) if value is None]
            _refuse_missing(column, missing, table)
        rows = [row for row, v in enumerate(values) if v is not None and v not in known]
        if rows:
            value = str(values[rows[0]])
            raise ValueError(
                f"Column {column.name!r} has the unknown category {value!r} in "
                f'{table.where(rows)}. {suggest(value, known)} Pass `unknown="other"` to encode '
                "what was not in the training part as one category."
            )
    return np.array([_MISSING if value is None else value for value in values], dtype=str)


def _refuse_missing(column: Column, rows: Any, table: Table) -> None:
    if len(rows):
        raise ValueError(
            f"Column {column.name!r} has no value in {table.where(rows)}; none was missing in the "
            'training part. Fill it, or pass `unknown="other"`.'
        )


# === FeatureSpace ===


def feature_names(columns: tuple[Column, ...], space: Any) -> list[str]:
    """A name for each feature: "age", "age is missing" or "city=Paris"."""
    names = []
    for key, column in _keys(columns):
        if column.categories is None:
            names.append(column.name)
            names += [f"{column.name} is missing"] if column.has_missing else []
        else:
            # The first entry of a vocabulary stands for everything that is not in it.
            vocabulary = space.preprocessors[key].get_vocabulary()[1:]
            names += [f"{column.name}={value}" for value in ("(other)", *vocabulary)]
    return names


def require_feature_space(purpose: str) -> None:
    """An error if TensorFlow, which Keras' FeatureSpace runs on with every backend, is absent."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"{purpose} needs TensorFlow, which is not installed: Keras' FeatureSpace looks up "
            f"categories with it on every backend (yours is {keras.backend.backend()!r}). Run: pip "
            "install tensorflow. Or make arrays of numbers yourself and use `bigzoo.data.arrays`."
        )


def _keys(columns: tuple[Column, ...]) -> list[tuple[str, Column]]:
    # FeatureSpace sorts its features by name: the position in front keeps the table's order.
    return [(f"c{number:05d}_{column.key}", column) for number, column in enumerate(columns)]


def feature_space(columns: tuple[Column, ...]) -> Any:
    """The `keras.utils.FeatureSpace` for these columns, ready for use."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # a mixed policy would round the features
    try:
        return _built(columns)
    finally:
        keras.config.set_dtype_policy(policy)


def _built(columns: tuple[Column, ...]) -> Any:
    space = keras.utils.FeatureSpace
    features: dict[str, Any] = {}
    vocabulary: dict[str, tuple[str, ...]] = {}
    for key, column in _keys(columns):
        if column.categories is not None:
            features[key] = space.string_categorical(name=key, output_mode="one_hot")
            vocabulary[key] = column.categories
            continue
        scaling = keras.layers.Normalization(
            axis=-1, mean=column.mean, variance=column.variance, name=f"{key}_normalization"
        )
        features[key] = space.feature("float32", scaling, "float")
        vocabulary[key] = ("0",)
        if column.has_missing:
            features[f"{key}_missing"] = space.float(name=f"{key}_missing")
    result = space(features, output_mode="concat")
    _adapt(result, features, vocabulary)
    return result


def _adapt(space: Any, features: dict[str, Any], vocabulary: dict[str, tuple[str, ...]]) -> None:
    # FeatureSpace reads each column once per feature, row by row. The statistics are known here, so
    # it gets a table of the distinct categories alone, which is small.
    rows = max(len(values) for values in vocabulary.values())
    table: dict[str, np.ndarray] = {}
    for key in features:
        values = vocabulary.get(key, ("0",))
        if features[key].dtype == "string":
            table[key] = np.array([*values, *values[-1:] * (rows - len(values))])
        else:
            table[key] = np.zeros(rows, np.float32)
    space.adapt(table)
