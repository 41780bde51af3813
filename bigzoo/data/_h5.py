"""Batches that stream from an HDF5 file: what is in memory doesn't grow with the file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message, suggest
from bigzoo.data._batches import Batches
from bigzoo.data._checks import Augmenter
from bigzoo.data._rows import row_bytes, tree_map

_BLOCK_BYTES = 256 * 2**10  # smaller reads cost more in calls than in bytes
_CACHE_BYTES = 32 * 2**20  # two windows of the shuffled order, which a batch may straddle


def h5(
    path: str | os.PathLike[str],
    *,
    x: Any,
    y: Any = None,
    sample_weight: str | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    augment: Augmenter | None = None,
    class_names: Sequence[str] | None = None,
) -> Batches:
    """Batches from datasets of an HDF5 file, read while they are needed.

    At most about 32 MB of each dataset are in memory (or one of its chunks, if that is larger).
    Shuffling visits the file's chunks in random order and mixes the rows of neighbouring chunks, so
    that each chunk is read once per epoch; a dataset that fits into 32 MB is shuffled as a whole.
    A file with very large chunks that is sorted by class should be shuffled once when it is made.

    Args:
        path: An HDF5 file.
        x: Name of a dataset of shape (n, ...) in it, such as "images" or "train/x"; or a dict or
            tuple of names for several inputs.
        y: Name (or dict or tuple of names) of the targets, n rows each; None if there are none.
        sample_weight: Name of a dataset of shape (n,).
        batch_size: Samples per batch, at least 1.
        shuffle: Whether each epoch has an order of its own.
        seed: At least 0; the order is drawn from (seed, epoch).
        augment: None, or a function `augment(x, y, rng) -> (x, y)` of one batch.
        class_names: Names of the classes 0, 1, ...; the labels must fit them.

    Returns:
        `Batches`; divide them with `bigzoo.data.split(batches)`. They can be pickled and read from
        several threads or processes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it isn't an HDF5 file, a dataset is missing, or lengths differ.
        TypeError: if a dataset holds text or a name is not a string.

    Example:
        >>> import h5py, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "data.h5")
        >>> with h5py.File(path, "w") as file:
        ...     file["x"], file["y"] = np.zeros((10, 3), "float32"), np.arange(10) % 2
        >>> batches = bz.data.h5(path, x="x", y="y", batch_size=4)
        >>> [y_batch.shape for x_batch, y_batch in batches]
        [(4,), (4,), (2,)]
    """
    file = _check_file(path)
    return Batches(
        _open_all("x", file, x),
        None if y is None else _open_all("y", file, y),
        None if sample_weight is None else _open_all("sample_weight", file, sample_weight),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        augment=augment,
        class_names=class_names,
        name=file.name,
    )


class H5Rows:
    """One dataset of an HDF5 file, read by rows.

    Rows are read in blocks of neighbours, and the blocks that were read last stay in memory. The
    file is opened at the first read in each process, so that a copy can be sent to another one.
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.path, self.name = Path(path).absolute(), name
        self._handle: Any = None
        self._forget()
        with _opened(self.path) as file:
            dataset = _find(file, name)
            self.shape = tuple(dataset.shape)
            self.dtype = dataset.dtype
            chunk = dataset.chunks[0] if dataset.chunks else 1
        self._block = chunk * max(1, _BLOCK_BYTES // (chunk * row_bytes(self)))
        fits = row_bytes(self) * len(self) <= _CACHE_BYTES
        # What stays in memory as a whole can be read in any order.
        self.block_rows = None if fits else self._block

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> np.ndarray:
        if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "iu":
            rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self[rows[None]][0]
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        number = rows // self._block
        for one in np.unique(number):
            here = np.flatnonzero(number == one)
            result[here] = self._read_block(int(one))[rows[here] - one * self._block]
        return result

    def _read_block(self, number: int) -> np.ndarray:
        if self._process != os.getpid():
            self._forget()  # after a fork, the parent's handle and lock are not ours to use
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            start = number * self._block
            block = self._dataset()[start : start + self._block]
            self._cache[number] = block
            self._cached_bytes += block.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
            return block

    def _dataset(self) -> Any:
        if self._handle is None:
            file = _open(self.path)
            dataset = _find(file, self.name)
            now = tuple(dataset.shape), dataset.dtype
            if now != (self.shape, self.dtype):
                file.close()
                raise ValueError(
                    f"{str(self.path)!r} was changed: {self.name!r} is now {now[0]} {now[1]}; "
                    f"expected {self.shape} {self.dtype}. Call bigzoo.data.h5 again."
                )
            self._handle = dataset
        return self._handle

    def _forget(self) -> None:
        self._handle = None
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        kept = ("path", "name", "shape", "dtype", "block_rows", "_block")
        return {key: self.__dict__[key] for key in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _open_all(argument: str, file: Path, names: Any) -> Any:
    expected = "the name of a dataset, or a dict or tuple of names"
    if isinstance(names, Mapping):
        names = dict(names)
    elif isinstance(names, list):
        names = tuple(names)
    if isinstance(names, (dict, tuple)) and not names:
        raise ValueError(message(argument, names, expected))

    def open_one(name: Any) -> H5Rows:
        if not isinstance(name, str):
            raise TypeError(message(argument, name, expected))
        return H5Rows(file, name)

    return tree_map(open_one, names)


def _check_file(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(message("path", path, "the path of an HDF5 file"))
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(message("path", str(file), "an HDF5 file that exists"))
    if file.is_dir():
        raise ValueError(message("path", str(file), "an HDF5 file, not a folder"))
    return file


def _open(path: Path) -> Any:
    import h5py

    if not path.exists():
        raise FileNotFoundError(message("path", str(path), "an HDF5 file that exists"))
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(8)
        raise ValueError(f"{str(path)!r} is not an HDF5 file: it starts with {start!r}.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} can't be opened; expected a whole HDF5 file that no other program is "
            f"writing. HDF5 says: {error}"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    file = _open(path)
    try:
        yield file
    finally:
        file.close()


def _find(file: Any, name: str) -> Any:
    import h5py

    found = file.get(name)
    if isinstance(found, h5py.Dataset) and found.shape:
        return found
    known: list[str] = []
    file.visititems(lambda path, item: known.append(path) if hasattr(item, "chunks") else None)
    where = repr(str(file.filename))
    file.close()
    if not known:
        raise ValueError(f"{where} has no datasets; expected one named {name!r}.")
    if found is None:
        raise ValueError(f"{where} has no dataset {name!r}. {suggest(name, known)}")
    got = "a group" if isinstance(found, h5py.Group) else "a dataset without rows"
    raise ValueError(f"{name!r} in {where} is {got}; expected a dataset. {suggest(name, known)}")
