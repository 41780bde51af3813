"""Reading a bounded part of any data that `fit` takes, without consuming or changing it."""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bigzoo.data import TextBatches
from bigzoo.train._check_form import from_lists, not_an_array
from bigzoo.train._report import Finding, error


@dataclass(frozen=True)
class Limits:
    """How much of the data is looked at."""

    batches: int  # batches read from a dataset
    elements: int  # numbers of one array of features
    labels: int  # rows of one array of labels
    hash_rows: int  # rows compared between training and validation
    scan_bytes: int  # an array up to this size is scanned in full for NaN


FULL = Limits(8, 2**26, 2**22, 200_000, 2**30)
# At most a few milliseconds each on one core, so that even a run of seconds doesn't notice.
QUICK = Limits(1, 2**20, 200_000, 4096, 2**26)


@dataclass
class View:
    """What was seen of the training or the validation data.

    `x`, `y` and `weight` keep the structure (dict, tuple) that they came in; the leaves are numpy
    arrays, or None where a leaf can't be read.
    """

    kind: str
    x: Any = None
    y: Any = None
    weight: Any = None
    stored_x: Any = None  # all rows, where they are in memory
    token_range: tuple[int, int] | None = None  # of all rows, where these are texts
    pad_id: int = 0  # the token that fills texts up
    num_samples: int | None = None
    y_rows: tuple[int, ...] = ()  # rows of each array of labels, where these are arrays
    num_batches: float | None = None  # math.inf for a dataset without an end
    batch_size: int | None = None
    shuffled: bool | None = None  # None: not known
    complete: bool = False  # `y` is all the labels there are
    whole: bool = False  # `y` comes from all over the data, not from the first batches alone
    readable: bool = True
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(data: Any, y: Any, weight: Any, limits: Limits, role: str = "") -> View:
    """A `View` of `data`; `role` is "validation " for validation data, empty for training data."""
    kind = kind_of(data)
    if kind == "one-shot":
        note = f"the {role}data is a one-shot iterator ({type(data).__name__}): looking at it would"
        return View(kind, readable=False, notes=[f"{note} use it up, so it is not checked."])
    if kind == "arrays":
        return _look_at_arrays(data, y, weight, limits, role)
    with _random_states_kept():
        view = _READERS[kind](data, limits)
    if y is not None:
        text = f"y next to a {type(data).__name__}, which brings its own labels"
        fix = f"bz.fit(model, {role.strip() or 'data'})  # without y"
        view.findings.append(error("labels-twice", f"{role}y", text, "only the dataset", fix))
    if view.x is None and view.readable:
        fix = "read one batch yourself, with next(iter(data)), and look why there is none"
        view.findings.append(error("empty-data", f"{role}data", "no batches", "one or more", fix))
        view.readable = False
    return view


def kind_of(data: Any) -> str:
    """ "arrays", "batches", "pydataset", "tf.data", "dataloader" or "one-shot"."""
    if isinstance(data, keras.utils.PyDataset):
        is_batches = callable(getattr(data, "batch", None)) and hasattr(data, "num_samples")
        return "batches" if is_batches else "pydataset"
    tensorflow = sys.modules.get("tensorflow")  # if it isn't loaded, this is no dataset of its
    if tensorflow is not None and isinstance(data, tensorflow.data.Dataset):
        return "tf.data"
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is not None and isinstance(data, torch_data.DataLoader):
        return "dataloader"
    if hasattr(data, "__next__"):
        return "one-shot"
    return "arrays"


def to_numpy(leaf: Any, rows: int | None = None) -> np.ndarray | None:
    """A leaf as numpy, only the first `rows` where asked; None if it isn't a dense array."""
    if leaf is None or isinstance(leaf, (str, bytes)):
        return None
    if isinstance(leaf, np.ndarray):
        return leaf
    if hasattr(leaf, "iloc"):  # pandas, without importing it
        return np.asarray((leaf if rows is None else leaf.iloc[:rows]).to_numpy())
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return None
    try:
        part = leaf if rows is None or len(leaf) <= rows else leaf[:rows]
        part = part.detach().cpu() if hasattr(part, "detach") else part
        array = np.asarray(part)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return None
    return array if array.ndim == len(leaf.shape) else None  # sparse matrices become 0-d objects


