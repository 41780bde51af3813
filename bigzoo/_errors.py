"""Messages that say what was got, what was expected, and how to fix it.

Standard library only: every room uses this module, and importing it must cost nothing.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any


def message(name: str, got: Any, expected: str, fix: str = "") -> str:
    """One or two sentences: "`name` is GOT; expected EXPECTED. FIX"."""
    text = f"`{name}` is {_short(got)}; expected {expected}."
    return f"{text} {fix}".strip()


def suggest(name: str, choices: Iterable[str]) -> str:
    """The nearest of `choices` as a sentence, then all of them where they are few."""
    known = sorted(map(str, choices))
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    shown = ", ".join(map(repr, known[:12])) + (", …" if len(known) > 12 else "")
    return f"{hint}Known: {shown}."


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a name that a module doesn't have, with the nearest ones that it has."""
    return AttributeError(f"module {module!r} has no attribute {name!r}. {suggest(name, known)}")


def check_int(
    name: str, value: Any, minimum: int | None = None, maximum: int | None = None, fix: str = ""
) -> int:
    """`value` as an int, or an error that gives the valid range. numpy integers are welcome."""
    expected = "an integer" + _range_text(minimum, maximum)
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_integer:
        raise TypeError(message(name, value, expected, fix))
    number = int(value)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise ValueError(message(name, value, expected, fix))
    return number


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    below: float | None = None,
    above: float | None = None,
    fix: str = "",
) -> float:
    """`value` as a finite float in [minimum, maximum], `above` and `below` excluded."""
    expected = "a finite number" + _range_text(minimum, maximum, below, above)
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(message(name, value, expected, fix))
    number = float(value)
    inside = (
        math.isfinite(number)
        and (minimum is None or number >= minimum)
        and (maximum is None or number <= maximum)
        and (below is None or number < below)
        and (above is None or number > above)
    )
    if not inside:
        raise ValueError(message(name, value, expected, fix))
    return number


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """`value` if it is one of `choices`, or an error that suggests the nearest name."""
    known = list(choices)
    # Types are compared too: 1 is not True here.
    if any(type(value) is type(choice) and value == choice for choice in known):
        return value
    names = [choice for choice in known if isinstance(choice, str)]
    if isinstance(value, str):
        raise ValueError(message(name, value, "a known name", suggest(value, names)))
    expected = "one of " + ", ".join(map(repr, known))
    raise TypeError(message(name, value, expected))


def check_bool(name: str, value: Any) -> bool:
    """`value` if it is True or False; nothing else counts as a switch."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise TypeError(message(name, value, "True or False"))


def shorten(error: BaseException, limit: int = 300) -> str:
    """The message of an error in one line, for use inside our own."""
    # Keras' messages carry colours for a terminal.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = " ".join(plain.split()) or type(error).__name__
    return (text if len(text) <= limit else text[: limit - 1] + "…").rstrip(".")


def _range_text(
    minimum: float | None,
    maximum: float | None,
    below: float | None = None,
    above: float | None = None,
) -> str:
    parts = []
    if minimum is not None:
        parts.append(f"at least {minimum}")
    if above is not None:
        parts.append(f"above {above}")
    if maximum is not None:
        parts.append(f"at most {maximum}")
    if below is not None:
        parts.append(f"below {below}")
    return f" {' and '.join(parts)}" if parts else ""


def _short(value: Any, limit: int = 80) -> str:
    """`repr` in one line and cut, arrays as their shape: an error must stay readable."""
    shape = getattr(value, "shape", None)
    if shape is not None and shape != ():
        dtype = getattr(value, "dtype", "")
        return f"an array of shape {tuple(shape)} and dtype {dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
