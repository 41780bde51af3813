"""What a check found: findings, and the report that shows, warns about or raises them."""

from __future__ import annotations

import html
import warnings
from dataclasses import dataclass, field


class BigzooWarning(UserWarning):
    """A doubt about a program: it runs, but probably doesn't do what is meant."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong ("error") or doubtful ("warning").

    Attributes:
        level: "error" or "warning".
        code: Stable short name, such as "loss-vs-activation".
        where: What it is about, such as "y" or "output 'predictions'".
        got: What was found.
        expected: What would be right.
        fix: What to do, as code to paste where that is possible.
    """

    level: str
    code: str
    where: str
    got: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return (
            f"{self.level.upper()} {self.code} ({self.where})\n"
            f"  got:      {self.got}\n"
            f"  expected: {self.expected}\n"
            f"  fix:      {self.fix}"
        )

    @property
    def sentence(self) -> str:
        """The finding in one line, for an exception or a warning."""
        return (
            f"{self.where}: got {self.got}; expected {self.expected}. Fix: {self.fix} [{self.code}]"
        )


def error(code: str, where: str, got: str, expected: str, fix: str) -> Finding:
    return Finding("error", code, where, got, expected, fix)


def warning(code: str, where: str, got: str, expected: str, fix: str) -> Finding:
    return Finding("warning", code, where, got, expected, fix)


@dataclass
class Report:
    """The findings of a check; prints as text and shows as HTML in a notebook.

    Attributes:
        findings: All findings, errors first.
        notes: What could not be looked at, and why.

    Example:
        >>> finding = bz.train.Finding("error", "empty-data", "x", "0 rows", "1 or more", "load it")
        >>> report = bz.train.Report([finding])
        >>> report.ok, len(report.errors), len(report.warnings)
        (False, 1, 0)
        >>> print(report)
        1 error, 0 warnings
        <BLANKLINE>
        ERROR empty-data (x)
          got:      0 rows
          expected: 1 or more
          fix:      load it
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.findings = sorted(dict.fromkeys(self.findings), key=lambda one: one.level != "error")
        self.notes = list(dict.fromkeys(self.notes))

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def ok(self) -> bool:
        """True if there is neither an error nor a warning."""
        return not self.findings

    def raise_for_errors(self) -> None:
        """Raise one ValueError that lists every error with its fix; nothing without errors."""
        errors = self.errors
        if len(errors) == 1:
            raise ValueError(errors[0].sentence)
        if errors:
            lines = [f"{number}. {one.sentence}" for number, one in enumerate(errors, 1)]
            raise ValueError(f"{len(errors)} errors were found:\n" + "\n".join(lines))

    def warn(self, stacklevel: int = 2) -> None:
        """Emit one `BigzooWarning` for each doubt; `stacklevel` as in `warnings.warn`."""
        for finding in self.warnings:
            warnings.warn(finding.sentence, BigzooWarning, stacklevel=stacklevel)

    def __str__(self) -> str:
        head = "No findings." if self.ok else self._counts()
        notes = [f"Note: {note}" for note in self.notes]
        return "\n\n".join([head, *map(str, self.findings), *notes])

    def __repr__(self) -> str:
        return str(self)

    def _counts(self) -> str:
        errors, doubts = len(self.errors), len(self.warnings)
        plural = ("" if errors == 1 else "s", "" if doubts == 1 else "s")
        return f"{errors} error{plural[0]}, {doubts} warning{plural[1]}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>Note: {html.escape(note)}</p>" for note in self.notes)
        if self.ok:
            return f"<p>No findings.</p>{notes}"
        cells = ("level", "code", "where", "got", "expected", "fix")
        head = "".join(f"<th>{cell}</th>" for cell in cells)
        rows = []
        for finding in self.findings:
            texts = (html.escape(str(getattr(finding, cell))) for cell in cells)
            rows.append("<tr>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f"<p>{self._counts()}</p>{table}{notes}"
