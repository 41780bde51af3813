"""Samples as numpy arrays, from whatever the functions of this room are given as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, message

EXPECTED = (
    "arrays with one row per sample, a pair (x, y), a bigzoo.data.Batches, a "
    "keras.utils.PyDataset or a tf.data.Dataset"
)


def rows(data: Any, most: int | None = None, name: str = "data") -> tuple[Any, Any]:
    """`data` as (x, y): trees of numpy arrays with as many rows, y None where there is none.

    As in Keras, a tuple is (x,), (x, y) or (x, y, sample_weight); several inputs are a list or a
    dict. `Batches` give their samples in stored order and not augmented.

    Args:
        data: Arrays, a tuple, a `bigzoo.data.Batches`, any other `keras.utils.PyDataset`, or a
            `tf.data.Dataset` of batches.
        most: Number of rows at most, at least 1. Fewer than there are are taken evenly from all of
            them, since stored data are often sorted by class; a `tf.data.Dataset` gives its first.
        name: What errors call the data.

    Raises:
        TypeError: if `data` is of another kind or holds text.
        ValueError: if it has no rows, or x and y have different numbers of them.
    """
    most = None if most is None else check_int("most", most, 1)
    if isinstance(data, keras.utils.PyDataset):
        x, y = _from_pydataset(data, most, name)
    elif is_tf_dataset(data):
        x, y = _from_batches(iter(data), most, name)
    else:
        x, y = _from_arrays(data, name)
    total = count_rows(x, y, name)
    if most is None or total <= most:
        return x, y
    chosen = spread(total, most)
    return take(x, chosen), None if y is None else take(y, chosen)


def take(tree: Any, index: Any) -> Any:
    """The rows `index` (integers or a slice) of each array in `tree`."""
    return keras.tree.map_structure(lambda leaf: leaf[index], tree)


def spread(total: int, most: int) -> np.ndarray:
    """`most` of `total` rows, evenly from first to last, each once; all if there are fewer."""
    most = min(total, most)
    return (np.arange(most, dtype=np.int64) * total) // most


def count_rows(x: Any, y: Any = None, name: str = "data") -> int:
    """The number of rows that all arrays have, at least 1, or an error."""
    leaves = [*keras.tree.flatten(x), *([] if y is None else keras.tree.flatten(y))]
    counts = sorted({len(leaf) for leaf in leaves})
    if len(counts) > 1:
        shown = " and ".join(map(str, counts))
        raise ValueError(f"`{name}` has arrays of {shown} rows; expected as many in all of them.")
    if not counts or counts[0] == 0:
        raise ValueError(f"`{name}` has no rows; expected at least one sample.")
    return counts[0]


def outputs_of(call: Callable[[Any], Any], x: Any, batch_size: int = 64) -> Any:
    """`call` on all rows of `x`, batch by batch, as numpy arrays in the form that it gives."""
    total = count_rows(x, name="x")
    parts = []
    for start in range(0, total, batch_size):
        found = call(take(x, slice(start, start + batch_size)))
        parts.append(keras.tree.map_structure(to_numpy, found))
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)


def to_numpy(value: Any) -> np.ndarray:
    """`value` as a numpy array, whatever backend its tensor is of."""
    if keras.ops.is_tensor(value):
        return np.asarray(keras.ops.convert_to_numpy(value))
    if hasattr(value, "detach"):  # a torch tensor that belongs to another backend than Keras'
        value = value.detach().cpu()
    return np.asarray(value)


def is_tf_dataset(data: Any) -> bool:
    """Whether `data` is a `tf.data.Dataset`; TensorFlow isn't imported to find out."""
    return type(data).__module__.startswith("tensorflow.") and hasattr(data, "element_spec")


# === Details ===


def _from_arrays(data: Any, name: str) -> tuple[Any, Any]:
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        fix = "Several inputs are a list or a dict: `([a, b], y)`."
        expected = "(x,), (x, y) or (x, y, sample_weight)"
        raise ValueError(f"`{name}` is a tuple of {len(parts)}; expected {expected}. {fix}")
    x = _tree(parts[0], name)
    y = None if len(parts) < 2 or parts[1] is None else _tree(parts[1], f"{name}[1]", labels=True)
    return x, y


def _tree(value: Any, name: str, labels: bool = False) -> Any:
    if isinstance(value, Mapping):
        if not value:
            raise ValueError(message(name, value, "at least one array in the dict"))
        return {key: _tree(item, f"{name}[{key!r}]", labels) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and value and all(_has_rows(item) for item in value):
        # As in Keras, a list of arrays means several inputs, not several samples.
        return [_tree(item, f"{name}[{i}]", labels) for i, item in enumerate(value)]
    return _array(value, name)


def _has_rows(item: Any) -> bool:
    return len(getattr(item, "shape", ())) > 0


def _array(value: Any, name: str) -> np.ndarray:
    # A generator or a path would become an array of one object.
    is_rows = hasattr(value, "__array__") or hasattr(value, "__getitem__")
    if value is None or isinstance(value, (str, bytes)) or not is_rows:
        raise TypeError(message(name, value, EXPECTED))
    if type(value).__module__.partition(".")[0] == "h5py":
        value = value[:]
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError(f"`{name}` has no rows; expected at least one sample.")
    try:
        array = to_numpy(value)
    except (ValueError, TypeError) as error:
        fix = "All rows must have the same shape."
        raise ValueError(message(name, value, "an array of numbers", fix)) from error
    if array.ndim == 0:
        raise TypeError(message(name, value, EXPECTED))
    if array.dtype.kind in "OUS":
        raise TypeError(f"`{name}` has the dtype {array.dtype}; expected numbers.")
    return array


def _from_pydataset(data: Any, most: int | None, name: str) -> tuple[Any, Any]:
    # `Batches` give their rows at once, without shuffling and augmentation.
    if hasattr(data, "arrays") and hasattr(data, "select") and hasattr(data, "num_samples"):
        if most is not None and most < data.num_samples:
            data = data.select(spread(data.num_samples, most))
        return _from_arrays(data.arrays(), name)
    count = len(data)
    if count == 0:
        raise ValueError(f"`{name}` has no rows; expected at least one sample.")
    if most is None:
        return _from_batches((data[i] for i in range(count)), None, name)
    size = max(1, count_rows(_pair(data[0], name)[0], name=name))
    # Some more than it takes: the last batch may be smaller, and a batch may hold one class only.
    needed = min(count, max(math.ceil(most / size) + 1, 8))
    return _from_batches((data[int(i)] for i in spread(count, needed)), None, name)


def _from_batches(batches: Iterator[Any], most: int | None, name: str) -> tuple[Any, Any]:
    parts: list[tuple[Any, Any]] = []
    found = 0
    for batch in batches:
        parts.append(_pair(batch, name))
        found += count_rows(*parts[-1], name=name)
        if most is not None and found >= most:
            break
    if not parts:
        raise ValueError(f"`{name}` has no rows; expected at least one sample.")
    x = _joined([part[0] for part in parts])
    y = None if parts[0][1] is None else _joined([part[1] for part in parts])
    if most is not None and found > most:
        x, y = take(x, slice(most)), None if y is None else take(y, slice(most))
    return x, y


def _pair(batch: Any, name: str) -> tuple[Any, Any]:
    """(x, y) of one batch as a data set yields it; two tensors in a tuple are x and y."""
    return _from_arrays(batch, name)


def _joined(trees: list[Any]) -> Any:
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *trees)
