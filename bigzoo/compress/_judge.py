"""What a quantised model is judged by: agreement, scores and latencies beside the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo.compress._calibration import Samples
from bigzoo.compress._data import outputs_of
from bigzoo.compress._score import classes_of, score_outputs
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._latency import Latency
from bigzoo.deploy._make_receipt import Subject, make_receipt, measure_latencies
from bigzoo.deploy._receipt import Receipt, Trial


@dataclass(frozen=True)
class Judge:
    """The original, the rows to compare on, and what must be reached.

    Attributes:
        model: As the user gave it.
        plain: The same as it infers.
        data: Samples.
        call: The original's compiled call.
        outputs: What it says to the rows.
        kind: How to read classes from the outputs, or None.
        min_agreement: Least agreement.
        may_be_slower: Whether speed is only reported.
        latency: Whether latencies are measured.
    """

    model: keras.Model
    plain: keras.Model
    data: Samples
    call: Callable[[Any], Any]
    outputs: Any
    kind: str | None
    min_agreement: float
    may_be_slower: bool
    latency: bool


@dataclass(frozen=True)
class Verdict:
    """How one candidate did.

    Attributes:
        found: Its difference from the original.
        agreement: As `min_agreement` counts it.
        times: Its latencies beside those of the original.
        outputs: What it says to the rows.
        agrees: Whether the agreement is enough.
        slower: Batch sizes at which it is slower than the original.
    """

    found: Difference
    agreement: float
    times: tuple[Latency, ...]
    outputs: Any
    agrees: bool
    slower: tuple[int, ...]


def judge_of(
    model: keras.Model,
    plain: keras.Model,
    data: Samples,
    min_agreement: float,
    mode: str,
    latency: bool,
) -> Judge:
    call = CompiledCall(plain)
    outputs = outputs_of(call, data.x)
    for leaf in keras.tree.flatten(outputs):
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError("`model` gives NaN or infinite values; its training has diverged.")
    # Classes of made-up inputs mean nothing: they would all be the same one, or toss-ups.
    kind = None if data.calibration is None else classes_of(model, data.y)
    return Judge(model, plain, data, call, outputs, kind, min_agreement, mode != "auto", latency)


def verdict_on(judge: Judge, call: Callable[[Any], Any]) -> Verdict:
    """Compare and time a candidate."""
    outputs = outputs_of(call, judge.data.x)
    found = difference(judge.outputs, outputs, judge.kind)
    agreement = found.agreement
    if agreement is None:
        agreement = explained(judge.outputs, outputs)
    agrees = agreement >= judge.min_agreement
    times: tuple[Latency, ...] = ()
    if agrees and judge.latency:
        times = measure_latencies(judge.call, call, judge.data.x)
    slower = tuple(one.batch_size for one in times if one.verdict == "slower")
    return Verdict(found, agreement, times, outputs, agrees, slower)


def explained(expected: Any, got: Any) -> float:
    """R²: the share of the variance over the rows that is reproduced; the lowest of the outputs."""
    shares = []
    for one, two in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
        error = float(np.mean(np.square(one - two)))
        variance = float(np.mean(np.square(one - one.mean(axis=0))))
        scale = float(np.mean(np.square(one)))
        if not np.isfinite(error):
            shares.append(-np.inf)
        elif variance <= 1e-12 * scale:  # the same for all rows: only the value can be compared
            shares.append(1.0 - error / scale if scale else float(error == 0))
        else:
            shares.append(1.0 - error / variance)
    return min(shares)


def trial_of(judge: Judge, name: str, file_bytes: int, verdict: Verdict) -> Trial:
    fault = ""
    if not verdict.agrees:
        what = "same class" if judge.kind else "R²"
        fault = f"{what} {verdict.agreement:.3g}, below {judge.min_agreement:g}"
    elif verdict.slower:
        fault = f"slower at batch {' and '.join(map(str, verdict.slower))}"
    speed = {one.batch_size: one.speedup for one in verdict.times}
    relative = verdict.found.relative if verdict.found.agreement is None else None
    return Trial(name, file_bytes, verdict.found.agreement, speed, fault, relative)


def receipt_of(judge: Judge, verdict: Verdict, after: Subject, tried: tuple[Trial, ...]) -> Receipt:
    """The receipt of what was taken."""
    data, score = judge.data, None
    if data.y is not None:
        name, before = score_outputs(judge.outputs, data.y, judge.model)
        _, now = score_outputs(verdict.outputs, data.y, judge.model)
        score = (name, before, now, len(data.flat[0]))
    notes = [data.note] if data.note else []
    if judge.kind is None:
        notes.append(f"R² of the outputs: {verdict.agreement:.5f}.")
    if not judge.latency:
        notes.append("Whether it is faster was not measured.")
    return make_receipt(
        "quantize",
        Subject(f"Keras on {keras.backend.backend()}", judge.call, judge.plain),
        after,
        data.x,
        kind=judge.kind,
        score=score,
        found=verdict.found,
        times=verdict.times,
        measure=judge.latency,
        tried=tried,
        notes=notes,
        name=judge.model.name,
    )
