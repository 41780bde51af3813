"""Files of models, opened in the runtime that is made for them.

Whatever the runtime, the caller sees the same: arrays in, numpy arrays out, in the form in which
the model takes and gives them, any batch size, any thread. Quantised inputs and outputs are hidden:
they look like the float32 numbers that they stand for.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from bigzoo._errors import check_choice, shorten, suggest
from bigzoo.deploy._files import missing_file, to_path
from bigzoo.deploy._notes import Notes, read_notes
from bigzoo.deploy._signature import Signature, TensorSpec, from_flat, numpy_dtype, to_flat

# Format -> the engines that open it, the first of them by default.
ENGINES = {
    "onnx": ("onnx", "openvino"),
    "litert": ("litert",),
    "saved_model": ("saved_model",),
    "openvino": ("openvino",),
}
_SUFFIXES = {".onnx": "onnx", ".tflite": "litert", ".xml": "openvino"}


class Session(Protocol):
    """What a runtime must offer: arrays in the order of `inputs` to arrays in that of `outputs`.

    The first size in a shape is the batch: None if any will do. `run` may be called from any
    thread.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class Runtime:
    """A model's file, ready to be called. `open_file` makes it.

    Attributes:
        engine: "litert", "onnx", "openvino" or "saved_model".
        path: The file, or the folder.
        notes: What bigzoo has noted in the file; None for a file of others.
        signature: What goes in and comes out; the batch may have any size.
    """

    def __init__(self, engine: str, path: Path, notes: Notes | None, session: Session) -> None:
        self.engine = engine
        self.path = path
        self.notes = notes
        _check_tensors(session, repr(str(path)))
        self.signature = _any_batch(notes.signature if notes else _signature(session))
        self._session = session
        what = repr(str(path))
        self._take = _order(self.signature.inputs, session.inputs, f"{what}: inputs")
        self._give = _order(session.outputs, self.signature.outputs, f"{what}: outputs")
        self._pieces = _fixed_batch(session.inputs, what)
        self._dtypes = [numpy_dtype(spec.dtype) for spec in self.signature.outputs]
        self._plain = PlainArray.of(self.signature)
        # Keras gives a list of one output as that one.
        self._one_output = self.signature.output_form in (0, [0])

    def __call__(self, x: Any) -> Any:
        """Outputs, as numpy arrays in the model's own form, for inputs as the model takes them."""
        plain = self._plain
        arrays = [x] if plain is not None and plain.fits(x) else self._flat(x)
        if self._take is not None:
            arrays = [arrays[i] for i in self._take]
        outputs = self._run(arrays) if self._pieces is None else self._in_pieces(arrays)
        if self._give is not None:
            outputs = [outputs[i] for i in self._give]
        outputs = [
            array if array.dtype == dtype else array.astype(dtype)
            for array, dtype in zip(outputs, self._dtypes, strict=True)
        ]
        return outputs[0] if self._one_output else from_flat(self.signature, outputs)

    def _flat(self, x: Any) -> list[np.ndarray]:
        arrays = to_flat(self.signature, x)
        for spec, array in zip(self.signature.inputs, arrays, strict=True):
            if 0 in array.shape:  # some runtimes crash, with the whole process
                got = f"The input {spec.name!r} has the shape {array.shape}"
                raise ValueError(f"{got}; expected no size of 0.")
        return arrays

    def _run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            return self._session.run(arrays)
        except (ValueError, MemoryError):
            raise
        # Runtimes have errors of their own for what a layer can't do with these numbers.
        except Exception as error:
            said = what_failed(error)
            raise ValueError(f"{str(self.path)!r} fails on this input: {said}.") from error

    def __repr__(self) -> str:
        return f"<Runtime {self.engine} {str(self.path)!r}>"

    def _in_pieces(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As many runs as it takes, for a file whose batch is fixed; the last one is filled up."""
        size, rows = self._pieces or 1, len(arrays[0])
        parts = []
        for start in range(0, rows, size):
            piece = [array[start : start + size] for array in arrays]
            missing = size - len(piece[0])
            if missing:
                piece = [np.concatenate([part, part[:1].repeat(missing, 0)]) for part in piece]
            parts.append(self._run(piece))
            if any(not array.ndim or len(array) != size for array in parts[-1]):
                shapes = [array.shape for array in parts[-1]]
                got = f"gives outputs of the shapes {shapes} for a batch of {size}"
                raise ValueError(f"{str(self.path)!r} {got}; expected a row for each sample.")
        return [np.concatenate(column)[:rows] for column in zip(*parts, strict=True)]


class PlainArray:
    """The commonest input, one array of the right shape and dtype, known at a glance.

    The full check of `to_flat` takes longer than a small model.
    """

    def __init__(self, shape: tuple[int | None, ...], dtype: str) -> None:
        self._shape = shape[1:]
        self._rank = len(shape)
        self._dtype = numpy_dtype(dtype)
        self._exact = None not in self._shape

    @classmethod
    def of(cls, signature: Signature) -> PlainArray | None:
        """None where there are several inputs."""
        if signature.input_form not in (0, [0]) or not signature.inputs[0].shape:
            return None
        spec = signature.inputs[0]
        return cls(spec.shape, spec.dtype)

    def fits(self, x: Any) -> bool:
        if type(x) is not np.ndarray or x.dtype != self._dtype or x.ndim != self._rank:
            return False
        if not len(x):
            return False
        if self._exact:
            return bool(x.shape[1:] == self._shape)
        pairs = zip(x.shape[1:], self._shape, strict=True)
        return all(want in (None, size) and size for size, want in pairs)


_Worker = TypeVar("_Worker")


class Pool(Generic[_Worker]):
    """A few workers for runtimes whose state can't be shared between threads.

    One behind a lock would keep the other cores idle, and one per thread would cost memory for as
    long as the thread lives. A worker is chosen that was last used for the same key, such as the
    batch size, so that it needn't be prepared again.

    Args:
        make: Makes a worker.
        most: How many there may be.
    """

    def __init__(self, make: Callable[[], _Worker], most: int) -> None:
        self._make = make
        self._most = most
        self._made = 0
        self._idle: list[tuple[Any, _Worker]] = []  # those used last come last
        self._change = threading.Condition()

    @contextmanager
    def worker(self, key: Any) -> Iterator[_Worker]:
        """One that nobody else uses meanwhile; a thread waits where all are busy."""
        worker = self._borrow(key)
        try:
            yield worker
        finally:
            with self._change:
                self._idle.append((key, worker))
                self._change.notify()

    def _borrow(self, key: Any) -> _Worker:
        with self._change:
            while True:
                for i in range(len(self._idle) - 1, -1, -1):
                    if self._idle[i][0] == key:
                        return self._idle.pop(i)[1]
                if self._made < self._most:
                    self._made += 1
                    break
                if self._idle:
                    return self._idle.pop(0)[1]
                self._change.wait()
        try:
            return self._make()
        except BaseException:
            with self._change:
                self._made -= 1
                self._change.notify()
            raise


def open_file(path: Any, engine: str | None = None) -> Runtime:
    """Open a model's file in its runtime.

    A SavedModel is a program that TensorFlow runs with your rights: open only those from people
    whom you trust.

    Args:
        path: An .onnx or .tflite file, or a folder with a SavedModel or an OpenVINO model.
        engine: "onnx", "litert", "openvino" or "saved_model"; None takes the format's own. OpenVINO
            opens .onnx files too.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the runtime isn't installed; with the line for pip.
        ValueError: if the file is damaged, of another format, or not for this engine.
    """
    file = to_path("path", path)
    if not file.exists():
        raise missing_file(file)
    format, file = format_of(file)
    engine = ENGINES[format][0] if engine is None else engine
    check_choice("engine", engine, sorted({name for names in ENGINES.values() for name in names}))
    if engine not in ENGINES[format]:
        use = " or ".join(map(repr, ENGINES[format]))
        raise ValueError(f"`engine` is {engine!r}; expected {use}, which opens {str(file)!r}.")
    notes = read_notes(file)
    opener = importlib.import_module(f"bigzoo.deploy._runtime_{engine}")
    try:
        session = opener.open_session(file)
    except (ImportError, MemoryError, PermissionError):
        raise
    # Runtimes have errors of their own, which the caller can't know without importing them.
    except Exception as error:
        got = f"{str(file)!r} is damaged, or has an operation that its runtime lacks"
        raise ValueError(f"{got}: {shorten(error, 200)}.") from error
    return Runtime(engine, file, notes, session)


def what_failed(error: Exception) -> str:
    """The message of a backend in one line, without the whole stack that TensorFlow puts before."""
    lines = str(error).partition("[[{{node")[0].strip().splitlines()
    return shorten(ValueError(lines[-1]) if "[[{{node" in str(error) and lines else error, 200)


def format_of(path: Path) -> tuple[str, Path]:
    """(format, the file or folder that its runtime wants) of something that exists."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model", path
        found = sorted(path.glob("*.xml"))
        if len(found) == 1:
            return "openvino", found[0]
        expected = "a SavedModel (saved_model.pb) or one OpenVINO model (.xml and .bin)"
        raise ValueError(f"The folder {str(path)!r} holds no model; expected {expected}.")
    if path.name == "saved_model.pb":
        return "saved_model", path.parent
    format = _SUFFIXES.get(path.suffix.lower())
    if format is None:
        known = suggest(path.suffix, (*_SUFFIXES, ".keras"))
        raise ValueError(f"{str(path)!r} is no file of a model that is known here. {known}")
    if not path.stat().st_size:
        raise ValueError(f"{str(path)!r} is empty; expected a model. Export it again.")
    return format, path


def _check_tensors(session: Session, what: str) -> None:
    """An error for what files of others may have, and no caller could give or use."""
    for spec in (*session.inputs, *session.outputs):
        try:
            numpy_dtype(spec.dtype)
        except (TypeError, ValueError):  # numpy reads some texts as the name of a format
            got = f"{what} takes or gives {spec.name!r} of the type {spec.dtype!r}"
            raise ValueError(f"{got}; expected arrays of numbers.") from None
    for spec in session.inputs:
        if not spec.shape or spec.shape[0] == 0:
            got = f"{what} has the input {spec.name!r} of the shape {spec.shape}"
            raise ValueError(f"{got}; expected a batch in front.")


def _signature(session: Session) -> Signature:
    """What a file says of itself: one array as it is, several as a dictionary by their names."""

    def form(specs: Sequence[TensorSpec]) -> Any:
        return 0 if len(specs) == 1 else {spec.name: i for i, spec in enumerate(specs)}

    inputs, outputs = session.inputs, session.outputs
    return Signature(inputs, outputs, form(inputs), form(outputs))


def _any_batch(signature: Signature) -> Signature:
    def free(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(spec, shape=(None, *spec.shape[1:])) if spec.shape else spec for spec in specs
        )

    return replace(signature, inputs=free(signature.inputs), outputs=free(signature.outputs))


def _order(
    given: Sequence[TensorSpec], wanted: Sequence[TensorSpec], what: str
) -> list[int] | None:
    """For each wanted tensor, which given one it is; None where they stand in that order already.

    Runtimes sort by name, so that names decide; formats that rename have the model's order.
    """
    if len(given) != len(wanted):
        got = f"the file has {len(wanted)} and its notes {len(given)}"
        raise ValueError(f"{what} don't fit together: {got}. Export it again.")
    names = {spec.name: i for i, spec in enumerate(given)}
    order = [names.get(spec.name, -1) for spec in wanted]
    if -1 in order or order == list(range(len(wanted))):
        return None
    return order


def _fixed_batch(specs: Sequence[TensorSpec], what: str) -> int | None:
    sizes = {spec.shape[0] for spec in specs}
    if None in sizes or not sizes:
        return None
    if len(sizes) > 1:
        listed = ", ".join(map(str, sorted(size or 0 for size in sizes)))
        raise ValueError(f"{what} has inputs of different batch sizes ({listed}); expected one.")
    return sizes.pop()
