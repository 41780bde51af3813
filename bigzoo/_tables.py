"""Tables and paragraphs that print in a terminal and show in a notebook, from the same cells."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from bigzoo._columns import clean, shorten_all

WIDTH = 100
# Colours come from the notebook, so that both its light and its dark style stay readable.
_TABLE = "border-collapse:collapse;margin:0.3em 0 0.9em 0;color:inherit;background:transparent"
_CELL = "padding:0.1em 0.7em;border-bottom:1px solid rgba(128,128,128,0.35);vertical-align:top"


@dataclass(frozen=True)
class Table:
    """Cells under a header.

    Attributes:
        header: One text per column.
        rows: As many texts in each.
        title: What stands above it.
        left: Columns with words, flush left; the others hold numbers, flush right.
        wrap: Whether the last column is broken into lines within `WIDTH`.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    left: tuple[int, ...] = (0,)
    wrap: bool = False

    def text(self) -> str:
        """The table for a terminal."""
        rows = [tuple(map(clean, row)) for row in self.rows]
        lines = [self.header, *rows] if any(self.header) else rows
        if not self.wrap:
            lines = self._fitted(lines)
        count = len(self.header)
        fixed = count - 1 if self.wrap else count
        widths = [max(len(line[i]) for line in lines) for i in range(fixed)]
        room = max(20, WIDTH - sum(widths) - 2 * fixed)
        out = [self.title] if self.title else []
        for position, line in enumerate(lines):
            out += self._lines(line, widths, room)
            if position == 0 and any(self.header):
                last = [max(len(line[-1]) for line in lines)] if self.wrap else []
                out.append("  ".join("-" * min(width, room) for width in [*widths, *last]))
        return "\n".join(out)

    def _fitted(self, lines: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The first column, which holds names, gives way where the line would be too long."""
        others = sum(max(len(line[i]) for line in lines) + 2 for i in range(1, len(self.header)))
        room = max(12, WIDTH - others)
        names = shorten_all([line[0] for line in lines], room)
        return [(name, *line[1:]) for name, line in zip(names, lines, strict=True)]

    def _lines(self, line: Sequence[str], widths: Sequence[int], room: int) -> list[str]:
        cells = [
            cell.ljust(width) if i in self.left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        ]
        start = "  ".join(cells)
        if not self.wrap:
            return [start.rstrip()]
        words = textwrap.wrap(line[-1], room) or [""]
        indent = " " * (len(start) + 2)
        return [f"{start}  {words[0]}".rstrip(), *(indent + word for word in words[1:])]

    def html(self) -> str:
        """The table for a notebook, its texts escaped."""
        head = "".join(self._cell("th", i, name) for i, name in enumerate(self.header))
        rows = (
            "".join(self._cell("td", i, cell) for i, cell in enumerate(row)) for row in self.rows
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        above = f"<thead><tr>{head}</tr></thead>" if any(self.header) else ""
        title = html_paragraph(self.title, bold=True) if self.title else ""
        return f'{title}<table style="{_TABLE}">{above}<tbody>{body}</tbody></table>'

    def _cell(self, tag: str, column: int, text: str) -> str:
        words = column in self.left or (self.wrap and column == len(self.header) - 1)
        align = "left" if words else "right"
        return f'<{tag} style="{_CELL};text-align:{align}">{html.escape(clean(text))}</{tag}>'


def paragraph(text: str, indent: str = "") -> str:
    """Broken into lines of at most `WIDTH`."""
    return _fill(text, indent, indent)


def bullets(lines: Sequence[str]) -> str:
    """Each as a paragraph that begins with a dash."""
    return "\n".join(_fill(line, "- ", "  ") for line in lines)


def _fill(text: str, first: str, then: str) -> str:
    """Broken between words only: an address must stay whole, so that it can be copied."""
    return textwrap.fill(
        clean(text), WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )


def html_paragraph(text: str, bold: bool = False) -> str:
    inner = html.escape(clean(text))
    return f'<p style="margin:0.3em 0">{f"<b>{inner}</b>" if bold else inner}</p>'


def html_bullets(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(clean(line))}</li>" for line in lines)
    return f'<ul style="margin:0.2em 0 0.8em 0">{items}</ul>' if lines else ""
