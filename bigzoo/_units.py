"""Numbers with units, for tables and plots. Standard library only.

Bytes come in powers of 1024 (MiB), everything else in powers of 1000. Three significant digits,
unless told otherwise: more would claim an exactness that no estimate has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_MINUTE, _HOUR, _DAY, _YEAR = 60.0, 3600.0, 86_400.0, 365.25 * 86_400.0
NOTHING = "–"


def digits_text(value: float, digits: int = 3) -> str:
    """`value` rounded to this many significant digits, without an exponent: 0.0123, 97.5, 1,230."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    # From the shortest text that gives the same float: 2.675 is then rounded as what it reads as.
    exact = Decimal(repr(float(value)))
    place = exact.adjusted() - digits + 1
    rounded = exact.quantize(Decimal(1).scaleb(place), rounding=ROUND_HALF_EVEN)
    if rounded.adjusted() > exact.adjusted():  # 9.996 -> 10.00, one digit too many
        rounded = rounded.quantize(Decimal(1).scaleb(place + 1))
    return f"{rounded:,f}" if place < 0 else f"{int(rounded):,}"


def bytes_text(value: float, digits: int = 3) -> str:
    """97.5 MiB."""
    return _scaled(value, 1024, _BINARY, digits)


def flops_text(value: float, digits: int = 3) -> str:
    """12.3 GFLOP: a number of operations, not a rate."""
    return _scaled(value, 1000, tuple(f"{prefix}FLOP" for prefix in _DECIMAL), digits)


def rate_text(value: float, digits: int = 3) -> str:
    """989 TFLOP/s."""
    return f"{flops_text(value, digits)}/s"


def macs_text(value: float, digits: int = 3) -> str:
    """3.86 GMAC: a number of multiply-adds."""
    return _scaled(value, 1000, tuple(f"{prefix}MAC" for prefix in _DECIMAL), digits)


def bandwidth_text(value: float, digits: int = 3) -> str:
    """3.35 TB/s, in powers of 1000 as vendors give it."""
    return _scaled(value, 1000, tuple(f"{prefix}B/s" for prefix in _DECIMAL), digits)


def energy_text(joules: float, digits: int = 3) -> str:
    """1.23 kWh from a tenth of a watt-hour on, joules below."""
    if abs(joules) < 360:
        return _scaled(joules, 1000, tuple(f"{prefix}J" for prefix in _DECIMAL), digits)
    return _scaled(joules / 3600, 1000, tuple(f"{prefix}Wh" for prefix in _DECIMAL), digits)


def mass_text(kilograms: float, digits: int = 3) -> str:
    """12.3 kg, 12.3 g, 12.3 mg, 12.3 t."""
    if abs(kilograms) >= 1000:
        return _scaled(kilograms / 1000, 1000, tuple(f"{prefix}t" for prefix in _DECIMAL), digits)
    for scale, unit in ((1.0, "kg"), (1e3, "g")):
        if abs(kilograms) * scale >= 0.9995:
            return f"{digits_text(kilograms * scale, digits)} {unit}"
    return f"{digits_text(kilograms * 1e6, digits)} mg"


def seconds_text(seconds: float, digits: int = 3) -> str:
    """12.3 ms, 45.6 s, 7.89 min, 1.23 h, 4.56 days, 7.89 years."""
    size = abs(seconds)
    if size < 0.9995:
        scale, unit = (1e3, "ms") if size >= 0.0009995 or size == 0 else (1e6, "µs")
        return f"{digits_text(seconds * scale, digits)} {unit}"
    steps = ((_MINUTE, "s", 1.0), (_HOUR, "min", _MINUTE), (2 * _DAY, "h", _HOUR))
    for bound, unit, scale in (*steps, (2 * _YEAR, "days", _DAY)):
        if size < bound:
            return f"{digits_text(seconds / scale, digits)} {unit}"
    return f"{digits_text(seconds / _YEAR, digits)} years"


def percent_text(part: float, whole: float) -> str:
    """12.3%; "<0.1%" for what would read as zero and isn't; a dash where there is no whole."""
    if not whole or not math.isfinite(part / whole):
        return NOTHING
    share = part / whole
    if 0 < share < 0.0005:
        return "<0.1%"
    return "100%" if share == 1 else f"{share:.1%}"


def range_text(low: float, high: float, text: Callable[[float, int], str], digits: int = 2) -> str:
    """As in 1.6 to 2.4 GiB: the unit once if both have it; one value if both read alike."""
    first, last = text(low, digits), text(high, digits)
    if first == last:
        return last
    number, _, unit = first.rpartition(" ")
    return f"{number} to {last}" if number and last.endswith(f" {unit}") else f"{first} to {last}"


def _scaled(value: float, base: int, units: tuple[str, ...], digits: int) -> str:
    if not math.isfinite(value):
        return f"{digits_text(value)} {units[0]}"
    if abs(value) < base and float(value).is_integer():
        return f"{int(value):,} {units[0]}"  # few enough to count: exact
    size, position = float(value), 0
    # Numbers are compared as they will be shown: 999.96 k must read 1.00 M. And 1,012 KiB has more
    # than three digits, so that it reads 0.988 MiB.
    while position + 1 < len(units) and _shown(size, digits) >= 1000:
        size, position = size / base, position + 1
    return f"{digits_text(size, digits)} {units[position]}"


def _shown(value: float, digits: int) -> float:
    return abs(float(digits_text(value, digits).replace(",", "")))
