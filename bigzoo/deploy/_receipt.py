"""What a step of making smaller or shipping has gained and lost, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bigzoo._errors import check_choice
from bigzoo._tables import Table, bullets, html_bullets
from bigzoo._units import NOTHING, bytes_text, digits_text, flops_text, percent_text, seconds_text
from bigzoo.deploy._difference import Difference
from bigzoo.deploy._latency import Latency

ACTIONS = ("export", "prune", "slim", "quantize", "distill", "compare")


@dataclass(frozen=True)
class Side:
    """One side of a receipt.

    Attributes:
        what: What it is and where it runs, such as "Keras on tensorflow" or "LiteRT, int8".
        file_bytes: Bytes on disk: of the exported file, or of a `.keras` file without the state of
            the optimizer; None if not weighed.
        gzip_bytes: The same after gzip.
        params: Numbers in the weights; None where a file doesn't tell.
        zero_params: How many of them are zero.
        flops: Floating-point operations of a prediction for one sample; None if unknown.
        score: The score that the receipt's `score_name` names, or None.
    """

    what: str
    file_bytes: int | None = None
    gzip_bytes: int | None = None
    params: int | None = None
    zero_params: int | None = None
    flops: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Trial:
    """One way that was tried.

    Attributes:
        name: Such as "dynamic" or "int8".
        file_bytes: Bytes on disk, or None if it came to nothing.
        agreement: Share of the answers as before, in 0–1, or None.
        speedup: Batch size -> how many times as fast as the original; empty if not measured.
        verdict: Why it was taken or not.
        difference: Largest relative difference, where no classes can be compared.
    """

    name: str
    file_bytes: int | None
    agreement: float | None
    speedup: Mapping[int, float]
    verdict: str
    difference: float | None = None


@dataclass(frozen=True)
class Receipt:
    """What was gained and what was lost.

    It prints as a table, in a notebook too. Only what was measured is in it: a figure that isn't
    there was not measured.

    Attributes:
        action: "export", "prune", "slim", "quantize", "distill" or "compare".
        model: Name of the model.
        before, after: The two sides.
        difference: Between the answers of both sides on the same rows, or None.
        latencies: Of both sides in turns, one per batch size; empty if not measured.
        score_name: What `score` is, such as "accuracy"; "" if there is none.
        score_rows: Rows that the score stands on.
        tried: What else was tried.
        notes: What one should know.
        path: The file or folder that was written, or None.
        machine: Where the latencies were measured.
        versions: Package -> version.
    """

    action: str
    model: str
    before: Side
    after: Side
    difference: Difference | None = None
    latencies: tuple[Latency, ...] = ()
    score_name: str = ""
    score_rows: int = 0
    tried: tuple[Trial, ...] = ()
    notes: tuple[str, ...] = ()
    path: str | None = None
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("action", self.action, ACTIONS)

    def __str__(self) -> str:
        parts = [table.text() for table in self._tables()]
        lines = self._lines()
        return "\n".join([*parts, *([bullets(lines)] if lines else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables()) + html_bullets(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """The receipt as plain dicts, lists, numbers and strings, which JSON can hold."""
        from bigzoo.cost._render import plain

        result: dict[str, Any] = plain(self)
        return result

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    # === What stands in the tables ===

    def _tables(self) -> list[Table]:
        header = ("", self.before.what, self.after.what, "")
        rows = [*self._weights(), *self._scores(), *self._times()]
        title = f"{self.model}: {self.action}"
        if self.path:
            title += f" to {self.path}"
        tables = [Table(header, tuple(rows), title, left=(0, 3))]
        if self.tried:
            tables.append(_trials(self.tried))
        return tables

    def _weights(self) -> list[tuple[str, ...]]:
        one, two = self.before, self.after
        rows = [
            _row("bytes on disk", one.file_bytes, two.file_bytes, bytes_text),
            _row("bytes gzipped", one.gzip_bytes, two.gzip_bytes, bytes_text),
            _row("parameters", one.params, two.params, lambda value: f"{value:,.0f}"),
            _row("FLOPs, one sample", one.flops, two.flops, flops_text),
        ]
        if one.zero_params or two.zero_params:
            shares = (_share(one.zero_params, one.params), _share(two.zero_params, two.params))
            rows.insert(3, ("zeros among them", *shares, ""))
        return [row for row in rows if row]

    def _scores(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        one, two = self.before.score, self.after.score
        if one is not None and two is not None:
            name = f"{self.score_name}, {self.score_rows:,} rows"
            if self.score_name.endswith("accuracy"):
                change = f"{100 * (two - one):+.1f} points"
                rows.append((name, f"{one:.1%}", f"{two:.1%}", change))
            else:
                rows.append((name, digits_text(one), digits_text(two), _times(one, two)))
        found = self.difference
        if found is not None and found.agreement is not None:
            name = "same class named"
            rows.append((name, "", f"{found.agreement:.1%}", f"of {found.samples:,} rows"))
        if found is not None:
            text = f"{found.relative:.1e} relative"
            rows.append(("largest difference", "", f"{found.largest:.1e}", text))
        return rows

    def _times(self) -> list[tuple[str, ...]]:
        return [
            (
                f"latency, batch {one.batch_size}",
                seconds_text(one.before_seconds),
                seconds_text(one.after_seconds),
                speed_text(one),
            )
            for one in self.latencies
        ]

    def _lines(self) -> list[str]:
        slower = [one.batch_size for one in self.latencies if one.verdict == "slower"]
        lines = list(self.notes)
        if slower:
            where = " and ".join(f"batch {size}" for size in slower)
            lines.insert(0, f"It got slower at {where}.")
        if self.latencies:
            lines.append(f"Latencies: medians, both sides in turns, on {self.machine}.")
        if self.versions:
            lines.append(", ".join(f"{name} {value}" for name, value in self.versions.items()))
        return lines


def speed_text(one: Latency) -> str:
    """2.3 × as fast (2.1 to 2.4)."""
    spread = f"({digits_text(one.low, 2)} to {digits_text(one.high, 2)})"
    if one.verdict == "alike":
        return f"about as fast {spread}"
    if one.verdict == "slower":
        return f"slower: {digits_text(one.speedup, 2)} × {spread}"
    return f"{digits_text(one.speedup, 2)} × as fast {spread}"


def _row(name: str, one: float | None, two: float | None, text: Any) -> tuple[str, ...]:
    if one is None and two is None:
        return ()
    cells = [NOTHING if value is None else text(value) for value in (one, two)]
    return (name, *cells, _times(one, two))


def _times(one: float | None, two: float | None) -> str:
    return f"{digits_text(two / one)} ×" if one and two is not None and two != one else ""


def _share(part: int | None, whole: int | None) -> str:
    return NOTHING if part is None or not whole else percent_text(part, whole)


def _trials(tried: tuple[Trial, ...]) -> Table:
    sizes = sorted({size for trial in tried for size in trial.speedup})
    differs = any(trial.difference is not None for trial in tried)
    header = ["tried", "bytes", "same class", *(["difference"] if differs else [])]
    header += [f"× as fast, batch {size}" for size in sizes]
    rows = []
    for trial in tried:
        cells = [
            trial.name,
            NOTHING if trial.file_bytes is None else bytes_text(trial.file_bytes),
            NOTHING if trial.agreement is None else f"{trial.agreement:.1%}",
        ]
        if differs:
            cells.append(NOTHING if trial.difference is None else f"{trial.difference:.1e}")
        cells += [
            digits_text(trial.speedup[size], 2) if size in trial.speedup else NOTHING
            for size in sizes
        ]
        rows.append((*cells, trial.verdict))
    return Table((*header, "verdict"), tuple(rows), "", left=(0,), wrap=True)


def trials_text(tried: tuple[Trial, ...]) -> str:
    """The table of what was tried, for errors."""
    return _trials(tried).text()
