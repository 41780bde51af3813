"""ONNX Runtime: .onnx files. A session may be called from many threads at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._optional import require
from bigzoo.deploy._signature import TensorSpec

_DTYPES = {"float": "float32", "double": "float64"}
_SILENT = 4  # what goes wrong is raised, not printed as well


class OnnxSession:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(map(_spec, session.get_inputs()))
        self.outputs = tuple(map(_spec, session.get_outputs()))
        self._names = [spec.name for spec in self.inputs]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(self._session.run(None, dict(zip(self._names, arrays, strict=True))))


def open_session(path: Path) -> OnnxSession:
    """The session of an .onnx file, on the GPU if ONNX Runtime's build has one."""
    runtime = require("onnxruntime", "bigzoo[onnx]", "Running an .onnx file")
    options = runtime.SessionOptions()
    options.log_severity_level = _SILENT
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    there = runtime.get_available_providers()
    providers = [name for name in wanted if name in there]
    return OnnxSession(runtime.InferenceSession(str(path), options, providers=providers))


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, shape, _DTYPES.get(dtype, dtype))
