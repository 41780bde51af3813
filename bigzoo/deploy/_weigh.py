"""What a model weighs: on disk, compressed, in parameters, in operations."""

from __future__ import annotations

import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from bigzoo._version import __version__

_CHUNK = 2**20
# Import names of what may have had a hand in a figure, by the name that pip knows.
_PACKAGES = {
    "tensorflow": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "tf2onnx": "tf2onnx",
    "openvino": "openvino",
    "ai_edge_litert": "ai-edge-litert",
}


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file, or of all files in a folder, as they are and after gzip's compression."""
    plain = packed = 0
    for file in _files(path):
        compressor = zlib.compressobj(6, wbits=31)  # 31: with the header and checksum of gzip
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                plain += len(chunk)
                packed += len(compressor.compress(chunk))
        packed += len(compressor.flush())
    return plain, packed


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
    else:
        yield path


def model_sizes(model: keras.Model) -> tuple[int, int]:
    """The same for `model` saved as a `.keras` file, without the state of its optimizer.

    A subclassed model can't be had without: its optimizer counts.
    """
    from bigzoo.deploy._inference import inference_model

    try:
        bare = inference_model(model)
    except (ValueError, TypeError):
        bare = model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        bare.save(path)
        return sizes(path)


def parameters(model: keras.Model) -> tuple[int, int]:
    """How many numbers the model's weights hold, and how many of them are zero."""
    seen: set[int] = set()
    count = zeros = 0
    for variable in model.weights:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        count += values.size
        zeros += int(values.size - np.count_nonzero(values))
    return count, zeros


def flops(model: keras.Model, input_shapes: object = None) -> int | None:
    """FLOPs of a prediction for one sample; None where they can't be counted."""
    from bigzoo.cost import analyze

    try:
        return int(analyze(model, 1, input_shapes, training=False).forward_flops)
    except (ValueError, TypeError, NotImplementedError, RuntimeError):
        return None


def versions() -> dict[str, str]:
    """bigzoo, Python, Keras, numpy, and what of backends and runtimes is loaded."""
    found = {
        "bigzoo": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    for module, package in _PACKAGES.items():
        if module in sys.modules:
            try:
                found[module] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[module] = str(getattr(sys.modules[module], "__version__", "unknown"))
    return found


def machine() -> str:
    """The processor and how many of its cores this process may use."""
    from bigzoo.cost.hardware import this_machine

    try:
        here = this_machine()
    except (OSError, ValueError, RuntimeError):
        return f"{os.cpu_count() or 1} cores"
    cores = here.physical_cores or here.logical_cores
    return f"{here.cpu}, {cores} {'core' if cores == 1 else 'cores'}"