def leaves(structure: Any) -> list[Any]:
    """Flat leaves of nested dicts, lists and tuples; None is no leaf."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def spread(array: np.ndarray, rows: int) -> np.ndarray:
    """At most `rows` rows, evenly spaced over the whole array, in order."""
    if len(array) <= rows:
        return array
    return array[_even(len(array), rows)]


def _even(count: int, rows: int) -> np.ndarray:
    """At most `rows` numbers of rows out of `count`, evenly spaced."""
    return np.linspace(0, count - 1, min(rows, count)).astype(np.int64)


def row_limit(array: Any, limits: Limits) -> int:
    elements = math.prod(array.shape[1:]) or 1
    return max(16, limits.elements // elements)


def _map(function: Callable[[Any], Any], structure: Any) -> Any:
    if structure is None:
        return None
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), structure
    )


def _look_at_arrays(x: Any, y: Any, weight: Any, limits: Limits, role: str) -> View:
    view = View("arrays", shuffled=None)
    x, y, weight = (from_lists(one) for one in (x, y, weight))
    view.findings += not_arrays(x, f"{role}x") + not_arrays(y, f"{role}y")
    if view.findings:
        view.readable = False
        return view
    arrays = _map(to_numpy, x)
    view.stored_x = arrays
    view.x = _map(lambda leaf: _rows_of(leaf, limits), arrays)
    sizes = {len(leaf) for leaf in leaves(arrays) if leaf.ndim}
    view.num_samples = max(sizes) if sizes else None
    _take_labels(view, y, weight, limits)
    return view


def _rows_of(leaf: Any, limits: Limits) -> Any:
    return spread(leaf, row_limit(leaf, limits)) if getattr(leaf, "ndim", 0) else leaf


def _take_labels(view: View, y: Any, weight: Any, limits: Limits) -> None:
    labels = _map(to_numpy, y)
    view.y_rows = tuple(len(leaf) for leaf in leaves(labels) if leaf.ndim)
    long = [leaf for leaf in leaves(labels) if leaf.ndim and len(leaf) > _label_rows(leaf, limits)]
    view.complete, view.whole = not long, True
    view.y = _map(lambda a: spread(a, _label_rows(a, limits)) if a.ndim else a, labels)
    view.weight = _map(to_numpy, weight)


def _label_rows(leaf: np.ndarray, limits: Limits) -> int:
    return max(16, limits.labels // (math.prod(leaf.shape[1:]) or 1))


def not_arrays(structure: Any, where: str) -> list[Finding]:
    """Leaves that are no arrays."""
    for leaf in keras.tree.flatten(structure):
        if leaf is not None and to_numpy(leaf, 1) is None:
            return [not_an_array(structure, leaf, where)]
    return []


def _look_at_batches(data: Any, limits: Limits) -> View:
    view = _look_at_pydataset(data, limits)
    view.kind = "batches"
    view.num_samples = int(data.num_samples)
    view.batch_size = int(data.batch_size)
    view.shuffled = bool(data.shuffle)
    if _in_memory(data.x):
        view.stored_x = data.x
    if isinstance(data, TextBatches):
        # Batches of texts differ in length, so that they can't be put together as they come.
        view.token_range, view.pad_id = data.token_range, int(data.encoder.pad_id)
        view.x = _map(lambda leaf: leaf[_even(len(leaf), row_limit(leaf, limits))], data.x)
    if data.y is not None and _in_memory(data.y):
        _take_labels(view, data.y, data.sample_weight, limits)
    return view


def _in_memory(structure: Any) -> bool:
    found = leaves(structure)
    return bool(found) and all(type(leaf) is np.ndarray for leaf in found)


def _look_at_pydataset(data: Any, limits: Limits) -> View:
    count = data.num_batches
    total = math.inf if count is None else int(count)
    wanted = int(min(limits.batches, total))
    view = _from_batches([data[index] for index in range(wanted)], "pydataset")
    view.num_batches = total
    view.complete = wanted == total
    return view


def _look_at_tf_data(data: Any, limits: Limits) -> View:
    read = list(itertools.islice(iter(data), limits.batches + 1))
    view = _from_batches(read[: limits.batches], "tf.data")
    count = int(data.cardinality())
    view.num_batches = {-1: math.inf, -2: None}.get(count, count)
    view.complete = len(read) <= limits.batches
    return view


def _look_at_dataloader(data: Any, limits: Limits) -> View:
    """Rows come from the DataLoader's dataset: its iterator starts processes and draws seeds."""
    import torch

    source = data.dataset
    rows = getattr(data, "batch_size", None)
    if rows is None or not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        note = "the DataLoader has no dataset with a length, so its batches are not checked."
        return View("dataloader", readable=False, notes=[note])
    with torch.random.fork_rng(devices=[]):
        count = min(len(source), rows * limits.batches)
        starts = range(0, count, rows)
        batches = [
            data.collate_fn([source[i] for i in range(start, min(start + rows, count))])
            for start in starts
        ]
    view = _from_batches(batches, "dataloader")
    view.num_samples, view.batch_size, view.num_batches = len(source), rows, len(data)
    sampler = type(getattr(data, "sampler", None)).__name__
    view.shuffled = sampler != "SequentialSampler"
    view.complete = count == len(source)
    return view


