"""8-bit and half-precision models: tried, compared, timed, and the smallest good one kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_bool, check_choice, check_int, check_number, shorten
from bigzoo.compress._calibration import samples_of
from bigzoo.compress._candidates import MODES, candidates
from bigzoo.compress._judge import Judge, Verdict, judge_of, receipt_of, trial_of, verdict_on
from bigzoo.compress._quantized import QuantizedModel
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._convert import convert
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._limits import check_limits
from bigzoo.deploy._make_receipt import Subject
from bigzoo.deploy._receipt import Trial, trials_text
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
        judge = judge_of(model, plain, data, min_agreement, mode, latency)
        return quantize_keras(judge)
    signature = signature_of(plain)
    rounds = candidates(plain, target, mode, calibration is not None)
    try:
        check_limits(plain, signature, target, dynamic := True)
    except ValueError:
        check_limits(plain, signature, target, dynamic := False)
    data = samples_of(model, calibration, samples, seed)
    judge = judge_of(model, plain, data, min_agreement, mode, latency)

    def again(other: str) -> Any:
        options: dict[str, Any] = {"samples": samples, "seed": seed, "latency": latency}
        return quantize(model, calibration, other, "auto", min_agreement, **options)

    return _best(judge, rounds, target, dynamic, again)


# === Files ===


def _best(
    judge: Judge,
    rounds: list[list[str]],
    target: str,
    dynamic: bool,
    again: Callable[[str], Any],
) -> QuantizedModel:
    """The smallest candidate that passes, from the first round in which one does.

    If none does in any round, the smallest of those that are slower for many rows alone.
    """
    folder = tempfile.TemporaryDirectory(prefix="bigzoo-quantize-", ignore_cleanup_errors=True)
    trials: list[Trial] = []
    second: list[_Candidate] = []
    try:
        for modes in rounds:
            found = []
            for mode in modes:
                trial, one = _try(judge, Path(folder.name), target, mode, dynamic)
                trials.append(trial)
                if one is not None and one.verdict.agrees:
                    found.append(one)
            passed = [one for one in found if judge.may_be_slower or not one.verdict.slower]
            second += [one for one in found if 1 not in one.verdict.slower]
            if passed:
                return _taken(judge, min(passed, key=_size), trials, target, folder, again)
        if second:
            return _taken(judge, min(second, key=_size), trials, target, folder, again)
        raise ValueError(_nothing(judge, trials, target))
    except BaseException:
        folder.cleanup()
        raise


@dataclass(frozen=True)
class _Candidate:
    """A file that was made, and how it did."""

    mode: str
    runtime: Runtime
    verdict: Verdict


def _size(one: _Candidate) -> int:
    return one.runtime.path.stat().st_size


def _taken(
    judge: Judge,
    one: _Candidate,
    trials: list[Trial],
    target: str,
    folder: tempfile.TemporaryDirectory[str],
    again: Callable[[str], Any],
) -> QuantizedModel:
    tried = tuple(_final(trial, one.mode) for trial in trials)
    what = f"{_RUNTIMES[target]}, {one.mode}"
    subject = Subject(what, one.runtime, judge.plain, one.runtime.path, exact=False)
    receipt = receipt_of(judge, one.verdict, subject, tried)
    return QuantizedModel(one.runtime, folder, one.mode, receipt, again)


def _try(
    judge: Judge, folder: Path, target: str, mode: str, dynamic: bool
) -> tuple[Trial, _Candidate | None]:
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
    trial = trial_of(judge, mode, path.stat().st_size, verdict)
    return trial, _Candidate(mode, runtime, verdict)


def _final(trial: Trial, taken: str) -> Trial:
    if trial.name == taken:
        return replace(trial, verdict="taken")
    return trial if trial.verdict else replace(trial, verdict=f"good, but larger than {taken}")


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
