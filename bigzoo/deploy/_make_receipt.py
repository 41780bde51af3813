"""Weigh, compare and time two sides for a receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo.deploy import _weigh
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._latency import Latency, latency
from bigzoo.deploy._receipt import Receipt, Side, Trial

BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Subject:
    """Something that answers: a Keras model, or a file in its runtime.

    Attributes:
        what: What it is and where it runs, such as "LiteRT, int8".
        call: Takes inputs in the model's form and returns outputs; what is timed.
        model: The Keras model whose parameters and FLOPs it has, or None.
        path: Its file or folder; None weighs `model` as a `.keras` file.
        exact: Whether it computes with the weights of `model` as they are; after quantisation zeros
            and floating-point operations are others.
    """

    what: str
    call: Callable[[Any], Any]
    model: keras.Model | None
    path: Path | None = None
    exact: bool = True


def make_receipt(
    action: str,
    before: Subject,
    after: Subject,
    x: Any,
    *,
    kind: str | None = None,
    score: tuple[str, float, float, int] | None = None,
    found: Difference | None = None,
    times: Sequence[Latency] | None = None,
    measure: bool = True,
    tried: Sequence[Trial] = (),
    notes: Sequence[str] = (),
    path: Path | None = None,
    name: str | None = None,
) -> Receipt:
    """Weigh, compare and time two subjects.

    Args:
        action: What was done, one of `_receipt.ACTIONS`.
        before, after: The two sides.
        x: Rows that both answer, in the form that they take.
        kind: How to read classes from the answers, or None (see `difference`).
        score: Its name, its value before and after, and how many rows it stands on.
        found: A difference that is known already; None compares the answers on `x`.
        times: Latencies that are known already; None measures them if `measure` says so.
        measure: False leaves out what takes time: latencies and FLOPs.
        tried, notes, path: Go into the receipt as they are.
        name: Name of the model; None takes that of `before.model`.
    """
    if found is None:
        found = difference(before.call(x), after.call(x), kind)
    if times is None:
        times = measure_latencies(before.call, after.call, x) if measure else ()
    label = name or (before.model.name if before.model is not None else "model")
    scores = (None, None) if score is None else (score[1], score[2])
    return Receipt(
        action=action,
        model=label,
        before=_side(before, x, scores[0], measure),
        after=_side(after, x, scores[1], measure),
        difference=found,
        latencies=tuple(times),
        score_name=score[0] if score else "",
        score_rows=score[3] if score else 0,
        tried=tuple(tried),
        notes=tuple(notes),
        path=None if path is None else str(path),
        machine=_weigh.machine() if times else "",
        versions=_weigh.versions(),
    )


def measure_latencies(
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    x: Any,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seconds: float = 1.0,
) -> tuple[Latency, ...]:
    """Latency at each batch size, on the rows of `x`, repeated where there are too few."""
    return tuple(latency(before, after, take_rows(x, size), size, seconds) for size in batch_sizes)


def take_rows(x: Any, count: int) -> Any:
    """The first `count` rows of each array in `x`, from the start again where there are fewer."""
    return keras.tree.map_structure(
        lambda leaf: np.take(np.asarray(leaf), np.arange(count), axis=0, mode="wrap"), x
    )


def _side(subject: Subject, x: Any, score: float | None, measure: bool) -> Side:
    model, path = subject.model, subject.path
    plain = packed = params = zeros = operations = None
    if path is not None:
        plain, packed = _weigh.sizes(path)
    elif model is not None:
        plain, packed = _weigh.model_sizes(model)
    if model is not None:
        params, zeros = _weigh.parameters(model)
        if measure and subject.exact:
            operations = _weigh.flops(model, _open_shapes(model, x))
    zeros = zeros if subject.exact else None
    return Side(subject.what, plain, packed, params, zeros, operations, score)


def _open_shapes(model: keras.Model, x: Any) -> Any:
    """Shapes of the rows where the model leaves some open, such as the length of a text."""
    shapes = [tensor.shape[1:] for tensor in getattr(model, "inputs", None) or []]
    if not any(None in shape for shape in shapes):
        return None
    rows = keras.tree.map_structure(lambda leaf: tuple(np.asarray(leaf).shape[1:]), x)
    leaves = keras.tree.flatten(x)
    return tuple(np.asarray(leaves[0]).shape[1:]) if len(leaves) == 1 else rows
