"""Text in columns, for tables in a terminal. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence


def in_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under the header and a rule, each column as wide as its longest text."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [_line(line, widths) for line in lines]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
