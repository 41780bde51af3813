"""Text in columns, for tables in a terminal. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


def in_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under the header and a rule, each column as wide as its longest text."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [_line(line, widths) for line in lines]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def clean(text: str) -> str:
    """One line without control characters: a name must not move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def shorten(text: str, limit: int) -> str:
    """`text` with its middle left out: the ends of a layer's name tell most."""
    text = clean(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def shorten_all(texts: Sequence[str], limit: int) -> list[str]:
    """Each at most `limit` long; what all the long ones have in common goes first."""
    cleaned = [clean(text) for text in texts]
    long = [text for text in cleaned if len(text) > limit]
    if len(set(long)) < 2:
        return [shorten(text, limit) for text in cleaned]
    # Cut between words: of "net/conv2_a" and "net/conv3_a", "conv" stays.
    start = _common_words(long)
    end = _common_words([text[start:][::-1] for text in long])
    spare = limit - 2 - (max(map(len, long)) - start - end)
    start = max(0, start - max(0, spare))
    result: list[str] = []
    for text in cleaned:
        if len(text) > limit:
            middle = text[start : len(text) - end]
            text = f"{'…' if start else ''}{middle}{'…' if end else ''}"
        result.append(shorten(text, limit))
    return result


def _common_words(texts: Sequence[str]) -> int:
    """Length of the whole words that all of `texts` begin with."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    common = "".join(letters[0] for letters in same)
    return max(common.rfind(mark) for mark in "/_.-") + 1
