"""8-bit and half-precision models: tried, compared, timed, and the smallest good one kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_choice, check_int, check_number, shorten
from bigzoo.compress._calibration import Samples, samples_of
from bigzoo.compress._candidates import MODES, candidates
from bigzoo.compress._data import outputs_of
from bigzoo.compress._quantized import QuantizedModel
from bigzoo.compress._score import is_classifier, kind_of, score_outputs
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._convert import convert
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._latency import Latency
from bigzoo.deploy._limits import check_limits
from bigzoo.deploy._make_receipt import Subject, make_receipt, measure_latencies
from bigzoo.deploy._receipt import Receipt, Trial, trials_text
from bigzoo.deploy._runtime import Runtime, open_file
from bigzoo.deploy._signature import signature_of

TARGETS = ("litert", "onnx", "keras")
_FILES = {"litert": "model.tflite", "onnx": "model.onnx"}
_RUNTIMES = {"litert": "LiteRT", "onnx": "ONNX Runtime"}


def quantize(
    model: keras.Model,
    calibration: Any = None,
    target: str = "litert",
    mode: str = "auto",
    min_agreement: float = 0.98,
    *,
    samples: int = 500,
    seed: int = 0,
    latency: bool = True,
) -> Any:
    """Make `model` about four times smaller by storing its weights in 8 bits.

    What suits the model is tried: "dynamic" (8-bit weights; ranges of activations as they come),
    "int8" (ranges fixed by calibration) and "float16" (half the size). Each is compared with the
    original on rows that weren't used for the calibration, and timed at batch 1 and 32 in turns
    with the original's compiled call. The smallest that agrees enough and isn't slower is kept;
    where all are slower at batch 32, the smallest that isn't at batch 1. `receipt.tried` tells of
    all.

    Classifiers agree where both name the same class. For other outputs, agreement is the share of
    the variance of each original output that the quantised one reproduces (R²), the lowest of all
    outputs.

    Args:
        model: A trained functional or Sequential model, on any backend. It isn't changed.
        calibration: Some real input, exactly as the model takes it: arrays, a pair (x, y), a
            `bigzoo.data.Batches`, a `keras.utils.PyDataset` or a `tf.data.Dataset`. 100 to 500
            rows are plenty. With labels, the receipt has the score before and after. None leaves
            int8 out and compares on made-up inputs, which the receipt says.
        target: "litert" for a .tflite file, "onnx" for ONNX Runtime, or "keras" for Keras' own
            int8 of Dense, EinsumDense and Embedding layers, which stays a `keras.Model`.
        mode: "auto", or the only one to try: "dynamic", "int8" or "float16" (LiteRT only). One that
            is asked for is kept even if it is slower, which the receipt says.
        min_agreement: Least agreement, in (0, 1].
        samples: Rows of `calibration` that are read at most, at least 2, evenly from all of them.
            A quarter of them, at most 100, calibrate; the others are compared on. Below 40 rows
            all are used for both.
        seed: Of made-up inputs, at least 0.
        latency: False leaves out latencies and FLOPs, which take seconds; whether a model is slower
            isn't looked at then.

    Returns:
        A `QuantizedModel`: callable, with `receipt`, `path`, `save(path)`; `bz.deploy.export` takes
        it. For the target "keras", a new `keras.Model` with `receipt`.

    Raises:
        ValueError: if nothing passes, with a table of what was tried; or if the calibration data
            have the wrong shape or surely the wrong scale, or there are none.
        ImportError: if a package for the target isn't installed; with the line for pip.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
        >>> model = bz.models.mlp(32, (256, 256), num_outputs=10, task="multiclass")
        >>> options = {"mode": "dynamic", "min_agreement": 0.8, "latency": False}  # it's untrained
        >>> small = bz.compress.quantize(model, x, **options)
        >>> small(x[:3]).shape, small.mode
        ((3, 10), 'dynamic')
        >>> small.receipt.after.file_bytes < 0.35 * small.receipt.before.file_bytes
        True
    """
    check_model(model)
    check_choice("target", target, TARGETS)
    check_choice("mode", mode, MODES)
    min_agreement = check_number("min_agreement", min_agreement, above=0, maximum=1)
    samples = check_int("samples", samples, 2)
    seed = check_int("seed", seed, 0)
    latency = check_bool("latency", latency)
    plain = inference_model(model)
    if target == "keras":
        from bigzoo.compress._keras_int8 import check_layers, quantize_keras

        check_layers(plain, mode)
        data = samples_of(model, calibration, samples, seed)
        judge = _judge(model, plain, data, min_agreement, mode, latency)
        return quantize_keras(judge)
    signature = signature_of(plain)
    rounds = candidates(plain, target, mode, calibration is not None)
    try:
        check_limits(plain, signature, target, dynamic := True)
    except ValueError:
        check_limits(plain, signature, target, dynamic := False)
    data = samples_of(model, calibration, samples, seed)
    judge = _judge(model, plain, data, min_agreement, mode, latency)

    def again(other: str) -> Any:
        options: dict[str, Any] = {"samples": samples, "seed": seed, "latency": latency}
        return quantize(model, calibration, other, "auto", min_agreement, **options)

    return _best(judge, rounds, target, dynamic, again)


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
        fault: Why it can't be taken, or "".
        slower: Batch sizes at which it is slower than the original.
    """

    found: Difference
    agreement: float
    times: tuple[Latency, ...]
    outputs: Any
    fault: str
    slower: tuple[int, ...] = ()


