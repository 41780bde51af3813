"""The table that `list_models` gives: rows for programs, text for terminals, HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bigzoo._columns import in_columns
from bigzoo._errors import check_choice
from bigzoo.models._registry import REGISTRY, Entry

_HEADER = ("name", "variant", "parameters", "task", "paper")


@dataclass(frozen=True)
class ModelRow:
    """One model: `name`, `tasks`, `variants`, `parameters` by variant ("" if it has one form)."""

    name: str
    tasks: tuple[str, ...]
    variants: tuple[str, ...]
    parameters: dict[str, int]
    paper: str
    licence: str

    def lines(self) -> list[tuple[str, ...]]:
        """The row as text, a line for each variant, one string per column."""
        counts = {variant: f"{count:,}" for variant, count in self.parameters.items()}
        lines: list[tuple[str, ...]] = [
            ("", variant or "-", count, "", "")
            for variant, count in (counts or {"": "as asked for"}).items()
        ]
        lines[0] = (self.name, *lines[0][1:3], ", ".join(self.tasks), self.paper)
        return lines


class ModelTable(Sequence[ModelRow]):
    """Rows of models. A sequence that prints as a table, in a terminal and in a notebook."""

    def __init__(self, rows: Sequence[ModelRow]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """The row at a position or with a name; a table for a slice."""
        if isinstance(index, slice):
            return ModelTable(self._rows[index])
        if isinstance(index, str):
            names = self.names
            return self._rows[names.index(check_choice("name", index, names))]
        return self._rows[index]

    def __iter__(self) -> Iterator[ModelRow]:
        return iter(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, in the table's order."""
        return tuple(row.name for row in self._rows)

    def __repr__(self) -> str:
        return in_columns(_HEADER, [line for row in self._rows for line in row.lines()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _HEADER)
        body = "".join(_html_row(line) for row in self._rows for line in row.lines())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def list_models(task: str | None = None) -> ModelTable:
    """The models of the zoo, with their number of parameters at the default sizes.

    Args:
        task: Only models for this task, such as "image-classification"; None for all. An error
            lists them.

    Returns:
        A table that prints itself; iterate over it, or index it by position or name, for rows
        with `name`, `tasks`, `variants`, `parameters` (trainable ones, a dict by variant),
        `paper`, `licence`.

    Raises:
        ValueError: if `task` is unknown.

    Example:
        >>> bz.models.list_models()["resnet"].parameters["50"]
        25557032
        >>> bz.models.list_models("regression").names
        ('linear_regression', 'mlp', 'rnn')
    """
    entries: list[Entry] = list(REGISTRY.values())
    if task is not None:
        known = sorted({name for entry in entries for name in entry.tasks})
        task = check_choice("task", task, known)
        entries = [entry for entry in entries if task in entry.tasks]
    return ModelTable([_row(entry) for entry in entries])


def _row(entry: Entry) -> ModelRow:
    return ModelRow(
        name=entry.name,
        tasks=entry.tasks,
        variants=entry.variants,
        parameters=dict(entry.parameters),
        paper=entry.paper,
        licence=entry.licence,
    )


def _html_row(cells: Sequence[str]) -> str:
    *first, paper = cells
    columns = "".join(f"<td>{html.escape(cell)}</td>" for cell in first)
    if not paper:  # a further variant of the model above
        return f"<tr>{columns}<td></td></tr>"
    text, _, address = paper.rpartition(", ")
    link = f'<a href="{html.escape(address)}">{html.escape(text or address)}</a>'
    return f"<tr>{columns}<td>{link}</td></tr>"
