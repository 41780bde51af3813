"""`export`: a model as a file for another runtime, proven to give the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_number
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._convert import Job, classifier_kind, make_job, notes_for, run_jobs
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._float32 import is_narrow
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._make_receipt import Subject, make_receipt, take_rows
from bigzoo.deploy._notes import write_notes
from bigzoo.deploy._predictor import predictor
from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._runtime import Runtime, open_file
from bigzoo.deploy._signature import example_inputs, nest_inputs, to_flat
from bigzoo.deploy._targets import Target, resolve_target, written

_BATCHES = (1, 3)
# Enough to tell how often classes agree; more rows would only take longer.
_MOST_ROWS = 256
_MADE_UP_ROWS = 8
_RUNTIMES = {
    "onnx": "ONNX Runtime",
    "litert": "LiteRT",
    "saved_model": "SavedModel",
    "openvino": "OpenVINO",
}


def export(
    model: Any,
    path: Any,
    sample: Any = None,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
    *,
    format: str | None = None,
    latency: bool = True,
) -> Receipt:
    """Write `model` as a file for another runtime, and prove that the file gives the same answers.

    What is written is `inference_model(model)`: preprocessing inside the model stays inside, and
    augmentation and dropout are gone. Class names and the image size travel in the file. The file
    is written under another name, opened in its own runtime and compared with the model at batch 1
    and 3; only then does it take its place. Where it differs by more than `tolerance`, nothing is
    left.

    Files are made by TensorFlow. On JAX and PyTorch the model is converted in a process of its own.
    A model that computes in 16 bits is exported in float32 with the same weights, and compared with
    that; the receipt's difference is to the model as it is.

    Args:
        model: A built functional or Sequential model, or what `bz.compress.quantize` returns for a
            file.
        path: "x.onnx", "x.tflite", or a folder: one with "openvino" in its name is an OpenVINO
            model, another one a SavedModel. The folder above must exist. An existing file is
            replaced; a folder only if it is an earlier export of that kind.
        sample: Rows of real input in the form that the model takes, to compare on; at most 256 are
            used. None makes some up: pixels 0-255, ids that the embeddings have, normal numbers.
        dynamic_batch: False fixes the batch of the file at 1, which some runtimes and layers need.
        tolerance: Largest difference, relative to the largest output, at least 0.
        format: "onnx", "litert", "saved_model" or "openvino"; None goes by the path.
        latency: False leaves out the measurement of latency and FLOPs, which takes seconds.

    Returns:
        A `Receipt`: bytes, difference and latency of the model and the file.

    Raises:
        ValueError: if the format can't hold the model, which is known before it is converted; the
            file differs by more than `tolerance`; or the path doesn't fit the format.
        ImportError: if a package for the format isn't installed; with the line for pip.
        OSError: if the path can't be written to, or the disk is full; nothing is left.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.tflite"
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> receipt = bz.deploy.export(model, path, latency=False)
        >>> receipt.difference.relative < 1e-5
        True
    """
    dynamic_batch = check_bool("dynamic_batch", dynamic_batch)
    latency = check_bool("latency", latency)
    tolerance = check_number("tolerance", tolerance, minimum=0)
    if hasattr(model, "export_to"):  # a quantised model, which lives in a file already
        target = resolve_target(path, format)
        receipt: Receipt = model.export_to(target.given, target.format)
        return receipt
    check_model(model)
    target = resolve_target(path, format)
    with written(target) as partial:
        job = make_job(model, partial, target.format, dynamic_batch=dynamic_batch)
        arrays = _rows(job, sample)
        run_jobs([job])
        write_notes(partial, target.format, notes_for(model, job))
        runtime = open_file(partial)
        worst = verify(job, runtime, arrays, tolerance, str(target.given))
        return _receipt(model, job, target, runtime, arrays, worst, latency, sample is None)


def _rows(job: Job, sample: Any) -> list[np.ndarray]:
    if sample is None:
        return example_inputs(job.model, _MADE_UP_ROWS)
    return [array[:_MOST_ROWS] for array in to_flat(job.signature, sample)]


def verify(
    job: Job, runtime: Runtime, arrays: list[np.ndarray], tolerance: float, name: str
) -> Difference:
    """The larger of the differences at batch 1 and 3; a ValueError where it is too large."""
    found = []
    for size in _BATCHES:
        x = nest_inputs(job.signature, take_rows(arrays, size))
        found.append(difference(answers(job.model)(x), runtime(x)))
        worst = found[-1]
        if not worst.relative <= tolerance:
            output = job.signature.outputs[worst.output].name
            got = f"its output {output!r} differs by {worst.relative:.2g} at batch {size}"
            fix = "Export to another format, or allow more with `tolerance`."
            raise ValueError(
                f"{name!r} was not written: {got}, relative to the largest value; expected at most "
                f"{tolerance:.2g}. {fix}"
            )
    return max(found, key=lambda one: one.relative)


def answers(model: keras.Model) -> Callable[[Any], Any]:
    """The model's call in inference, with numpy arrays out."""

    def call(x: Any) -> Any:
        if keras.backend.backend() == "jax":  # op by op it would compile each of them
            return model.predict_on_batch(x)
        outputs = model(x, training=False)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return call


def _receipt(
    model: keras.Model,
    job: Job,
    target: Target,
    runtime: Runtime,
    arrays: list[np.ndarray],
    worst: Difference,
    latency: bool,
    made_up: bool,
) -> Receipt:
    plain = inference_model(model)
    narrow = is_narrow(plain)
    if not narrow:
        plain = job.model  # the same, and what it compiled for the comparison is used again
    kind = classifier_kind(model, plain)
    call = predictor(plain, engine="keras") if latency else answers(plain)
    x = nest_inputs(job.signature, arrays)
    return make_receipt(
        "export",
        Subject(f"Keras on {keras.backend.backend()}", call, plain),
        Subject(_RUNTIMES[target.format], runtime, plain, runtime_path(target, runtime)),
        x,
        kind=kind,
        measure=latency,
        notes=_remarks(narrow, job, worst, made_up),
        path=target.given,
        name=model.name,
    )


def runtime_path(target: Target, runtime: Runtime) -> Path:
    """What is weighed: all of the folder, where the runtime was given one file in it."""
    return runtime.path.parent if runtime.path.suffix == ".xml" else runtime.path


def _remarks(narrow: bool, job: Job, worst: Difference, made_up: bool) -> list[str]:
    remarks = []
    if made_up:
        remarks.append("Compared on made-up inputs; give `sample` to compare on yours.")
    if narrow:
        remarks.append(
            "The model computes in 16 bits, the file in float32 with the same weights: from the "
            f"model in float32 it differs by {worst.relative:.1e}."
        )
    if job.signature.inputs[0].shape[0] == 1:
        remarks.append("The file takes a batch of 1.")
    return remarks
