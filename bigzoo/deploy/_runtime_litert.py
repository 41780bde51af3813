"""LiteRT: .tflite files, in ai-edge-litert or the interpreter that comes with TensorFlow."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._optional import require
from bigzoo.deploy._runtime import Pool
from bigzoo.deploy._signature import TensorSpec

_MAGIC = b"TFL3"
_MOST_WORKERS = 4
_MOST_SIZES = 1000
_NOT_YET = object()
# The name of an operation that only TensorFlow's own interpreter has.
_TENSORFLOWS = re.compile(rb"Flex[A-Z][A-Za-z0-9]{2,}\0")


class LiteSession:
    """A few interpreters of one file: one alone isn't safe to share between threads."""

    def __init__(self, make: Callable[[], Any], scout: Callable[[], Any] | None = None) -> None:
        # The one that shows what is in the file is the first that works.
        first: list[Any] = [make()]
        self.inputs, self._feeds = _tensors(first[0], "inputs")
        self.outputs, self._fetches = _tensors(first[0], "outputs")
        self._fixed = all(None not in spec.shape for spec in self.inputs)
        windows = any(len(spec.shape) > 2 and None in spec.shape[1:] for spec in self.inputs)
        self._scout = _Scout(scout(), self._feeds) if windows and scout is not None else None

        def worker() -> _Worker:
            interpreter = first.pop() if first else make()
            return _Worker(interpreter, self._feeds, self._fetches)

        self._pool = Pool(worker, max(2, min(_MOST_WORKERS, os.cpu_count() or 1)))
        # Parts that can't run show here. An open size is 1 until an input comes, which a layer
        # with a window may not be able to take.
        if all(None not in spec.shape[1:] for spec in self.inputs):
            with self._pool.worker(None) as one:
                one.prepare()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = tuple([array.shape for array in arrays])
        if self._scout is not None:
            self._scout.check(shapes)
        with self._pool.worker(shapes) as worker:
            return worker.run(arrays, None if self._fixed else shapes)


class _Tensor:
    """Where an array goes or comes from, and how its numbers are coded."""

    def __init__(self, detail: dict[str, Any]) -> None:
        self.index = int(detail["index"])
        self.dtype = np.dtype(detail["dtype"])
        scale, zero = detail.get("quantization", (0.0, 0))
        self.scale = np.float32(scale)
        self.zero = np.float32(zero)
        self.coded = bool(scale) and self.dtype.kind in "iu"

    def encode(self, array: np.ndarray) -> np.ndarray:
        if not self.coded:
            return array if array.dtype == self.dtype else array.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        values = np.rint(array / self.scale) + self.zero
        return np.clip(values, limits.min, limits.max).astype(self.dtype)

    def decode(self, array: np.ndarray) -> np.ndarray:
        return (array.astype(np.float32) - self.zero) * self.scale if self.coded else array


class _Worker:
    """An interpreter, and the shapes for which its memory is laid out."""

    def __init__(self, interpreter: Any, feeds: list[_Tensor], fetches: list[_Tensor]) -> None:
        self._interpreter = interpreter
        self._feeds, self._fetches = feeds, fetches
        self._shapes: Any = _NOT_YET

    def prepare(self) -> None:
        self._interpreter.allocate_tensors()

    def run(self, arrays: Sequence[np.ndarray], shapes: Any) -> list[np.ndarray]:
        """`shapes` is None if the file takes one size only."""
        interpreter = self._interpreter
        if shapes != self._shapes:
            # Should it fail half-way, the next call lays everything out anew.
            self._shapes = _NOT_YET
            for feed, shape in zip(self._feeds, shapes or (), strict=shapes is not None):
                interpreter.resize_tensor_input(feed.index, shape)
            interpreter.allocate_tensors()
            self._shapes = shapes
        for feed, array in zip(self._feeds, arrays, strict=True):
            interpreter.set_tensor(feed.index, feed.encode(array))
        interpreter.invoke()
        return [fetch.decode(interpreter.get_tensor(fetch.index)) for fetch in self._fetches]


