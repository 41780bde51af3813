"""`compare`: two models, or files of them, on one receipt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_bool, check_int, message
from bigzoo.compress._data import count_rows, outputs_of, rows
from bigzoo.compress._score import classes_of, score_outputs
from bigzoo.deploy._difference import difference
from bigzoo.deploy._files import MODEL_SUFFIXES
from bigzoo.deploy._limits import every_layer
from bigzoo.deploy._load import load
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._notes import read_notes
from bigzoo.deploy._predictor import predictor
from bigzoo.deploy._receipt import Receipt

_NAMES = {"litert": "LiteRT", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def compare(
    before: Any,
    after: Any,
    data: Any,
    *,
    most: int = 1000,
    latency: bool = True,
) -> Receipt:
    """Put two models, or the files made of them, side by side on the same rows.

    Both run as they would in a service: a Keras model as a compiled call, a file in its runtime
    (see `bz.deploy.predictor`).

    Args:
        before: A `keras.Model` or the path of a `.keras` file.
        after: A `keras.Model`, what `bz.compress.quantize` returns, or the path of a file that
            `bz.deploy.predictor` opens.
        data: Inputs, or (inputs, targets) for scores, as arrays, `Batches` or a `tf.data.Dataset`.
        most: Rows that are used at most, at least 1; evenly from all of them.
        latency: False leaves out latencies and FLOPs, which take seconds.

    Returns:
        A `Receipt` with sizes, agreement, scores if there are targets, and latencies.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if the two don't take and give the same shapes.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> large = bz.models.mlp(8, (64, 64), num_outputs=3, task="multiclass")
        >>> small = bz.models.mlp(8, (16,), num_outputs=3, task="multiclass")
        >>> receipt = bz.compress.compare(large, small, x, latency=False)
        >>> receipt.before.params, receipt.after.params
        (4931, 195)
    """
    most = check_int("most", most, 1)
    latency = check_bool("latency", latency)
    model = load(before) if isinstance(before, (str, os.PathLike)) else before
    if not isinstance(model, keras.Model):
        raise TypeError(message("before", before, "a keras.Model or the path of a .keras file"))
    x, y = rows(data, most)
    one, two = _subject("before", model), _subject("after", after)
    answers = [outputs_of(side.call, x) for side in (one, two)]
    found = difference(answers[0], answers[1], classes_of(model, y))
    score = None
    if y is not None:
        name, first = score_outputs(answers[0], y, model)
        score = (name, first, score_outputs(answers[1], y, model)[1], count_rows(x))
    return make_receipt("compare", one, two, x, score=score, found=found, measure=latency)


def _subject(name: str, given: Any) -> Subject:
    path: Path | None = None
    model = given if isinstance(given, keras.Model) else None
    if model is None:
        place = getattr(given, "path", given)
        if not isinstance(place, (str, os.PathLike)):
            raise TypeError(message(name, given, "a keras.Model or the path of a file"))
        file = Path(place)
        if file.suffix.lower() in MODEL_SUFFIXES:
            model = load(file)
        else:
            path = file
    call = predictor(path if model is None else model)
    if call.engine == "keras":
        what = f"Keras on {keras.backend.backend()}"
    else:
        notes = read_notes(path) if path is not None else None
        mode = notes.mode if notes else ""
        what = _NAMES.get(call.engine, call.engine) + (f", {mode}" if mode else "")
    is_float = model is None or not any(map(_is_quantised, every_layer(model)))
    return Subject(what, call, model, path, exact=is_float)


def _is_quantised(layer: Any) -> bool:
    return bool(getattr(layer, "quantization_mode", None))