_READERS: dict[str, Callable[[Any, Limits], View]] = {
    "batches": _look_at_batches,
    "pydataset": _look_at_pydataset,
    "tf.data": _look_at_tf_data,
    "dataloader": _look_at_dataloader,
}


def _from_batches(batches: list[Any], kind: str) -> View:
    view = View(kind)
    if not batches:
        return view
    parts = [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]
    view.x, view.y, view.weight = (_join([part[i] for part in parts]) for i in range(3))
    first = leaves(parts[0][0])
    shape = tuple(getattr(first[0], "shape", ())) if first else ()
    view.batch_size = int(shape[0]) if shape else None
    return view


def _join(parts: list[Any]) -> Any:
    """The same structure with the batches' arrays put together; leaves that differ: the first."""
    if parts[0] is None:
        return None

    def concatenate(*found: Any) -> Any:
        arrays = [to_numpy(leaf) for leaf in found]
        known = [array for array in arrays if array is not None]
        if not known:
            return None
        same = [array for array in known if array.shape[1:] == known[0].shape[1:]]
        return np.concatenate(same) if known[0].ndim else known[0]

    return keras.tree.map_structure(concatenate, *parts)


def validation_parts(validation: Any) -> tuple[Any, Any, Any]:
    """(data or x, y, sample_weight) of what `fit` takes as `validation_data`."""
    if kind_of(validation) != "arrays" or not isinstance(validation, (tuple, list)):
        return validation, None, None
    x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(validation))
    return x, y, weight


def split_off(x: Any, y: Any, weight: Any, share: float) -> tuple[Any, Any, Any, Any]:
    """What Keras does with `validation_split`: the last rows, before any shuffling."""
    x, y, weight = (from_lists(one) for one in (x, y, weight))
    found = leaves(x)
    if not found or not hasattr(found[0], "shape"):
        return x, y, weight, None
    at = int(np.floor(found[0].shape[0] * (1 - share)))

    def part(structure: Any, rows: slice) -> Any:
        if structure is None:
            return None
        return keras.tree.map_structure(lambda leaf: leaf[rows], structure)

    head, tail = slice(None, at), slice(at, None)
    validation = tuple(part(one, tail) for one in (x, y, weight) if one is not None)
    return part(x, head), part(y, head), part(weight, head), validation


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Reading a batch may draw from the global generators; the training must not see that."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
