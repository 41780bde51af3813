"""What counts as text: lists of str, and files that hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigzoo._errors import message

EXPECTED = "texts: a list of str, one per sample"


def check_texts(name: str, texts: Any) -> list[str]:
    """`texts` as a list of str, or an error that names the first row that is none.

    Args:
        name: Name of the argument, for the message.
        texts: A list, tuple, array or pandas column of str, or one str, which counts as one row.
    """
    if isinstance(texts, str):
        texts = [texts]
    # A dict iterates over its keys and a file name over its letters: neither is meant.
    if isinstance(texts, (bytes, bytearray, dict, set)) or not hasattr(texts, "__iter__"):
        raise TypeError(message(name, texts, EXPECTED, _fix(texts)))
    if hasattr(texts, "columns"):
        fix = f"Give one column, such as {name}[{str(next(iter(texts.columns)))!r}]."
        raise TypeError(message(name, type(texts).__name__, EXPECTED, fix))
    if len(getattr(texts, "shape", (0,))) != 1:
        raise TypeError(message(name, texts, EXPECTED))
    rows = [str(text) if isinstance(text, str) else text for text in texts]
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(message(f"{name}[{row}]", text, "a str", _fix(text)))
        check_unicode(f"{name}[{row}]", text)
    return rows


def check_unicode(name: str, text: str) -> str:
    """`text`, or an error for halves of characters, which no file and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        fix = 'Remove them with text.encode("utf-8", "ignore").decode("utf-8").'
        got = f"has half a character (a lone surrogate) at place {error.start}"
        raise ValueError(f"`{name}` {got}; expected valid Unicode. {fix}") from error
    return text


def read_text(path: Path, shown: str, encoding: str = "utf-8") -> str:
    """The text of a file; a byte-order mark is not part of it.

    Args:
        path: The file.
        shown: Its name for messages.
        encoding: Of the text.
    """
    if not isinstance(encoding, str):
        raise TypeError(message("encoding", encoding, 'the name of an encoding, such as "utf-8"'))
    data = path.read_bytes()
    if b"\0" in data and "16" not in encoding and "32" not in encoding:
        got = f"'{shown}' is a binary file (it has zero bytes); expected text in {encoding}."
        raise ValueError(f"{got} Remove it, or write its text into a .txt file.")
    known = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    try:
        text = data.decode("utf-8-sig" if known else encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{shown}' is not text in {encoding} (byte {error.start} is 0x{data[error.start]:02x}"
            '). If it is text in another encoding, pass for instance `encoding="latin-1"`.'
        ) from error
    except LookupError as error:
        expected = 'a known encoding, such as "utf-8"'
        raise ValueError(message("encoding", encoding, expected)) from error
    return text.replace("\r\n", "\n")


def _fix(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return 'Decode bytes first: value.decode("utf-8").'
    if value is None or (not hasattr(value, "shape") and value != value):
        return 'A value is missing there. Drop the row, or fill it with "".'
    if type(value).__name__ in ("NAType", "NaTType"):
        return 'A value is missing there. Drop the row, or fill it with "".'
    if isinstance(value, (int, float)):
        return "Numbers are no text; str(value) makes one."
    return ""
