"""Rows of a table as numbers: fitted once, then the same for every row to come."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_choice, message
from bigzoo.data._columns import (
    Column,
    feature_inputs,
    feature_names,
    feature_space,
    require_feature_space,
)
from bigzoo.data._table import MISSING_VALUES, Table, read_table, table_from

_CHUNK = 65536  # rows that are encoded at a time


class TableEncoder:
    """What `bigzoo.data.csv` learned about a table; it turns new rows into the same features.

    Numbers are scaled to mean 0 and standard deviation 1; each category becomes a feature that is
    0 or 1, after one that stands for all unknown categories. Keras' `FeatureSpace` does the work.

    Attributes:
        columns: How each column is read.
        target: Name of the target column.
        class_names: Names of the classes; None in a regression.
        feature_names: A name for each of the features that `transform` gives.
        feature_space: The `keras.utils.FeatureSpace`. Its inputs are named after the position and
            the name of each column.
    """

    def __init__(
        self,
        columns: Iterable[Column],
        target: str,
        class_names: tuple[str, ...] | None = None,
        missing_values: Iterable[str] = MISSING_VALUES,
    ) -> None:
        require_feature_space("TableEncoder")
        self.columns = tuple(columns)
        self.target = target
        self.class_names = class_names
        self.missing_values = tuple(missing_values)
        self.feature_space = feature_space(self.columns)
        self.feature_names = tuple(feature_names(self.columns, self.feature_space))

    def transform(
        self, rows: Any, *, unknown: str = "error", delimiter: str = ",", encoding: str = "utf-8"
    ) -> np.ndarray:
        """Features of new rows.

        Args:
            rows: A path to a comma-separated file, a data frame, a dict of columns or of single
                values, or a list of dicts. Columns that were not features (such as the target) are
                left out.
            unknown: "error" for a ValueError where a category was not in the training part, or a
                value is missing in a column that had none missing; "other" to encode it as the
                unknown category, or as the median.
            delimiter: Between two values in a file.
            encoding: Of the text in a file.

        Returns:
            Array of shape (rows, len(feature_names)), float32.

        Raises:
            ValueError: if a column is absent, or a value can't be read.
            TypeError: if `rows` is no table.
        """
        check_choice("unknown", unknown, ("error", "other"))
        if isinstance(rows, (str, os.PathLike)):
            missing = self.missing_values
            table = read_table(rows, delimiter=delimiter, encoding=encoding, missing_values=missing)
        else:
            table = table_from(rows, self.missing_values)
        return self.encode(table, unknown)

    def encode(self, table: Table, unknown: str = "error") -> np.ndarray:
        """Features of a table that was read already; `unknown` as in `transform`."""
        inputs = feature_inputs(self.columns, table, unknown)
        parts = []
        for start in range(0, len(table), _CHUNK):
            chunk = {key: values[start : start + _CHUNK] for key, values in inputs.items()}
            parts.append(keras.ops.convert_to_numpy(self.feature_space(chunk)))
        if not parts:
            return np.zeros((0, len(self.feature_names)), np.float32)
        return np.concatenate(parts).astype(np.float32, copy=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the encoder as a JSON file; `TableEncoder.load` reads it.

        Args:
            path: A file in a folder that exists; replaced if it is there.
        """
        file = Path(path)
        if not file.parent.is_dir():
            raise FileNotFoundError(message("path", str(file), "a file in a folder that exists"))
        text = json.dumps({"bigzoo": "TableEncoder", **self._state()}, indent=1)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TableEncoder:
        """Read an encoder that `save` wrote.

        Args:
            path: The JSON file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is another kind of file.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(message("path", str(file), "a file that `encoder.save` wrote"))
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            if state.pop("bigzoo") != "TableEncoder":
                raise KeyError("bigzoo")
            return cls._from_state(state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            expected = "a file that `encoder.save` wrote"
            raise ValueError(message("path", str(file), expected)) from error

    def _state(self) -> dict[str, Any]:
        return {
            "columns": [asdict(column) for column in self.columns],
            "target": self.target,
            "class_names": self.class_names,
            "missing_values": self.missing_values,
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> TableEncoder:
        columns = []
        for known in state["columns"]:
            categories = known["categories"]
            known = {**known, "categories": None if categories is None else tuple(categories)}
            columns.append(Column(**known))
        names = state["class_names"]
        names = None if names is None else tuple(names)
        return cls(columns, state["target"], names, state["missing_values"])

    def __reduce__(self) -> Any:
        return self._from_state, (self._state(),)

    def __repr__(self) -> str:
        kind = "regression" if self.class_names is None else f"classes {self.class_names}"
        size = f"{len(self.columns)} columns -> {len(self.feature_names)} features"
        return f"TableEncoder({size}, target {self.target!r}: {kind})"
