"""Numbers with units: rounding, the change from one unit to the next, and what isn't finite."""

from __future__ import annotations

import math

import pytest

from bigzoo import _units
from bigzoo._columns import shorten, shorten_all

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (_units.digits_text, 0, "0"),
        (_units.digits_text, 0.012345, "0.0123"),
        (_units.digits_text, 2.675, "2.68"),
        (_units.digits_text, 9.996, "10.0"),
        (_units.digits_text, 97.46, "97.5"),
        (_units.digits_text, 1234, "1,230"),
        (_units.digits_text, -0.5, "-0.500"),
        (_units.digits_text, 1e-9, "0.00000000100"),
        (_units.digits_text, math.nan, "not a number"),
        (_units.digits_text, math.inf, "infinite"),
        (_units.bytes_text, 0, "0 B"),
        (_units.bytes_text, 1, "1 B"),
        (_units.bytes_text, 1023, "1,023 B"),
        (_units.bytes_text, 1024, "1.00 KiB"),
        (_units.bytes_text, 97.5 * MIB, "97.5 MiB"),
        (_units.bytes_text, MIB - 1, "1.00 MiB"),
        (_units.bytes_text, 1010 * MIB, "0.986 GiB"),
        (_units.bytes_text, -1536, "-1.50 KiB"),
        (_units.bytes_text, math.inf, "infinite B"),
        (_units.flops_text, 0, "0 FLOP"),
        (_units.flops_text, 999, "999 FLOP"),
        (_units.flops_text, 1000, "1.00 kFLOP"),
        (_units.flops_text, 12.34e9, "12.3 GFLOP"),
        (_units.flops_text, 999.4e9, "999 GFLOP"),
        (_units.flops_text, 999.6e9, "1.00 TFLOP"),
        (_units.rate_text, 989.4e12, "989 TFLOP/s"),
        (_units.macs_text, 3_858_000_000, "3.86 GMAC"),
        (_units.bandwidth_text, 3.35e12, "3.35 TB/s"),
        (_units.energy_text, 100, "100 J"),
        (_units.energy_text, 359.9, "360 J"),
        (_units.energy_text, 360, "0.100 Wh"),
        (_units.energy_text, 3.6e6, "1.00 kWh"),
        (_units.mass_text, 0.0123, "12.3 g"),
        (_units.mass_text, 0.0000123, "12.3 mg"),
        (_units.mass_text, 0.9999, "1.00 kg"),
        (_units.mass_text, 12_345, "12.3 t"),
        (_units.seconds_text, 0, "0 ms"),
        (_units.seconds_text, 5e-7, "0.500 µs"),
        (_units.seconds_text, 0.0123, "12.3 ms"),
        (_units.seconds_text, 0.9996, "1.00 s"),
        (_units.seconds_text, 61, "1.02 min"),
        (_units.seconds_text, 7200, "2.00 h"),
        (_units.seconds_text, 200_000, "2.31 days"),
        (_units.seconds_text, 1e9, "31.7 years"),
    ],
)
def test_text(function, value, text):
    assert function(value) == text


def test_two_digits():
    assert _units.bytes_text(97.5 * MIB, 2) == "98 MiB"
    assert _units.bytes_text(971 * MIB, 2) == "970 MiB"
    assert _units.bytes_text(1.94 * GIB, 2) == "1.9 GiB"


@pytest.mark.parametrize("value", [10.0**k * f for k in range(-3, 15) for f in (1, 4.44, 9.994)])
def test_the_text_is_the_value_to_three_digits(value):
    """Read back, each text is within half a unit of the third digit."""
    prefixes = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    number, unit = _units.flops_text(value).split()
    read = float(number.replace(",", "")) * prefixes[unit.removesuffix("FLOP")]
    assert read == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.6 * GIB, 2.4 * GIB, "1.6 to 2.4 GiB"),
        (800 * MIB, 1.2 * GIB, "800 MiB to 1.2 GiB"),
        (1.61 * GIB, 1.62 * GIB, "1.6 GiB"),
    ],
)
def test_range(low, high, text):
    assert _units.range_text(low, high, _units.bytes_text) == text


def test_range_of_numbers_without_a_unit():
    assert _units.range_text(1, 2, _units.digits_text) == "1.0 to 2.0"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 4, "25.0%"),
        (4, 4, "100%"),
        (0, 4, "0.0%"),
        (1, 10**6, "<0.1%"),
        (0, 0, "–"),
        (1, 0, "–"),
        (math.nan, 1, "–"),
    ],
)
def test_percent(part, whole, text):
    assert _units.percent_text(part, whole) == text


def test_shortened_names_keep_their_ends_and_have_no_control_characters():
    assert shorten("dense", 10) == "dense"
    assert shorten("a_very_long_name", 9) == "a_ve…name"
    assert len(shorten("a" * 100, 20)) == 20
    assert shorten("two\nlines\x1b[31m", 40) == "two?lines?[31m"


def test_long_names_lose_what_they_have_in_common():
    names = [f"backbone/stage/very_long_conv{i}_1_conv/separable" for i in (10, 2)]
    assert shorten_all([*names, "all"], 20) == [
        "…e/very_long_conv10…",
        "…e/very_long_conv2…",
        "all",
    ]
    assert shorten_all(["a" * 50, "b" * 50], 10) == ["aaaaa…aaaa", "bbbbb…bbbb"]
    assert shorten_all(["a" * 50, "a" * 50], 10) == ["aaaaa…aaaa"] * 2
    assert all(len(name) <= 20 for name in shorten_all(names, 20))
