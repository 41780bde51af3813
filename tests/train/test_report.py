"""The report of a check as text, as HTML, as an error and as warnings."""

from __future__ import annotations

import warnings

import pytest

from bigzoo.train._report import BigzooWarning, Finding, Report


def finding(level, code="some-code"):
    return Finding(level, code, "y", "a <b>", "c", "d = 1")


def test_report_sorts_and_counts():
    report = Report([finding("warning"), finding("error"), finding("error")], ["a note"])
    assert [one.level for one in report.findings] == ["error", "warning"]  # said once
    assert not report.ok
    assert str(report) == (
        "1 error, 1 warning\n\n"
        "ERROR some-code (y)\n  got:      a <b>\n  expected: c\n  fix:      d = 1\n\n"
        "WARNING some-code (y)\n  got:      a <b>\n  expected: c\n  fix:      d = 1\n\n"
        "Note: a note"
    )
    page = report._repr_html_()
    assert "a &lt;b&gt;" in page
    assert page.count("<tr>") == 3
    assert str(Report()) == "No findings."
    assert "No findings" in Report()._repr_html_()


def test_report_raises_for_errors_alone():
    Report([finding("warning")]).raise_for_errors()
    with pytest.raises(ValueError, match=r"^y: got a <b>; expected c. Fix: d = 1 \[some-code\]$"):
        Report([finding("error")]).raise_for_errors()
    with pytest.raises(ValueError, match=r"(?s)^2 errors were found:\n1\. y.*one\]\n2\. y.*two\]$"):
        Report([finding("error", "one"), finding("error", "two")]).raise_for_errors()


def test_report_warns_of_doubts_alone():
    with pytest.warns(BigzooWarning) as caught:
        Report([finding("warning", "one"), finding("error"), finding("warning", "two")]).warn()
    assert ["one" in str(caught[0].message), "two" in str(caught[1].message)] == [True, True]
    assert len(caught) == 2
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Report([finding("error")]).warn()
