"""Tensors from files of `torch.save` (.pth, .pt, .bin), without PyTorch, without running code.

Such a file is a pickle that refers to blocks of raw numbers ("storages"). A pickle may call any
function of any package; here only a few names are known, each stands for a function of ours, and
any other name is an error. Two formats: a zip archive (PyTorch 1.6 and later), and the older one,
five pickles in a row with the numbers behind them.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bigzoo._errors import shorten

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# What a file for several purposes (weights, optimizer, epoch) calls its weights.
_NESTED = ("state_dict", "model_state_dict", "model", "module", "params")
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _StorageType(NamedTuple):
    dtype: str

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


class _Storage(NamedTuple):
    type: _StorageType
    key: str
    length: int


class _Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it; its numbers are read later."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _DamagedError(Exception):
    """The file is not what it seems; the text says why."""


ReadBlock = Callable[[_Storage], bytes]


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file that `torch.save` wrote, by name; bfloat16 is widened to float32.

    Args:
        path: A file with a state dict: names and tensors. If it holds more (an epoch, an
            optimizer), the dictionary called "state_dict", "model_state_dict", "model", "module"
            or "params" is taken.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no PyTorch file, is cut off, holds something other than a state dict,
            or refers to code; none is run.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        loaded, read_block = _open(file)
        return _arrays(_state_dict(loaded), read_block)
    except _DamagedError as error:
        raise ValueError(f"{str(path)!r} can't be read as a PyTorch file: {error}") from error
    except Exception as error:
        # A broken pickle can raise anything: EOFError, IndexError, UnicodeDecodeError, …
        size = f"{file.stat().st_size:,} bytes"
        fix = "It may be cut off (an interrupted download or copy): fetch it again."
        reason = f"{type(error).__name__}: {shorten(error)}"
        text = f"{str(path)!r} is damaged or no PyTorch file ({size}; {reason}). {fix}"
        raise ValueError(text) from error


def _open(file: Path) -> tuple[Any, ReadBlock]:
    with file.open("rb") as stream:
        start = stream.read(4)
        if start == b"PK\x03\x04":
            return _open_zip(file)
        if start[:1] == b"\x80":
            return _open_legacy(file)
    shown = repr(start) if start else "nothing: the file is empty"
    raise _DamagedError(f"it begins with {shown}, neither a zip archive nor a pickle.")


# --- the zip format --------------------------------------------------------------------------


def _open_zip(file: Path) -> tuple[Any, ReadBlock]:
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _DamagedError("the archive has no data.pkl.")
        folder = pickles[0].partition("/")[0]
        order = f"{folder}/byteorder"
        if order in names and archive.read(order) != b"little":
            raise _DamagedError("its numbers are big-endian.")
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            # So what is read can't be larger than the file.
            raise _DamagedError("its parts are compressed, which torch.save never does.")
        loaded = _unpickle(io.BytesIO(archive.read(pickles[0])))

    def read_block(storage: _Storage) -> bytes:
        with zipfile.ZipFile(file) as archive:
            return archive.read(f"{folder}/data/{storage.key}")

    return loaded, read_block


# --- the format before PyTorch 1.6 -----------------------------------------------------------


def _open_legacy(file: Path) -> tuple[Any, ReadBlock]:
    with file.open("rb") as stream:
        if _unpickle(stream) != _LEGACY_MAGIC or _unpickle(stream) != _LEGACY_PROTOCOL:
            raise _DamagedError("it is a pickle, but torch.save didn't write it.")
        system = _unpickle(stream)
        if not system.get("little_endian", True):
            raise _DamagedError("its numbers are big-endian.")
        storages: dict[str, _Storage] = {}
        loaded = _unpickle(stream, storages)
        keys = _unpickle(stream)
        if set(keys) != set(storages):
            raise _DamagedError("its list of storages doesn't fit its tensors.")
        # Each block: its length as an integer of 8 bytes, then the numbers.
        places = {}
        for key in keys:
            storage = storages[key]
            length = int.from_bytes(_exactly(stream, 8), "little")
            if length != storage.length:
                raise _DamagedError(f"storage {key!r} has {length} numbers, not {storage.length}.")
            places[key] = stream.tell()
            stream.seek(length * storage.type.itemsize, io.SEEK_CUR)

    def read_block(storage: _Storage) -> bytes:
        with file.open("rb") as stream:
            stream.seek(places[storage.key])
            return _exactly(stream, storage.length * storage.type.itemsize)

    return loaded, read_block


def _exactly(stream: Any, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("the file ends too early")
    return data


# --- the pickle ------------------------------------------------------------------------------


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
) -> _Tensor:  # rest: requires_grad, hooks, metadata
    if not isinstance(storage, _Storage):
        raise _DamagedError("a tensor has no storage.")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(data: Any, *rest: Any) -> Any:
    return data


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
_TYPES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows the names in `_FUNCTIONS` and `_TYPES`, and no others."""

    def __init__(self, stream: Any, storages: dict[str, _Storage]):
        super().__init__(stream, encoding="utf-8")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _FUNCTIONS:
            function = _FUNCTIONS[module, name]
            # A new one each time: a pickle may set attributes of what it gets here.
            return lambda *arguments: function(*arguments)
        if (module, name) in _TYPES:
            return _TYPES[module, name]
        raise _DamagedError(
            f"it refers to {module}.{name}. Only plain weights are read, since loading anything "
            "else could run foreign code. With PyTorch: torch.save(model.state_dict(), path)."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, length, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise _DamagedError("it refers to something that is no storage.")
        if any(part is not None for part in view):
            raise _DamagedError("it has storages that are views of others.")
        storage = _Storage(storage_type, str(key), int(length))
        return self._storages.setdefault(storage.key, storage)


def _unpickle(stream: Any, storages: dict[str, _Storage] | None = None) -> Any:
    return _Unpickler(stream, {} if storages is None else storages).load()


# --- the tensors -----------------------------------------------------------------------------


def _state_dict(loaded: Any) -> Mapping[str, _Tensor]:
    if not isinstance(loaded, dict):
        kind = "tensor" if isinstance(loaded, _Tensor) else type(loaded).__name__
        raise _DamagedError(f"it holds a {kind}, not a state dict (names and tensors).")
    for name in _NESTED:
        if isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    foreign = [name for name, value in loaded.items() if not isinstance(value, _Tensor)]
    if foreign or not loaded:
        what = f"{str(foreign[0])!r} is no tensor" if foreign else "it is empty"
        raise _DamagedError(f"expected a state dict (names and tensors), but {what}.")
    return {str(name): value for name, value in loaded.items()}


def _arrays(tensors: Mapping[str, _Tensor], read_block: ReadBlock) -> dict[str, np.ndarray]:
    blocks: dict[str, np.ndarray] = {}  # a storage may serve several tensors
    arrays = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in blocks:
            blocks[key] = _numbers(tensor.storage, read_block(tensor.storage))
        arrays[name] = _view(name, tensor, blocks[key])
    return arrays


def _numbers(storage: _Storage, data: bytes) -> np.ndarray:
    if len(data) != storage.length * storage.type.itemsize:
        got = f"{len(data)} bytes for {storage.length} numbers"
        raise _DamagedError(f"storage {storage.key!r} has {got}.")
    if storage.type.dtype != "bfloat16":
        array = np.frombuffer(data, storage.type.dtype)
        return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))
    # The upper half of a float32.
    return (np.frombuffer(data, "<u2").astype("uint32") << 16).view("float32")


def _view(name: str, tensor: _Tensor, block: np.ndarray) -> np.ndarray:
    """The tensor's numbers, in its order; the bounds are checked, since numpy doesn't."""
    shape, strides = tensor.shape, tensor.strides
    count = math.prod(shape)
    sound = len(shape) == len(strides) and min((0, tensor.offset, *shape, *strides)) >= 0
    if sound and count == 0:
        return np.zeros(shape, block.dtype)
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
    # The second condition: strides of 0 would make a huge array of a small storage.
    if not sound or count > len(block) or tensor.offset + last >= len(block):
        raise _DamagedError(f"the tensor {name!r} reaches beyond its storage.")
    steps = [stride * block.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(block[tensor.offset :], shape, steps)
    return np.array(view, order="C")
