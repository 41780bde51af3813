"""The table that `predict_images` returns."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

_MOST_ROWS = 60
_MOST_PATH = 50


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image file.

    Attributes:
        path: The file.
        label: The most probable class; for a multilabel model all labels of at least 50%, joined
            by ", " and "(none)" if there is none; None if the file couldn't be read.
        probability: Probability of `label`, in 0–1: for several labels that of the least probable
            one, for "(none)" that of the most probable one. None if the file couldn't be read.
        probabilities: Probability of each class by its name, in the order of the model's outputs.
        top: The most probable classes with their probabilities, as many as asked for; for a
            multilabel model those of at least 50%.
        error: Why the file couldn't be read, or None.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None


class Predictions(Sequence[Prediction]):
    """Rows of `predict_images`: a sequence that prints as a table, in a notebook too.

    Args:
        rows: The rows in the order of the files.
        note: A remark that is printed below the table, or "".
    """

    def __init__(self, rows: Sequence[Prediction], note: str = "") -> None:
        self.rows = tuple(rows)
        self.note = note

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> Predictions: ...

    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return Predictions(self.rows[index], self.note)
        return self.rows[index]

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns path, label, probability, one of probabilities per class, and error.

        Returns:
            One list per column, ready for `pandas.DataFrame(table.to_dict())`. Classes are named
            "p(cat)" and so on; what an unreadable file lacks is None.
        """
        classes = next((list(row.probabilities) for row in self.rows if row.probabilities), [])
        columns: dict[str, list[Any]] = {
            "path": [row.path for row in self.rows],
            "label": [row.label for row in self.rows],
            "probability": [row.probability for row in self.rows],
        }
        for name in classes:
            columns[f"p({name})"] = [row.probabilities.get(name) for row in self.rows]
        columns["error"] = [row.error for row in self.rows]
        return columns

    def __str__(self) -> str:
        header, cells = ("file", "label", "probability"), self._cells(_MOST_PATH)
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        rule = "  ".join("─" * width for width in widths)
        lines = [_line(header, widths), rule, *(_line(row, widths) for row in cells)]
        return "\n".join([*lines, *self._footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("file", "label", "probability"))
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in self._cells(200)
        )
        footer = "".join(f"<p>{html.escape(line)}</p>" for line in self._footer())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{footer}"

    def _cells(self, width: int) -> list[tuple[str, str, str]]:
        return [_cells(row, width) for row in self.rows[:_MOST_ROWS]]

    def _footer(self) -> list[str]:
        lines = []
        if len(self.rows) > _MOST_ROWS:
            lines.append(f"… and {len(self.rows) - _MOST_ROWS:,} more rows")
        return [*lines, self.note] if self.note else lines


def _cells(row: Prediction, width: int) -> tuple[str, str, str]:
    path = _printable(row.path)
    if len(path) > width:
        path = "…" + path[1 - width :]  # the end of a path tells more than its start
    if row.error is not None:
        return path, f"error: {_printable(row.error)}", ""
    if len(row.top) > 1:
        # One number per label, in the same order.
        labels = ", ".join(_printable(name) for name, _ in row.top)
        return path, labels, ", ".join(f"{probability:.1%}" for _, probability in row.top)
    return path, _printable(row.label or ""), f"{row.probability or 0.0:.1%}"


def _printable(text: str) -> str:
    """Without control characters: a file's name must not steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    path, label, probability = cells
    text = f"{path:<{widths[0]}}  {label:<{widths[1]}}  {probability:>{widths[2]}}"
    return text.rstrip()
