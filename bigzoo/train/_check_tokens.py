"""Token ids against the tables that a model looks them up in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bigzoo.train._report import Finding, error, warning

# Inputs that say something about tokens; all rows of them may well be the same.
MASK_INPUTS = ("padding_mask", "attention_mask", "segment_ids", "token_type_ids")
# Operations that number the places of a sequence, by the names of their classes.
_COUNTING = ("cumsum", "arange")


def check_tokens(
    x: np.ndarray, where: str, marks: set[Any], known: tuple[int, int] | None
) -> list[Finding]:
    """Numbers that an Embedding has no row for.

    Args:
        x: The rows that were looked at.
        where: What they are, for the finding.
        marks: What the model does with them, from `entries`.
        known: The smallest and the largest number of all rows, where these are known.
    """
    sizes = [mark[1] for mark in marks if isinstance(mark, tuple) and mark[0] == "embedding"]
    if not sizes:
        return []
    if x.dtype.kind == "f" and bool((x != np.floor(x)).any()):
        row = int(np.argwhere((x != np.floor(x)).reshape(len(x), -1).any(axis=1))[0][0])
        got = f"numbers that are not whole, first in row {row}"
        expected = f"integers from 0 to {min(sizes) - 1}, for an Embedding of {min(sizes)} rows"
        fix = 'x = x.astype("int32")  # or leave out what scales or averages the token ids'
        return [error("token-fractions", where, got, expected, fix)]
    low, high = known if known is not None else (float(x.min()), float(x.max()))
    if low >= 0 and high < min(sizes):
        return []
    expected = f"integers from 0 to {min(sizes) - 1}, for an Embedding of {min(sizes)} rows"
    fix = f"keras.layers.Embedding({int(high) + 1}, ...)  # vocab_size={int(high) + 1}"
    if low < 0:
        fix = "x = np.maximum(x, 0)  # where negative numbers stand for padding"
    got = f"tokens from {low:g} to {high:g}"
    return [error("token-range", where, got, expected, fix)]


def check_sequence(model: keras.Model, index: int, x: np.ndarray, where: str) -> list[Finding]:
    """Sequences longer than the table of positions that the model looks places up in."""
    if x.ndim != 2:
        return []
    sizes = [layer.input_dim for layer in _position_tables(model, index)]
    if not sizes or x.shape[1] <= min(sizes):
        return []
    got = f"sequences of {x.shape[1]} tokens"
    expected = f"at most {min(sizes)}, the rows of the model's table of positions"
    fix = f"x = x[:, :{min(sizes)}]  # or TextBatches(..., length={min(sizes)}, truncate=True)"
    return [error("sequence-too-long", where, got, expected, fix)]


def check_padding(
    name: str, x: np.ndarray, where: str, marks: set[Any], pad_id: int = 0
) -> list[Finding]:
    """Rows without any token: a model can only guess there.

    Args:
        name: Name of the model's input.
        x: The rows that were looked at.
        where: What they are, for the finding.
        marks: What the model does with them, from `entries`.
        pad_id: The token that stands for padding.
    """
    is_mask = name in MASK_INPUTS[:2]
    is_tokens = any(isinstance(mark, tuple) and mark[0] == "embedding" for mark in marks)
    if x.ndim != 2 or not (is_mask or (is_tokens and name == "token_ids")):
        return []
    empty = (x == (0 if is_mask else pad_id)).all(axis=1)
    count = int(empty.sum())
    if count == 0:
        return []
    got = f"{count} of {len(x)} rows that are padding alone, first row {int(np.argmax(empty))}"
    fix = "leave out empty texts: keep = [bool(text.strip()) for text in texts]"
    make = error if 2 * count > len(x) else warning
    return [make("all-padding", where, got, "at least one token in each row", fix)]


def _position_tables(model: keras.Model, index: int) -> Iterator[Any]:
    """Embeddings of the places in input `index`, found by how their numbers are made."""
    try:
        source = model.inputs[index]
        operations = list(model.operations)
    except (AttributeError, IndexError, TypeError, ValueError):
        return  # a subclassed model has no graph
    makers: dict[int, Any] = {}
    for operation in operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        try:
            made = keras.tree.flatten(operation.output)
        except (AttributeError, ValueError):
            continue
        makers |= {id(tensor): operation for tensor in made}
    for operation in operations:
        if isinstance(operation, keras.layers.Embedding) and _counts(operation, makers, source):
            yield operation


def _counts(embedding: Any, makers: dict[int, Any], source: Any) -> bool:
    """Whether what is looked up numbers the places of `source`."""
    waiting = keras.tree.flatten(embedding.input)
    counting = from_source = False
    for _ in range(50):  # enough for any way of making positions, and an end for any graph
        if not waiting:
            break
        tensor = waiting.pop()
        from_source = from_source or tensor is source
        operation = makers.get(id(tensor))
        if operation is None:
            continue
        if isinstance(operation, keras.layers.Layer):
            return False  # what a layer has computed is no number of a place
        counting = counting or type(operation).__name__.lower() in _COUNTING
        waiting += keras.tree.flatten(operation.input)
    return counting and from_source
