"""What `fit` may be given as arrays, brought to one form: trees of numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_number, message
from bigzoo.data._rows import leaves, num_rows, tree_map

# === Which arguments are arrays ===


def is_arrays(value: Any) -> bool:
    """Whether `value` is an array, a list of numbers, or a dict, tuple or list of such."""
    if isinstance(value, Mapping):
        return bool(value) and all(is_arrays(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and (is_numbers(value) or all(is_arrays(item) for item in value))
    return _is_dense(value)


def is_on_disk(value: Any) -> bool:
    """Whether any part lies in a file (memory map, HDF5) and is better read batch by batch."""
    if isinstance(value, Mapping):
        return any(is_on_disk(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_on_disk(item) for item in value)
    if isinstance(value, np.memmap) or type(value).__module__.partition(".")[0] == "h5py":
        return True
    needed = ("shape", "dtype", "__len__", "__getitem__")
    return not hasattr(value, "__array__") and all(hasattr(value, part) for part in needed)


def _is_dense(value: Any) -> bool:
    kind = type(value)
    sparse = "Sparse" in kind.__name__ or "Ragged" in kind.__name__
    library = kind.__module__.partition(".")[0]
    return hasattr(value, "__array__") and not sparse and library != "scipy"


def is_numbers(value: Any) -> bool:
    """Whether `value` is a number, or nested lists of nothing else."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(is_numbers(item) for item in value)
    return isinstance(value, (bool, int, float, np.number, np.bool_))


# === Trees of numpy arrays ===


def to_arrays(name: str, value: Any) -> Any:
    """`value` as a numpy array, or a dict or tuple of them, floats in Keras' float type."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: to_arrays(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not is_numbers(value):
        # As in Keras, a list of arrays means several inputs, not several samples.
        return tuple(to_arrays(f"{name}[{i}]", item) for i, item in enumerate(value))
    array = _as_numpy(name, value)
    if array.ndim == 0:
        raise ValueError(message(name, value, "an array with one row per sample"))
    _check_kind(name, array, _text_columns(value))
    return to_float_type(array)


def to_float_type(array: np.ndarray) -> np.ndarray:
    """Floats in Keras' float type, as Keras itself casts arrays; everything else as it is."""
    if array.dtype.kind in "iubOUSc":
        return array
    wanted = keras.config.floatx()
    return array if array.dtype.name == wanted else array.astype(wanted)


def _as_numpy(name: str, value: Any) -> np.ndarray:
    if type(value).__module__.partition(".")[0] == "pandas":
        array = value.to_numpy()
        # Keras makes a column of a Series: a model's output has a column, too.
        return array[:, None] if array.ndim == 1 else array
    if hasattr(value, "detach"):  # a torch tensor that may require gradients or be on a GPU
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError as error:
        fix = "All rows must have the same length."
        raise ValueError(message(name, value, "an array of numbers", fix)) from error


def _text_columns(table: Any) -> list[str]:
    """Names of the columns of a pandas table that hold text."""
    if not hasattr(table, "columns") or not hasattr(table, "iloc"):
        return []
    # By place: two columns may have one name.
    columns = [(str(name), table.iloc[:, i]) for i, name in enumerate(table.columns)]
    return [name for name, column in columns if any(isinstance(item, str) for item in column)]


def _check_kind(name: str, array: np.ndarray, text_columns: list[str]) -> None:
    if array.dtype.kind not in "OUS":
        return
    # A string tensor of TensorFlow becomes an array of bytes.
    is_text = array.dtype.kind in "US" or all(
        isinstance(item, (str, bytes)) for item in array.reshape(-1)
    )
    if is_text and keras.backend.backend() == "tensorflow":
        return  # for a model that begins with keras.layers.TextVectorization, for example
    if text_columns:
        shown = ", ".join(map(repr, text_columns[:3])) + (", ..." if text_columns[3:] else "")
        raise TypeError(
            f"`{name}` has text in column {shown}; expected numbers. Drop the column, or read the "
            "table with `bz.data.csv(path, target=...)`, which makes numbers of text."
        )
    fix = "Turn text into numbers first; `bigzoo.data.csv` does so for tables."
    if is_text and name.split()[-1] == "y":
        fix = "Use `names, y = np.unique(y, return_inverse=True)`."
    if not is_text:
        fix = "It holds Python objects, such as None or lists of different lengths."
    raise TypeError(f"`{name}` has dtype {array.dtype}; expected numbers. {fix}")


def count_rows(x: Any, y: Any, sample_weight: Any) -> int:
    """The number of rows that all have in common, or an error that names two lengths."""
    parts = (("x", x), ("y", y), ("sample_weight", sample_weight))
    return num_rows(*[(name, part) for name, part in parts if part is not None])


def count_bytes(tree: Any) -> int:
    return sum(int(leaf.nbytes) for _, leaf in leaves("", tree))


def spread_weights(sample_weight: Any, y: Any) -> Any:
    """One array of weights counts for each output, as in Keras."""
    if sample_weight is None or isinstance(sample_weight, (dict, tuple)):
        return sample_weight
    if not isinstance(y, (dict, tuple)):
        return sample_weight
    if sample_weight.ndim != 1 and sample_weight.shape[1:] != (1,):
        expected = "one number per sample, or weights for each output as `y` has them"
        raise ValueError(message("sample_weight", sample_weight, expected))
    return tree_map(lambda _: sample_weight, y)


# === Arguments of Keras' fit that only arrays have ===


def split_off(fraction: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """The first part for training and the last `fraction` for validation, cut as Keras cuts."""
    count = count_rows(x, y, sample_weight)
    cut = math.floor(count * (1.0 - fraction))
    if cut in (0, count):
        raise ValueError(
            f"`validation_split` is {fraction} of {count} rows, which leaves one part empty; "
            "expected at least one row in both."
        )

    def part(rows: slice) -> tuple[Any, Any, Any]:
        trees = (x, y, sample_weight)
        first, second, third = (
            None if tree is None else tree_map(lambda leaf: leaf[rows], tree) for tree in trees
        )
        return first, second, third

    return part(slice(0, cut)), part(slice(cut, count))


def check_class_weight(class_weight: Any) -> dict[int, float] | None:
    if class_weight is None:
        return None
    expected = "a dict from class numbers to weights, such as {0: 1.0, 1: 5.0}"
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise TypeError(message("class_weight", class_weight, expected))
    checked = {}
    for key, value in class_weight.items():
        number = check_number("class_weight key", key, 0, fix="Keys are class numbers: 0, 1, ...")
        checked[int(number)] = check_number(f"class_weight[{key!r}]", value, 0)
    return checked


def class_weights(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    """The weight of each row's class, 1 for classes that aren't named; shape (n,)."""
    if y is None or isinstance(y, (dict, tuple)):
        raise ValueError("`class_weight` needs `y` to be one array; expected a single output.")
    labels = np.asarray(y)
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else np.argmax(labels, axis=-1)
    if labels.ndim != 1:
        expected = "class numbers of shape (n,) or (n, 1), or one-hot rows of shape (n, k)"
        raise ValueError(message("y", y, expected, "`class_weight` has one weight per sample."))
    classes, places = np.unique(np.round(labels).astype("int32"), return_inverse=True)
    table = [class_weight.get(int(number), 1.0) for number in classes]
    return np.asarray(table, dtype=keras.config.floatx())[places]
