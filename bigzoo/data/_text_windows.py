"""One long text as batches of windows, to learn which token comes next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import check_int, check_number, message
from bigzoo.data._batches import Batches
from bigzoo.data._scan import display
from bigzoo.data._text_batches import check_tokenizer
from bigzoo.data._texts import read_text
from bigzoo.data._tokenizer import Tokenizer


def text_windows(
    text: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer,
    length: int = 64,
    stride: int | None = None,
    batch_size: int = 32,
    val_fraction: float = 0.1,
    seed: int = 0,
    encoding: str = "utf-8",
) -> tuple[Batches, Batches | None]:
    """One long text as windows of token ids, to learn to say which token comes next.

    The validation part is the end of the text; no window of one part has a token of the other.

    Args:
        text: The text itself, or the path of a text file. A str counts as a path if such a file
            exists, or if it is one word that ends in ".txt".
        tokenizer: A `bigzoo.data.text.Tokenizer`. No special tokens are added.
        length: Tokens in a window, at least 1.
        stride: Tokens from one window's start to the next one's; None for `length`, so that no
            token comes twice. Less gives more windows, which overlap.
        batch_size: Windows per batch, at least 1.
        val_fraction: Share of the text that is held out, in [0, 1). At 0, `val` is None.
        seed: At least 0; decides the order.
        encoding: Of the file.

    Returns:
        `(train, val)`: `Batches` with x, the tokens, and y, at each place the token that comes
        next: both int32 of shape (batch, length). The training part is shuffled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the text is too short for a window in each part.

    Example:
        >>> tok = bz.data.text.Tokenizer.train(["to be or not to be"], kind="char")
        >>> train, _ = bz.data.text_windows("to be or not to be, that is", tokenizer=tok,
        ...                                 length=5, val_fraction=0)
        >>> x, y = train.arrays()
        >>> tok.decode(x[0]), tok.decode(y[0]), len(x)
        ('to be', 'o be ', 5)
    """
    check_tokenizer(tokenizer)
    length = check_int("length", length, 1)
    step = length if stride is None else check_int("stride", stride, 1)
    fraction = check_number("val_fraction", val_fraction, 0.0, below=1.0)
    ids = np.array(tokenizer.encode(_whole_text(text, encoding), special_tokens=False), np.int32)
    cut = len(ids) - round(len(ids) * fraction)
    parts = [ids[:cut], ids[cut:]] if fraction else [ids]
    for part, name in zip(parts, ("training", "validation"), strict=False):
        if len(part) <= length:
            fix = "Give more text, or a smaller `length`."
            if len(ids) > length and fraction:
                fix = "Give more text, a smaller `length` or another `val_fraction`."
            raise ValueError(
                f"The {name} part of the text has {len(part)} tokens; expected at least "
                f"{length + 1}, for one window of {length} and the token that follows. {fix}"
            )
    train, *val = [
        Batches(*_windows(part, length, step), batch_size=batch_size, seed=seed, encoder=tokenizer)
        for part in parts
    ]
    train = train.replace(shuffle=True, name="train")
    return train, val[0].replace(name="val") if val else None


def _windows(ids: np.ndarray, length: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows and what follows each token of them, as views of `ids`."""
    both = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::step]
    return both[:, :-1], both[:, 1:]


def _whole_text(text: Any, encoding: str) -> str:
    if not isinstance(text, (str, os.PathLike)) or text == "":
        raise TypeError(message("text", text, "a text, or the path of a text file"))
    short = not isinstance(text, str) or (len(text) < 1024 and "\n" not in text)
    path = Path(text).expanduser() if short else None
    if path is None:
        return str(text)
    try:
        if path.is_file():
            return read_text(path, display(str(path)), encoding)
    except OSError:  # as a file name it is too long, so it is a text
        return str(text)
    looks_like_path = not isinstance(text, str) or (text.endswith(".txt") and " " not in text)
    if not looks_like_path:
        return str(text)
    expected = "a text, or the path of a text file; nothing is there"
    if path.is_dir():
        raise ValueError(message("text", str(path), "a text file; this is a folder"))
    raise FileNotFoundError(message("text", str(path), expected))
