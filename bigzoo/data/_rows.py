"""Rows by integer index: from arrays in memory, and from anything that reads like one.

A "source" has `shape`, `dtype`, `len()` and `source[int_array]`. A numpy array is one; so are a
memory-mapped file and the HDF5 reader. A tree is one source, a dict of sources or a tuple of them.
A source that is slow to read at random says so with `block_rows`, the number of neighbouring rows
that are read together; shuffling then keeps to blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bigzoo._errors import message

_READ_BYTES = 16 * 2**20  # how much of a source is read at a time when all of it is wanted


class Rows:
    """Some rows of a source, without a copy of them."""

    def __init__(self, source: Any, index: np.ndarray) -> None:
        self.source = source
        self.index = np.asarray(index, dtype=np.int64)
        self.shape = (len(self.index), *source.shape[1:])
        self.dtype = source.dtype
        self.block_rows = getattr(source, "block_rows", None)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.source[self.index[rows]]


# === Trees ===


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` on each source of a tree (and its partners in `others`), in the same structure."""
    if isinstance(tree, dict):
        return {
            key: tree_map(function, tree[key], *[other[key] for other in others]) for key in tree
        }
    if isinstance(tree, tuple):
        return tuple(
            tree_map(function, item, *[other[i] for other in others]) for i, item in enumerate(tree)
        )
    return function(tree, *others)


def leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Each source of a tree with its name: ("x", …), ("x['age']", …) or ("x[0]", …)."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(f"{name}[{key!r}]", value)
    elif isinstance(tree, tuple):
        for i, value in enumerate(tree):
            yield from leaves(f"{name}[{i}]", value)
    else:
        yield name, tree


# === From what the user has to sources ===


def as_rows(name: str, value: Any, *, text: bool = False) -> Any:
    """`value` as a tree of sources; anything without rows of numbers is an error that says so.

    With `text=True`, arrays of strings are let through (labels that are only compared).
    """
    if type(value).__module__.partition(".")[0] == "h5py":
        return _from_h5py(name, value)
    if isinstance(value, Mapping):
        if not value:
            raise ValueError(message(name, value, "at least one array in the dict"))
        return {key: as_rows(f"{name}[{key!r}]", item, text=text) for key, item in value.items()}
    if isinstance(value, (tuple, list)) and value and all(_has_rows(item) for item in value):
        # As in Keras, a list of arrays means several inputs, not several samples.
        return tuple(as_rows(f"{name}[{i}]", item, text=text) for i, item in enumerate(value))
    rows = value if _is_source(value) else _as_array(name, value)
    _check_rows(name, rows, text)
    return rows


def num_rows(*named: tuple[str, Any]) -> int:
    """The number of rows that all sources have in common, or an error that names two lengths."""
    found = [leaf for name, tree in named for leaf in leaves(name, tree)]
    first_name, first = found[0]
    count = int(first.shape[0])
    for name, source in found[1:]:
        if int(source.shape[0]) != count:
            raise ValueError(
                f"`{first_name}` has {count} rows and `{name}` has {int(source.shape[0])}; "
                "expected as many in both. Row i of one must belong to row i of the other."
            )
    if count == 0:
        raise ValueError(f"`{first_name}` has no rows; expected at least one sample.")
    return count


def _has_rows(item: Any) -> bool:
    return len(getattr(item, "shape", ())) > 0


def _is_source(value: Any) -> bool:
    if isinstance(value, (np.ndarray, Rows)):
        return not isinstance(value, np.ma.MaskedArray)
    needed = ("shape", "dtype", "__len__", "__getitem__")
    # Tensors and data frames have __array__ and can't be read by integer arrays everywhere.
    return all(hasattr(value, part) for part in needed) and not hasattr(value, "__array__")


