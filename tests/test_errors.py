"""bigzoo._errors and bigzoo._optional: messages that name got, expected and fix."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from bigzoo import _errors
from bigzoo._optional import require


def test_message_names_got_expected_and_fix():
    assert _errors.message("x", 3, "a word") == "`x` is 3; expected a word."
    assert _errors.message("x", 3, "a word", "Write it.") == "`x` is 3; expected a word. Write it."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cat", "`x` is 'cat'; "),
        (np.zeros((2, 3), "uint8"), r"an array of shape \(2, 3\) and dtype uint8; "),
        (np.float64(1.5), r"1\.5"),
        ("a" * 500, "^`x` is 'a{70,80}…; "),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_message_shows_values_in_short(value, text):
    got = _errors.message("x", value, "something else")
    assert re.search(text, got), got
    assert "\n" not in got
    assert len(got) < 140


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("modren", "Did you mean 'modern'? Known: 'modern', 'plain'."),
        ("zzz", "Known: 'modern', 'plain'."),
        (7, "Known: 'modern', 'plain'."),
    ],
)
def test_suggest(name, expected):
    assert _errors.suggest(name, ["plain", "modern"]) == expected


def test_suggest_cuts_long_lists():
    text = _errors.suggest("x", [f"name{i:02d}" for i in range(40)])
    assert text.endswith("'name11', ….")


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3)])
def test_check_int_takes_integers(value):
    number = _errors.check_int("n", value, minimum=1, maximum=3)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3.0, TypeError, r"`n` is 3\.0; expected an integer at least 1 and at most 5\. Fix it\."),
        ("3", TypeError, "`n` is '3'"),
        (True, TypeError, "`n` is True"),
        (None, TypeError, "`n` is None"),
        (0, ValueError, r"`n` is 0; expected an integer at least 1 and at most 5\. Fix it\."),
        (6, ValueError, "`n` is 6"),
    ],
)
def test_check_int_refuses(value, error, text):
    with pytest.raises(error, match=text):
        _errors.check_int("n", value, minimum=1, maximum=5, fix="Fix it.")


@pytest.mark.parametrize("value", [0, 0.25, np.float32(0.25), np.int8(0)])
def test_check_number_takes_numbers(value):
    number = _errors.check_number("p", value, minimum=0, below=1)
    assert number == float(value)
    assert type(number) is float


@pytest.mark.parametrize(
    ("value", "limits", "error"),
    [
        (1, {"below": 1}, ValueError),
        (0, {"above": 0}, ValueError),
        (-0.1, {"minimum": 0}, ValueError),
        (1.1, {"maximum": 1}, ValueError),
        (float("nan"), {}, ValueError),
        (float("inf"), {}, ValueError),
        ("1", {}, TypeError),
        (True, {}, TypeError),
        (None, {}, TypeError),
        (1j, {}, TypeError),
    ],
)
def test_check_number_refuses(value, limits, error):
    with pytest.raises(error, match=r"`p` is .*; expected a finite number"):
        _errors.check_number("p", value, **limits)


def test_check_number_names_its_range():
    with pytest.raises(ValueError, match=r"a finite number above 0 and at most 2\."):
        _errors.check_number("p", 3, maximum=2, above=0)


@pytest.mark.parametrize("value", ["a", None, 1])
def test_check_choice_takes_a_choice(value):
    assert _errors.check_choice("x", value, ["a", None, 1]) == value


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("aple", ValueError, "`x` is 'aple'; expected a known name. Did you mean 'apple'"),
        (1, TypeError, "`x` is 1; expected one of 'apple', None, True"),
        (np.zeros(2), TypeError, r"`x` is an array of shape \(2,\)"),
    ],
)
def test_check_choice_refuses(value, error, text):
    with pytest.raises(error, match=text):
        _errors.check_choice("x", value, ["apple", None, True])


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_check_bool_takes_booleans(value):
    assert _errors.check_bool("x", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_check_bool_refuses(value):
    with pytest.raises(TypeError, match="expected True or False"):
        _errors.check_bool("x", value)


def test_require_imports():
    assert require("json.decoder") is sys.modules["json.decoder"]


def test_require_says_how_to_install():
    expected = "bigzoo.x needs the package 'no_such_package', which is not installed. Run: pip inst"
    with pytest.raises(ImportError, match=expected):
        require("no_such_package.part", purpose="bigzoo.x")
    with pytest.raises(ImportError, match=r"Run: pip install other-name$"):
        require("no_such_package", package="other-name")


def test_require_passes_on_a_fault_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("half_installed")
