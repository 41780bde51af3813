"""Texts with labels, from class folders and from tables, as batches of token ids."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigzoo._errors import check_int, check_number, message
from bigzoo.data._csv import _target
from bigzoo.data._scan import display, side_of_split
from bigzoo.data._split import split_rows
from bigzoo.data._table import Table, read_table
from bigzoo.data._text_batches import BUCKETS, TextBatches, check_tokenizer
from bigzoo.data._text_scan import list_texts
from bigzoo.data._texts import read_text
from bigzoo.data._tokenizer import Tokenizer

Parts = tuple[TextBatches, TextBatches | None]


def text_folder(
    folder: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer,
    length: int | None = None,
    truncate: bool = False,
    inputs: str = "all",
    batch_size: int = 32,
    val_fraction: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    encoding: str = "utf-8",
    buckets: Sequence[int] = BUCKETS,
) -> Parts:
    """Read a folder of .txt files with one sub-folder per class, as token ids, in two parts.

    A file is one text; files in folders within a class folder count, too, and names that begin
    with a dot don't. The split is stratified and depends on file names and `seed` alone; files
    with the same text always go to the same side.

    Args:
        folder: Path of a folder with two or more class folders, such as reviews/negative and
            reviews/positive.
        tokenizer: A `bigzoo.data.text.Tokenizer`.
        length: Most tokens of a text; None for what the tokenizer's model takes.
        truncate: Whether to cut longer texts; otherwise they are an error.
        inputs: "all" or "token_ids", see `bigzoo.data.TextBatches`.
        batch_size: Samples per batch, at least 1.
        val_fraction: Share of each class that is held out, in [0, 1). At 0, `val` is None.
        seed: At least 0; decides split and order.
        class_names: Class folders to read, in the order of their labels; all of them in
            alphabetical order by default.
        encoding: Of the files.
        buckets: Lengths to pad to.

    Returns:
        `(train, val)`: `TextBatches` with y int64 of shape (batch,). The training part is shuffled.

    Raises:
        FileNotFoundError: if `folder` isn't there.
        ValueError: if it lacks class folders or texts, or a file is empty, binary, not in
            `encoding` or too long; the message names it.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> texts, y = bz.data.drawn_reviews(20)
        >>> for i, (text, label) in enumerate(zip(texts, y)):
        ...     (root / bz.data.REVIEW_NAMES[label]).mkdir(exist_ok=True)
        ...     count = (root / bz.data.REVIEW_NAMES[label] / f"{i}.txt").write_text(text)
        >>> tok = bz.data.text.Tokenizer.train(texts)
        >>> train, val = bz.data.text_folder(root, tokenizer=tok)
        >>> train.class_names, train.num_samples, val.num_samples
        (('negative', 'positive'), 16, 4)
    """
    check_tokenizer(tokenizer)
    fraction = check_number("val_fraction", val_fraction, 0.0, below=1.0)
    seed = check_int("seed", seed, 0)
    listing = list_texts(folder, class_names, least=2 if fraction else 1)
    if listing.skipped:
        warnings.warn(_skipped(listing.skipped), stacklevel=2)
    shown = [display(str(listing.folder / name)) for name in listing.names]
    texts = [
        read_text(listing.folder / name, where, encoding)
        for name, where in zip(listing.names, shown, strict=True)
    ]
    for text, where in zip(texts, shown, strict=True):
        if not text.strip():
            raise ValueError(f"'{where}' is empty; expected text. Remove it.")
    side = side_of_split(listing.names, listing.labels, _digests(texts), fraction, seed)
    try:
        whole = TextBatches(
            texts, listing.labels, tokenizer=tokenizer, length=length, truncate=truncate,
            inputs=inputs, buckets=buckets, batch_size=batch_size, shuffle=True, seed=seed,
            class_names=listing.class_names,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(_with_names(str(error), shown)) from error
    if fraction and not side.any():
        raise ValueError(
            f"The folder '{display(str(listing.folder))}' has too few different texts to divide "
            f"({len(set(texts))}); expected some for each part. Set val_fraction=0, or raise it."
        )
    return _divided(whole, side)


def text_csv(
    path: str | os.PathLike[str],
    *,
    text: str,
    target: str,
    pair: str | None = None,
    tokenizer: Tokenizer,
    task: str | None = None,
    length: int | None = None,
    truncate: bool = False,
    inputs: str = "all",
    batch_size: int = 32,
    val_fraction: float = 0.2,
    groups: str | None = None,
    seed: int = 0,
    delimiter: str = ",",
    encoding: str = "utf-8",
    buckets: Sequence[int] = BUCKETS,
) -> Parts:
    """Read texts and targets from a comma-separated file, as token ids, in two parts.

    The first line names the columns. The target is read as by `bigzoo.data.csv`: as classes if it
    is text or a few whole numbers, as numbers otherwise. Rows with the same text always go to the
    same side of the split.

    Args:
        path: A text file.
        text: Name of the column with the texts.
        target: Name of the column to predict.
        pair: Name of a column with a second text, where the model compares two.
        tokenizer: A `bigzoo.data.text.Tokenizer`.
        task: "classification", "regression", or None to decide by the values.
        length: Most tokens of a text; None for what the tokenizer's model takes.
        truncate: Whether to cut longer texts; otherwise they are an error.
        inputs: "all" or "token_ids", see `bigzoo.data.TextBatches`.
        batch_size: Samples per batch, at least 1.
        val_fraction: Share that is held out, in [0, 1). At 0, `val` is None.
        groups: Name of a column whose equal values stay in one part, such as the author's.
        seed: At least 0; decides split and order.
        delimiter: One character between two values.
        encoding: Of the file.
        buckets: Lengths to pad to.

    Returns:
        `(train, val)`: `TextBatches` with y of shape (batch,), int64 class numbers, or (batch, 1),
        float32. The training part is shuffled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no table, a column is absent, a text or target is missing in some row,
            or a text is too long; the message names the line.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "reviews.csv")
        >>> texts, y = bz.data.drawn_reviews(20)
        >>> with open(path, "w") as file:
        ...     print("review,label", *[f'"{t}",{label}' for t, label in zip(texts, y)],
        ...           sep="\\n", file=file)
        >>> tok = bz.data.text.Tokenizer.train(texts)
        >>> train, val = bz.data.text_csv(path, text="review", target="label", tokenizer=tok)
        >>> train.class_names, train.num_samples, val.num_samples
        (('0', '1'), 16, 4)
    """
    check_tokenizer(tokenizer)
    fraction = check_number("val_fraction", val_fraction, 0.0, below=1.0)
    seed = check_int("seed", seed, 0)
    # "None" and "?" are texts like any others; only nothing is missing.
    table = read_table(path, delimiter=delimiter, encoding=encoding, missing_values=("",))
    texts = _text_column(table, "text", text)
    pairs = None if pair is None else _text_column(table, "pair", pair)
    y, class_names = _target(table, target, task)
    try:
        whole = TextBatches(
            texts, y, tokenizer=tokenizer, pairs=pairs, length=length, truncate=truncate,
            inputs=inputs, buckets=buckets, batch_size=batch_size, shuffle=True, seed=seed,
            class_names=class_names,
        )  # fmt: skip
    except ValueError as error:
        lines = [f"{table.source}, {table.where([row])}" for row in range(len(table))]
        raise ValueError(_with_names(str(error), lines)) from error
    # A NUL can't be in a text file's cell, so that it divides the two texts for certain.
    rows = texts if pairs is None else list(map("\0".join, zip(texts, pairs, strict=True)))
    side = _side_of_rows(table, rows, y, fraction, groups, seed)
    if fraction and not side.any():
        raise ValueError(
            f"{table.source} has too few different texts to divide ({len(set(rows))}); expected "
            "some for each part. Set val_fraction=0, or raise it."
        )
    return _divided(whole, side)


# === Details ===


def _text_column(table: Table, argument: str, name: Any) -> list[str]:
    if not isinstance(name, str):
        raise TypeError(message(argument, name, "the name of a column"))
    values = table.column(name, argument)
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"Column {name!r} (`{argument}`) has no text in {table.where(missing)}; expected one "
            "in each row. Remove those rows."
        )
    return [str(value) for value in values]


def _side_of_rows(
    table: Table, texts: list[str], y: np.ndarray, fraction: float, groups: str | None, seed: int
) -> np.ndarray:
    """True for rows of the validation part."""
    side = np.zeros(len(texts), bool)
    if fraction and groups is not None:
        names = np.array([str(value) for value in table.column(groups, "groups")])
        side[split_rows(len(texts), y, fraction, groups=names, seed=seed)[1]] = True
        return side
    labels = y if y.ndim == 1 else np.zeros(len(y), np.int64)
    names_of_rows = [str(row) for row in range(len(texts))]
    return side_of_split(names_of_rows, labels, _digests(texts), fraction, seed)


def _digests(texts: list[str]) -> list[bytes]:
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]


def _divided(whole: TextBatches, side: np.ndarray) -> Parts:
    if not side.any():
        return whole.replace(name="train"), None
    train = whole.select(np.flatnonzero(~side)).replace(name="train")
    return train, whole.select(np.flatnonzero(side)).replace(shuffle=False, name="val")


def _with_names(text: str, names: list[str]) -> str:
    """An error about `texts[3]` with the name of the file or line instead."""
    head, bracket, rest = text.partition("`texts[")
    number, closed, tail = rest.partition("]`")
    if head or not bracket or not closed or not number.isdecimal():
        return text
    return f"{names[int(number)]}:{tail}"


def _skipped(skipped: Sequence[str]) -> str:
    shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
    count = len(skipped)
    return f"{count} file{'s' if count > 1 else ''} without the ending .txt left out: {shown}."