class _Scout:
    """Finds inputs that are too small for a layer's window.

    TensorFlow's interpreter, unlike that of ai-edge-litert, would end the process on them. Without
    its XNNPACK part it tells sizes before it computes.
    """

    def __init__(self, interpreter: Any, feeds: list[_Tensor]) -> None:
        self._interpreter, self._feeds = interpreter, feeds
        self._good: set[Any] = set()
        self._lock = threading.Lock()

    def check(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        sizes = tuple([shape[1:] for shape in shapes])
        if sizes in self._good:
            return
        with self._lock:
            for feed, size in zip(self._feeds, sizes, strict=True):
                self._interpreter.resize_tensor_input(feed.index, (1, *size))
            self._interpreter.allocate_tensors()
            inner = [detail["shape"] for detail in self._interpreter.get_tensor_details()]
            if any(len(shape) > 2 and min(shape) < 1 for shape in inner):
                raise RuntimeError(f"the sizes {sizes} are too small for a layer's window")
            if len(self._good) < _MOST_SIZES:
                self._good.add(sizes)


def open_session(path: Path) -> LiteSession:
    """The session of a .tflite file."""
    content = path.read_bytes()
    if content[4:8] != _MAGIC:
        raise ValueError("it is no .tflite file (its first bytes aren't those of one)")
    own = _own_interpreter()
    if own is not None and not _TENSORFLOWS.search(content):
        return LiteSession(lambda: _interpreter(own, content))
    kind = _tensorflow_interpreter("bigzoo[litert]" if own is None else "tensorflow")
    return LiteSession(lambda: _interpreter(kind, content), lambda: _plain(kind, content))


def _own_interpreter() -> Any:
    try:
        return require("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        return None


def _tensorflow_interpreter(package: str) -> Any:
    return require("tensorflow", package, "Running a .tflite file").lite.Interpreter


def _interpreter(kind: Any, content: bytes) -> Any:
    return _made(kind, content, {"num_threads": min(4, os.cpu_count() or 1)})


def _plain(kind: Any, content: bytes) -> Any:
    """TensorFlow's interpreter without XNNPACK."""
    tensorflow = require("tensorflow", None, "Running a .tflite file")
    resolver = tensorflow.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return _made(kind, content, {"experimental_op_resolver_type": resolver})


def _made(kind: Any, content: bytes, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        # TensorFlow says that its interpreter moves to ai-edge-litert, which is used if it's there.
        warnings.filterwarnings("ignore", message=r"(?s).*tf\.lite\.Interpreter is deprecated")
        return kind(model_content=content, **options)


def _tensors(interpreter: Any, side: str) -> tuple[tuple[TensorSpec, ...], list[_Tensor]]:
    """What goes in or comes out, by the names of the file's signature if it has one."""
    details = _details(interpreter, side)
    tensors = [_Tensor(detail) for _, detail in details]
    specs = tuple(
        TensorSpec(name, _shape(detail), "float32" if tensor.coded else tensor.dtype.name)
        for (name, detail), tensor in zip(details, tensors, strict=True)
    )
    return specs, tensors


def _details(interpreter: Any, side: str) -> list[tuple[str, dict[str, Any]]]:
    inputs = side == "inputs"
    plain = interpreter.get_input_details() if inputs else interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        named = runner.get_input_details() if inputs else runner.get_output_details()
        if {d["index"] for d in named.values()} == {d["index"] for d in plain}:
            return sorted(named.items(), key=lambda item: natural(item[0]))
    return [(detail["name"], detail) for detail in plain]


def natural(name: str) -> tuple[str, int]:
    """ "output_10" behind "output_9"."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _shape(detail: dict[str, Any]) -> tuple[int | None, ...]:
    signature = detail.get("shape_signature")
    shape = detail["shape"] if signature is None or not len(signature) else signature
    return tuple(None if size < 0 else int(size) for size in shape)
