"""`export`: a model as a file for another runtime, proven to give the same answers."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_bool, check_number
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._compiled import answer
from bigzoo.deploy._convert import Job, classifier_kind, make_job, notes_for, run_jobs
from bigzoo.deploy._difference import Difference
from bigzoo.deploy._float32 import is_narrow
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._notes import write_notes
from bigzoo.deploy._predictor import predictor
from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._runtime import Runtime, open_file
from bigzoo.deploy._targets import Target, resolve_target, written
from bigzoo.deploy._verify import Check, is_blind, make_checks, verify

# Roundings to 16 bits add up to a few percent; more, and the copy in float32 is another model.
_NARROW_MOST = 0.5
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
    is written under another name, opened in its own runtime and compared with `model` at batch 1,
    at batch 3 and on all rows; only then does it take its place. Where it differs by more than
    `tolerance`, nothing is left.

    Files are made by TensorFlow. On JAX and PyTorch the model is converted in a process of its own.
    A model that computes in 16 bits is exported in float32 with the same weights, and compared with
    that; the receipt's difference is to the model as it is.

    Args:
        model: A built functional or Sequential model; or what `bz.compress.quantize` returns for a
            file, which has been compared already: then only `path` and `format` count.
        path: "x.onnx", "x.tflite", or a folder: one with "openvino" in its name is an OpenVINO
            model, another one a SavedModel. The folder above must exist. An existing file is
            replaced; a folder only if it is an earlier export of that kind.
        sample: Rows of real input in the form that the model takes, to compare on; at most 256 are
            used. None makes some up: pixels 0-255, ids that the embeddings have, normal numbers,
            also of other sizes where the model leaves sizes open.
        dynamic_batch: False fixes the batch of the file at 1, which some runtimes and layers need.
        tolerance: Largest difference, relative to the largest output, at least 0.
        format: "onnx", "litert", "saved_model" or "openvino"; None goes by the path.
        latency: False leaves out the measurement of latency and FLOPs, which takes seconds.

    Returns:
        A `Receipt`: bytes, difference and latency of the model and the file.

    Raises:
        ValueError: if the format can't hold the model, which is known before it is converted; the
            file differs by more than `tolerance`; the model fails on the inputs or gives NaN for
            them; or the path doesn't fit the format.
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
        narrow = is_narrow(inference_model(model))
        checks = make_checks(job.model if narrow else model, job.signature, sample)
        run_jobs([job])
        write_notes(partial, target.format, notes_for(model, job))
        runtime = open_file(partial)
        kind = classifier_kind(model, job.model)
        found = verify(checks, runtime, job.signature, tolerance, str(target.given), kind)
        receipt = make_receipt(
            "export",
            _before(model, job, narrow, latency),
            Subject(_RUNTIMES[target.format], runtime, job.model, runtime_path(target, runtime)),
            checks[-1].x,
            kind=kind,
            found=None if narrow else found[-1],
            measure=latency,
            notes=_remarks(job, checks, found, narrow, sample is None),
            path=target.given,
            name=model.name,
        )
        if narrow and receipt.difference is not None:
            _check_copy(receipt.difference.relative)
    return receipt


def _before(model: keras.Model, job: Job, narrow: bool, latency: bool) -> Subject:
    """The model as it infers, in its own precision."""
    plain = inference_model(model) if narrow else job.model
    call = predictor(plain, engine="keras") if latency else partial(answer, plain)
    return Subject(f"Keras on {keras.backend.backend()}", call, plain)


def _check_copy(relative: float) -> None:
    # Infinite where 16 bits overflow, as float32 doesn't.
    if _NARROW_MOST < relative < math.inf:
        fix = "Build the model with dtype='float32', and give it the weights by `set_weights`."
        raise ValueError(
            f"The copy of `model` in float32 differs from it by {relative:.2g}, relative to the "
            f"largest value; expected at most {_NARROW_MOST}. {fix}"
        )


def runtime_path(target: Target, runtime: Runtime) -> Path:
    """What is weighed: all of the folder, where the runtime was given one file in it."""
    return runtime.path.parent if runtime.path.suffix == ".xml" else runtime.path


def _remarks(
    job: Job, checks: list[Check], found: list[Difference], narrow: bool, made_up: bool
) -> list[str]:
    remarks = []
    if made_up:
        remarks.append("Compared on made-up inputs; give `sample` to compare on yours.")
    if narrow:
        worst = max(one.relative for one in found)
        remarks.append(
            "The model computes in 16 bits, the file in float32 with the same weights: from the "
            f"model in float32 it differs by {worst:.1e}."
        )
    if all(is_blind(check) for check in checks):
        remarks.append(
            "Some output is the same for all rows, so that comparing it shows little: give a "
            "`sample` of rows that the model tells apart."
        )
    if job.signature.inputs[0].shape[0] == 1:
        remarks.append("The file takes a batch of 1.")
    return remarks
