"""A Keras model to a file, unverified: which converter, in which process, and what is noted."""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from bigzoo._errors import check_choice, message
from bigzoo._version import __version__
from bigzoo.deploy import _convert_onnx, _convert_openvino
from bigzoo.deploy._class_names import resolve_class_names
from bigzoo.deploy._float32 import in_float32
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._limits import FORMATS, RECURRENT, check_limits, every_layer
from bigzoo.deploy._notes import Notes, write_notes
from bigzoo.deploy._save import image_size
from bigzoo.deploy._scores import output_kind
from bigzoo.deploy._signature import Signature, TensorSpec, signature_of

MODES = {
    "litert": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32", "dynamic", "int8"),
    "saved_model": ("float32",),
    "openvino": ("float32",),
}
_REGRESSION = ("mse", "mae", "mape", "msle", "mean_", "huber", "log_cosh", "poisson", "cosine")


@dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes:
        model: As it infers, in float32.
        signature: That the file has: batch 1 if it isn't dynamic.
        path: Where; nothing is there yet.
        format: One of `FORMATS`.
        mode: One of `MODES[format]`.
        calibration: One array per input for the mode "int8", else None.
    """

    model: keras.Model
    signature: Signature
    path: Path
    format: str
    mode: str = "float32"
    calibration: tuple[np.ndarray, ...] | None = None


def convert(
    model: keras.Model,
    path: Path,
    format: str,
    *,
    mode: str = "float32",
    calibration: Sequence[np.ndarray] | None = None,
    dynamic_batch: bool = True,
) -> Notes:
    """Write `model` as a file or folder at `path`, with notes inside; nothing is verified.

    Args:
        model: Any functional or Sequential model; its inference form is what is written.
        path: Where; nothing may be there.
        format: "onnx", "litert", "saved_model" or "openvino".
        mode: "float32"; for LiteRT "float16", "dynamic" or "int8"; for ONNX "dynamic" or "int8".
        calibration: For "int8": one array per input, as `to_flat` gives them.
        dynamic_batch: False fixes the batch at 1.

    Raises:
        ValueError: if the format can't hold the model; says what to do.
        ImportError: if a package for the format isn't installed.
    """
    job = make_job(
        model, path, format, mode=mode, calibration=calibration, dynamic_batch=dynamic_batch
    )
    notes = notes_for(model, job)
    run_jobs([job])
    write_notes(path, format, notes)
    return notes


def make_job(
    model: keras.Model,
    path: Path,
    format: str,
    *,
    mode: str = "float32",
    calibration: Sequence[np.ndarray] | None = None,
    dynamic_batch: bool = True,
) -> Job:
    """All that can be checked before anything is converted, and what is to be done."""
    check_choice("format", format, FORMATS)
    check_choice("mode", mode, MODES[format])
    if (calibration is None) == (mode == "int8"):
        got = "None" if calibration is None else "given"
        raise ValueError(f"`calibration` is {got}; expected data for the mode 'int8' and no other.")
    _check_packages(format)
    wide = in_float32(inference_model(model))
    signature = file_signature(wide, dynamic_batch)
    check_limits(wide, signature, format, dynamic_batch)
    if calibration is not None and len(calibration) != len(signature.inputs):
        expected = f"{len(signature.inputs)} arrays, one per input"
        raise ValueError(message("calibration", f"{len(calibration)} arrays", expected))
    arrays = None if calibration is None else tuple(calibration)
    return Job(wide, signature, path, format, mode, arrays)


def _check_packages(format: str) -> None:
    if format in ("onnx", "openvino"):
        _convert_onnx.check_installed()
    if format == "openvino":
        _convert_openvino.check_installed()


def file_signature(model: keras.Model, dynamic_batch: bool) -> Signature:
    """The signature of the file: outputs with a fraction are float32 whatever the model's are."""
    signature = signature_of(model)

    def fixed(spec: TensorSpec) -> TensorSpec:
        return (
            spec if dynamic_batch or not spec.shape else replace(spec, shape=(1, *spec.shape[1:]))
        )

    def wide(spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype="float32") if "float" in spec.dtype else spec

    return replace(
        signature,
        inputs=tuple(fixed(spec) for spec in signature.inputs),
        outputs=tuple(wide(fixed(spec)) for spec in signature.outputs),
    )


def notes_for(model: keras.Model, job: Job) -> Notes:
    """What the file says of itself. `model` is the one that the user gave, compiled or not."""
    return Notes(
        model=model.name,
        signature=job.signature,
        class_names=resolve_class_names(job.model, None),
        image_size=image_size(job.model),
        output_kind=classifier_kind(model, job.model),
        mode=job.mode,
        versions=_versions(job.format),
    )


def classifier_kind(model: keras.Model, plain: keras.Model) -> str | None:
    """`output_kind`, or None for a model that was compiled to fit numbers, and others."""
    loss = getattr(model, "loss", None)
    name = str(getattr(loss, "name", getattr(loss, "__name__", loss)) or "").lower()
    if name.startswith(_REGRESSION):
        return None
    try:
        return output_kind(plain)
    except ValueError:
        return None


def _versions(format: str) -> dict[str, str]:
    packages = ["tensorflow", "numpy"]
    packages += ["onnx", "tf2onnx"] if format in ("onnx", "openvino") else []
    packages += ["openvino"] if format == "openvino" else []
    versions = {
        "bigzoo": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def run_jobs(jobs: Sequence[Job]) -> None:
    """Make the files: here on TensorFlow, in a process of its own where Keras runs on another."""
    if keras.backend.backend() == "tensorflow" and not _on_cudnn(jobs):
        for job in jobs:
            run_job(job)
        return
    from bigzoo.deploy._convert_process import run_elsewhere

    run_elsewhere(jobs)


def _on_cudnn(jobs: Sequence[Job]) -> bool:
    """Whether a layer would be traced as an operation of NVIDIA's, which no file can hold.

    Recurrent layers are, where there is a GPU; the other process doesn't see it.
    """
    layers = [layer for job in jobs for layer in every_layer(job.model)]
    if not any(type(layer).__name__ in RECURRENT for layer in layers):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def run_job(job: Job) -> None:
    """Make one file, on the TensorFlow backend."""
    if job.format == "onnx":
        _convert_onnx.write_onnx(job.model, job.signature, job.path)
        if job.mode != "float32":
            _convert_onnx.quantize_onnx(job.path, job.mode, job.signature, job.calibration)
        return
    if job.format == "openvino":
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            _convert_onnx.write_onnx(job.model, job.signature, source)
            _convert_openvino.write_openvino(source, job.path)
        return
    from bigzoo.deploy._convert_tensorflow import write_litert, write_saved_model

    if job.format == "saved_model":
        write_saved_model(job.model, job.signature, job.path)
    else:
        write_litert(job.model, job.signature, job.path, job.mode, job.calibration)
