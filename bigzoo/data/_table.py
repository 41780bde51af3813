"""Comma-separated files as columns of text, with the line of each row for error messages."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message, suggest

MISSING_VALUES = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")

# "1,5", "-0,25" and "1.234,5"
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")


@dataclass
class Table:
    """Columns of text, None where a value is missing, and where each row comes from."""

    columns: dict[str, list[str | None]]
    lines: list[int]
    source: str
    unit: str = "line"  # "line" of a file or "row" of data in memory

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str, argument: str = "") -> list[str | None]:
        """A column by name, or an error with the nearest names."""
        if name not in self.columns:
            why = f" (`{argument}`)" if argument else ""
            hint = _other_delimiter(list(self.columns)) or suggest(name, self.columns)
            raise ValueError(f"{self.source} has no column {name!r}{why}. {hint}")
        return self.columns[name]

    def where(self, rows: Iterable[int]) -> str:
        """ "line 3" or "lines 3, 7, … (12 in all)" for row numbers."""
        lines = [self.lines[row] for row in rows]
        shown = ", ".join(map(str, lines[:8]))
        if len(lines) > 8:
            shown += f", … ({len(lines)} in all)"
        return f"{self.unit}{'s' if len(lines) > 1 else ''} {shown}"


def read_table(path: Any, *, delimiter: str, encoding: str, missing_values: Iterable[str]) -> Table:
    """The file's columns; the first line has their names."""
    file = _check_file(path)
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise ValueError(message("delimiter", delimiter, 'one character, such as "," or ";"'))
    missing = check_missing_values(missing_values)
    source = repr(str(file))
    # A byte-order mark, as spreadsheets write it, is not part of the first name.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with file.open(newline="", encoding=encoding) as stream:
            return _parse(csv.reader(stream, delimiter=delimiter, strict=True), missing, source)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not text in {encoding}; expected a comma-separated text file. If it is "
            'text in another encoding, pass for instance `encoding="latin-1"`.'
        ) from error
    except LookupError as error:
        raise ValueError(
            message("encoding", encoding, 'a known encoding, such as "utf-8"')
        ) from error
    except csv.Error as error:
        raise ValueError(f"{source} is not a comma-separated text file: {error}.") from error


def table_from(rows: Any, missing_values: Iterable[str]) -> Table:
    """A table from a dict of columns, a list of dicts, or a data frame."""
    missing = set(missing_values)
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("list")
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(row, Mapping) for row in rows):
        names = list(rows[0])
        uneven = [i for i, row in enumerate(rows) if set(row) != set(names)]
        if uneven:
            raise ValueError(f"Row {uneven[0]} has other columns than row 0; expected {names}.")
        rows = {name: [row[name] for row in rows] for name in names}
    if not isinstance(rows, Mapping) or not rows:
        expected = "a path, a data frame, a dict of columns or a list of dicts"
        raise TypeError(message("rows", rows, expected))
    columns = {str(name): [_text(v, missing) for v in _cells(rows[name])] for name in rows}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns of `rows` differ in length: {lengths}; expected one length.")
    count = next(iter(lengths.values()))
    return Table(columns, list(range(count)), "`rows`", "row")


def as_numbers(values: list[str | None]) -> tuple[np.ndarray, list[int]]:
    """The values as float64 (NaN where missing), and the rows that hold something else."""
    numbers = np.full(len(values), np.nan)
    wrong = []
    for row, value in enumerate(values):
        if value is not None:
            number = _number(value)
            if number is None:
                wrong.append(row)
            else:
                numbers[row] = number
    return numbers, wrong


def decimal_commas(values: list[str | None], wrong: list[int]) -> str:
    """What to do about a column whose texts are nearly all numbers like 1,5; "" for any other.

    Args:
        values: The column.
        wrong: Its rows that hold no number, from `as_numbers`.
    """
    commas = [row for row in wrong if _DECIMAL_COMMA.fullmatch(str(values[row]))]
    if not wrong or len(commas) < 0.9 * len(wrong):
        return ""
    return (
        f"numbers with a comma in them, such as {values[commas[0]]!r}; expected a point, as 1.5. "
        'Replace the commas, for instance with `pandas.read_csv(path, sep=";", '
        'decimal=",").to_csv(new_path, index=False)`'
    )


def check_missing_values(values: Any) -> set[str]:
    """The set of texts that stand for a missing value."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise TypeError(message("missing_values", values, 'several texts, such as ("", "NA")'))
    return {value.strip() for value in values}


def _check_file(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(message("path", path, "the path of a comma-separated file"))
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(message("path", str(file), "a comma-separated file that exists"))
    if file.is_dir():
        raise ValueError(message("path", str(file), "a file, not a folder"))
    return file


def _parse(reader: Any, missing: set[str], source: str) -> Table:
    names = [name.strip() for name in next(reader, [])]
    if not names:
        raise ValueError(f"{source} is empty; expected a first line with the names of the columns.")
    for name in names:
        if not name:
            number = names.index(name) + 1
            raise ValueError(
                f"{source}: column {number} has no name in line 1; expected one name each."
            )
        if names.count(name) > 1:
            raise ValueError(
                f"{source}: the column {name!r} is there twice; expected each name once."
            )
    rows, lines = [], []
    start = reader.line_num + 1
    for cells in reader:
        if cells:  # a blank line is no row
            if len(cells) != len(names):
                fix = "A value with a delimiter in it must stand in quotes."
                raise ValueError(
                    f"{source}: line {start} has {len(cells)} values; expected {len(names)}, as "
                    f"the first line has names. {_other_delimiter(names) or fix}"
                )
            rows.append([_text(cell, missing) for cell in cells])
            lines.append(start)
        start = reader.line_num + 1
    if not rows:
        raise ValueError(f"{source} has a first line and no rows; expected at least one.")
    columns = {
        name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    return Table(columns, lines, source)


def _other_delimiter(names: list[str]) -> str:
    """The fix for a file that seems to have one column because another mark separates them."""
    if len(names) == 1:
        for mark, written in ((";", ";"), ("\t", "\\t"), (",", ","), ("|", "|")):
            if mark in names[0]:
                return f'Its first line is one name, {names[0]!r}. Pass `delimiter="{written}"`.'
    return ""


def _cells(values: Any) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        return [values]  # one row given as {"age": 30}
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _text(value: Any, missing: set[str]) -> str | None:
    if value is None or value != value:  # NaN, NaT and pandas' NA
        return None
    if isinstance(value, float) and value.is_integer():
        # A data frame makes floats of whole numbers beside a missing one.
        return str(int(value)) if abs(value) < 2**53 else repr(value)
    text = str(value).strip()
    return None if text in missing else text


def _number(text: str) -> float | None:
    if "_" in text:  # Python reads 1_000 as a number; a table means something else
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
