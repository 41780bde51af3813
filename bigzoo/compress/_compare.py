"""`compare`: two models, or files of them, on one receipt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_bool, check_int, message
from bigzoo.compress._data import rows
from bigzoo.compress._score import kind_of, score
from bigzoo.deploy._load import load
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._predictor import predictor
from bigzoo.deploy._receipt import Receipt

_KERAS = (".keras", ".h5", ".hdf5")
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
    one = _subject(model)
    two = _subject(after)
    kind = kind_of(model)
    found = None if y is None else _score(one.call, two.call, x, y, model)
    return make_receipt("compare", one, two, x, kind=kind, score=found, measure=latency)


def _subject(given: Any) -> Subject:
    path: Path | None = None
    model = given if isinstance(given, keras.Model) else None
    if model is None:
        file = Path(getattr(given, "path", given))
        if file.suffix.lower() in _KERAS:
            model = load(file)
        else:
            path = file
    call = predictor(path if model is None else model)
    if call.engine == "keras":
        what = f"Keras on {keras.backend.backend()}"
    else:
        mode = getattr(given, "mode", "")
        what = _NAMES.get(call.engine, call.engine) + (f", {mode}" if mode else "")
    return Subject(what, call, model, path)


def _score(
    one: Callable[[Any], Any], two: Callable[[Any], Any], x: Any, y: Any, model: keras.Model
) -> tuple[str, float, float, int]:
    name, first = score(one, x, y, model)
    _, second = score(two, x, y, model)
    return name, first, second, len(keras.tree.flatten(x)[0])