def _as_array(name: str, value: Any) -> np.ndarray:
    expected = "an array with one row per sample, or a dict or tuple of arrays"
    if isinstance(value, np.ma.MaskedArray):
        fix = "Fill the masked values first, for instance with `.filled(0)`."
        raise ValueError(message(name, value, "an array without a mask", fix))
    if value is None or isinstance(value, (str, bytes, set)) or hasattr(value, "as_numpy_iterator"):
        raise TypeError(message(name, value, expected))
    try:
        array = np.asarray(value)
    except Exception as error:  # each library has its own kind of error here
        fix = f"It can't be read as an array: {error}"
        raise TypeError(message(name, value, expected, fix)) from error
    if array.dtype == object and not hasattr(value, "dtype") and not hasattr(value, "dtypes"):
        raise TypeError(message(name, value, expected))
    return array


def _check_rows(name: str, rows: Any, text: bool) -> None:
    if len(rows.shape) == 0:
        raise TypeError(message(name, rows, "an array with one row per sample"))
    dtype = np.dtype(rows.dtype)
    if dtype.kind in "fiub" or dtype.name == "bfloat16":
        return
    if dtype.kind in "OUS" or dtype.name.startswith("str"):
        if text:
            return
        fix = (
            "Turn labels into numbers with `names, y = np.unique(y, return_inverse=True)` and pass "
            "`class_names=names`."
            if name.startswith("y")
            else "Turn text into numbers first; `bigzoo.data.csv` does so for tables."
        )
        raise TypeError(f"`{name}` holds text or objects ({dtype}); expected numbers. {fix}")
    raise TypeError(f"`{name}` has dtype {dtype}; expected numbers (float, integer or boolean).")


def _from_h5py(name: str, value: Any) -> Any:
    if not hasattr(value, "chunks"):
        fix = "Use `bigzoo.data.h5(path, x=..., y=...)`."
        raise TypeError(message(name, value, "an array or one HDF5 dataset", fix))
    from bigzoo.data._h5 import H5Rows

    return H5Rows(value.file.filename, value.name)


def select_rows(source: Any, index: np.ndarray) -> Any:
    """Some rows: a slice or copy of an array in memory, a view of anything else."""
    if isinstance(source, np.ndarray):
        is_range = len(index) > 0 and index[-1] - index[0] == len(index) - 1
        if is_range and bool(np.all(np.diff(index) == 1)):
            return source[index[0] : index[-1] + 1]
        return source[index]
    if isinstance(source, Rows):
        return Rows(source.source, source.index[index])
    return Rows(source, index)


def permutation(count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers below `count` in random order, int64, the same with every version of numpy."""
    # numpy may change `Generator.permutation`, but not the bits that a generator gives.
    keys = rng.bit_generator.random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


# === Reading all of it ===


def row_bytes(source: Any) -> int:
    """Bytes of one row in the source's own dtype, at least 1."""
    shape = tuple(int(side) for side in source.shape[1:])
    return max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(source.dtype).itemsize)


def blocks(source: Any) -> Iterator[np.ndarray]:
    """All rows in stored order, some megabytes at a time."""
    count = int(source.shape[0])
    step = max(1, _READ_BYTES // row_bytes(source))
    for start in range(0, count, step):
        stop = min(count, start + step)
        if isinstance(source, np.ndarray):
            yield source[start:stop]
        else:
            yield source[np.arange(start, stop)]


def read_all(source: Any) -> np.ndarray:
    """All rows as one numpy array; an array in memory is given back as it is."""
    if isinstance(source, np.ndarray):
        return source
    result = np.empty(source.shape, dtype=source.dtype)
    start = 0
    for block in blocks(source):
        result[start : start + len(block)] = block
        start += len(block)
    return result


def check_fits_in_memory(named: list[tuple[str, Any]]) -> None:
    """A MemoryError beforehand rather than a machine that swaps until it is killed."""
    wanted = sum(
        row_bytes(source) * int(source.shape[0])
        for _, source in named
        if not isinstance(source, np.ndarray)
    )
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory / 2:
        raise MemoryError(
            f"The data take {wanted / 2**30:.1f} GiB and this machine has {memory / 2**30:.1f} "
            "GiB; expected at most half of it. Read batch by batch, or a part with `.take(n)`."
        )
