"""OpenVINO: its own .xml and .bin, and .onnx files."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._optional import require
from bigzoo.deploy._runtime import Pool
from bigzoo.deploy._signature import TensorSpec

_DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "boolean": "bool"}
_MOST_WORKERS = 4
_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


class OpenVinoSession:
    """A compiled model; each thread has a request of its own while it runs."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.inputs = tuple(map(_spec, compiled.inputs))
        self.outputs = tuple(map(_spec, compiled.outputs))
        most = max(2, min(_MOST_WORKERS, os.cpu_count() or 1))
        self._pool: Pool[Any] = Pool(compiled.create_infer_request, most)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        with self._pool.worker(arrays[0].shape) as request:
            # The results are copies: the request's own memory is written again by the next call.
            found = request.infer(list(map(np.ascontiguousarray, arrays)))
            return list(found.to_tuple())


def open_session(path: Path) -> OpenVinoSession:
    """The session of an .xml or .onnx file, on the CPU in full precision.

    OpenVINO's default is bfloat16 on processors that have it, off by 0.005 to 0.015 on a small
    network. Integer operations of a quantised model stay what they are.
    """
    openvino = import_openvino("Running a model in OpenVINO")
    core = openvino.Core()
    model = core.read_model(str(path))
    return OpenVinoSession(core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))


def import_openvino(purpose: str) -> Any:
    """The package `openvino`, without a word to the network.

    Its import sends a report to its makers, unless its package of telemetry isn't installed: then
    it takes a stand-in of its own that does nothing. It is made to believe that.
    """
    with _importing:
        if "openvino" in sys.modules:  # the caller's own import
            return require("openvino", "bigzoo[openvino]", purpose)
        with _hidden(_TELEMETRY):
            return require("openvino", "bigzoo[openvino]", purpose)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Meanwhile, the import of that module fails as if it weren't installed."""
    modules: dict[str, Any] = sys.modules
    known = name in modules
    before = modules.get(name)
    modules[name] = None
    try:
        yield
    finally:
        if known:
            modules[name] = before
        else:
            modules.pop(name, None)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        None if dimension.is_dynamic else dimension.get_length()
        for dimension in port.get_partial_shape()
    )
    dtype = port.get_element_type().get_type_name()
    if dtype[0] in "iu" and dtype[1:].isdigit():
        dtype = ("u" if dtype[0] == "u" else "") + f"int{dtype[1:]}"
    return TensorSpec(_name(port), shape, _DTYPES.get(dtype, dtype))


def _name(port: Any) -> str:
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    return names[0] if names else port.get_node().get_friendly_name()
