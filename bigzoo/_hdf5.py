"""What an HDF5 file of weights holds, read without following anything that leads out of it.

HDF5 has links into other files, datasets whose bytes lie in other files, and virtual datasets made
of other files' parts: a file of weights that uses them reads whatever its author wants from the
disk of whoever loads it. It can also claim an enormous size for an array that isn't there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bigzoo._optional import require

# A file may claim so much more than it has on disk; Keras writes arrays uncompressed, 1 to 1.
_FREE_BYTES = 2**28
_MOST_EXPANSION = 100
_MOST_OBJECTS = 1_000_000
_MOST_DEPTH = 200


def check_hdf5(file: Any, stored_bytes: int, what: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all datasets by their path; a ValueError if anything in the file is unsafe.

    Args:
        file: A path, or an open binary file that can seek.
        stored_bytes: Size of the file.
        what: How to name it in errors.
    """
    h5py = require("h5py", purpose="bigzoo.load")
    try:
        opened = h5py.File(file, "r")
    except Exception as error:  # h5py raises OSError, RuntimeError, ValueError and KeyError here
        raise ValueError(f"{what} is damaged or not an HDF5 file: {error}.") from error
    shapes: dict[str, tuple[int, ...]] = {}
    claimed = 0
    with opened:
        try:
            for path, dataset in _datasets(opened, h5py, what):
                claimed += math.prod(dataset.shape or ()) * dataset.dtype.itemsize
                shapes[path] = tuple(dataset.shape or ())
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"{what} is damaged: {error}.") from error
    if claimed > _FREE_BYTES + _MOST_EXPANSION * stored_bytes:
        got = f"arrays of {claimed / 2**30:,.1f} GiB in {stored_bytes / 2**20:,.1f} MiB"
        raise ValueError(f"{what} is refused: it claims {got}, as only a bomb does.")
    return shapes


def layer_names(file: Any) -> dict[str, str]:
    """Names that Keras notes beside the weights, by the path of their group."""
    h5py = require("h5py", purpose="bigzoo.load")
    names = {}
    with h5py.File(file, "r") as opened:
        for path, group in _groups(opened, h5py):
            name = group.attrs.get("name")
            if isinstance(name, str):
                names[path] = name
    return names


def is_legacy_model(file: Any) -> bool:
    """Whether this is a whole model in the format of Keras 1 and 2."""
    h5py = require("h5py", purpose="bigzoo.load")
    with h5py.File(file, "r") as opened:
        return "model_config" in opened.attrs


def _datasets(root: Any, h5py: Any, what: str) -> Iterator[tuple[str, Any]]:
    """Every dataset with its path, each object looked at before it is opened."""
    waiting = [("", root)]
    seen = 0
    while waiting:
        prefix, group = waiting.pop()
        if prefix.count("/") > _MOST_DEPTH:  # a group that holds itself has no end
            raise ValueError(f"{what} is refused: its groups are nested without end.")
        for key in group:
            seen += 1
            if seen > _MOST_OBJECTS:
                raise ValueError(f"{what} is refused: it has over {_MOST_OBJECTS:,} objects.")
            path = f"{prefix}/{key}" if prefix else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{what} is refused: {path!r} is a link that may lead out of it.")
            item = group[key]
            if isinstance(item, h5py.Group):
                waiting.append((path, item))
            elif isinstance(item, h5py.Dataset):
                _check_dataset(path, item, what)
                yield path, item


def _check_dataset(path: str, dataset: Any, what: str) -> None:
    if dataset.external:
        raise ValueError(f"{what} is refused: the bytes of {path!r} lie in another file.")
    if dataset.is_virtual:
        raise ValueError(f"{what} is refused: {path!r} is made of parts of other files.")
    if dataset.dtype.kind == "O" and not _is_text(dataset):
        raise ValueError(f"{what} is refused: {path!r} holds {dataset.dtype}; expected numbers.")


def _is_text(dataset: Any) -> bool:
    h5py = require("h5py")
    return h5py.check_string_dtype(dataset.dtype) is not None


def _groups(root: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    waiting = [("", root)]
    while waiting:
        prefix, group = waiting.pop()
        for key in group:
            item = group[key]
            if isinstance(item, h5py.Group):
                path = f"{prefix}/{key}" if prefix else key
                yield path, item
                waiting.append((path, item))