def _judge(
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
    is_classes = data.calibration is not None and is_classifier(model, data.y)
    kind = kind_of(plain) if is_classes else None
    return Judge(model, plain, data, call, outputs, kind, min_agreement, mode != "auto", latency)


def verdict_on(judge: Judge, call: Callable[[Any], Any]) -> Verdict:
    """Compare and time a candidate."""
    outputs = outputs_of(call, judge.data.x)
    found = difference(judge.outputs, outputs, judge.kind)
    agreement = found.agreement
    if agreement is None:
        agreement = explained(judge.outputs, outputs)
    times: tuple[Latency, ...] = ()
    slower: tuple[int, ...] = ()
    fault = ""
    if not agreement >= judge.min_agreement:
        what = "same class" if judge.kind else "R²"
        fault = f"{what} {agreement:.3g}, below {judge.min_agreement:g}"
    elif judge.latency:
        times = measure_latencies(judge.call, call, judge.data.x)
        slower = tuple(one.batch_size for one in times if one.verdict == "slower")
        if 1 in slower and not judge.may_be_slower:
            fault = _slower_at(slower)
    return Verdict(found, agreement, times, outputs, fault, slower)


def _slower_at(batch_sizes: tuple[int, ...]) -> str:
    return f"slower at batch {' and '.join(map(str, batch_sizes))}"


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


# === Files ===


def _best(
    judge: Judge,
    rounds: list[list[str]],
    target: str,
    dynamic: bool,
    again: Callable[[str], Any],
) -> QuantizedModel:
    """The smallest candidate that passes, from the first round in which one does."""
    folder = tempfile.TemporaryDirectory(prefix="bigzoo-quantize-", ignore_cleanup_errors=True)
    trials: list[Trial] = []
    try:
        passed = []
        for modes in rounds:
            for mode in modes:
                trial, one = _try(judge, Path(folder.name), target, mode, dynamic)
                trials.append(trial)
                if one is not None:
                    # One that is slower for many rows at once is for want of a better one.
                    rank = (bool(one[1].slower), one[0].path.stat().st_size)
                    passed.append((rank, mode, one))
            best = min(passed, key=lambda item: item[0], default=None)
            if best is not None and (modes is rounds[-1] or not best[0][0]):
                _, mode, (runtime, verdict) = best
                tried = tuple(_final(trial, mode) for trial in trials)
                what = f"{_RUNTIMES[target]}, {mode}"
                subject = Subject(what, runtime, judge.plain, runtime.path, zeros=False)
                receipt = receipt_of(judge, verdict, subject, tried)
                return QuantizedModel(runtime, folder, mode, receipt, again)
        raise ValueError(_nothing(judge, trials, target))
    except BaseException:
        folder.cleanup()
        raise


def _try(
    judge: Judge, folder: Path, target: str, mode: str, dynamic: bool
) -> tuple[Trial, tuple[Runtime, Verdict] | None]:
    path = folder / mode / _FILES[target]
    path.parent.mkdir()
    calibration = judge.data.calibration if mode == "int8" else None
    try:
        # The original, for the notes of how it was compiled.
        convert(
            judge.model, path, target, mode=mode, calibration=calibration, dynamic_batch=dynamic
        )
        runtime = open_file(path)
        verdict = verdict_on(judge, runtime)
    except (ValueError, RuntimeError) as error:
        return Trial(mode, None, None, {}, f"failed: {shorten(error, 160)}"), None
    trial = trial_of(mode, path.stat().st_size, verdict)
    return trial, None if verdict.fault else (runtime, verdict)


def trial_of(name: str, file_bytes: int, verdict: Verdict) -> Trial:
    speed = {one.batch_size: one.speedup for one in verdict.times}
    relative = verdict.found.relative if verdict.found.agreement is None else None
    said = verdict.fault or (_slower_at(verdict.slower) if verdict.slower else "")
    return Trial(name, file_bytes, verdict.found.agreement, speed, said, relative)


def _final(trial: Trial, taken: str) -> Trial:
    if trial.name == taken:
        return replace(trial, verdict="taken")
    return trial if trial.verdict else replace(trial, verdict=f"good, but larger than {taken}")


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


def _nothing(judge: Judge, trials: list[Trial], target: str) -> str:
    """Why there is no quantised model, and what can be done."""
    what = "share of rows with the same class" if judge.kind else "R² of the outputs"
    routes = [f"lower `min_agreement` ({judge.min_agreement:g})"]
    if judge.data.calibration is None:
        routes.append("give `calibration`")
    else:
        routes.append("give more `calibration` data as in real use")
    routes.append("ask for one with `mode=`, which may then be slower")
    other = "onnx" if target == "litert" else "litert"
    routes.append(f'try target="{other}"')
    return (
        f"Nothing that was tried agrees with the model ({what}) and is as fast.\n"
        f"{trials_text(tuple(trials))}\nYou may {', '.join(routes[:-1])}, or {routes[-1]}."
    )
