"""Batches for trial steps, from arrays, a PyDataset or a tf.data.Dataset, without end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message

_KINDS = "arrays with targets, a bigzoo.data.Batches, a keras.utils.PyDataset or a tf.data.Dataset"


def batches(x: Any, y: Any, batch_size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """(x, y) batches, epoch after epoch; each epoch of arrays in a new order."""
    if isinstance(x, keras.utils.PyDataset):
        _no_targets(x, y)
        return _from_pydataset(x)
    if _is_tf_dataset(x):
        _no_targets(x, y)
        return _from_tf_dataset(x)
    check_arrays(x, y)
    return _from_arrays(x, y, batch_size, seed)


def check_arrays(x: Any, y: Any) -> int:
    """Number of samples in arrays (or dicts and tuples of them) that belong together."""
    leaves = [*keras.tree.flatten(x), *keras.tree.flatten(y)]
    if x is None or any(not hasattr(leaf, "shape") or len(leaf.shape) < 1 for leaf in leaves):
        name, got = ("y", y) if y is None and hasattr(x, "shape") else ("x", x)
        raise TypeError(message(name, got, _KINDS))
    counts = sorted({int(leaf.shape[0]) for leaf in leaves})
    if len(counts) != 1 or counts[0] == 0:
        got = " and ".join(map(str, counts))
        raise ValueError(f"`x` and `y` have {got} samples; expected the same number, above 0.")
    return counts[0]


def first_batch(x: Any, y: Any) -> tuple[Any, Any, int | None]:
    """Some samples to repeat, as (x, y), and the number of samples in all if it is known."""
    if isinstance(x, keras.utils.PyDataset) or _is_tf_dataset(x):
        first = next(batches(x, y, 1, 0))
        total = getattr(x, "num_samples", None)
        return first[0], first[1], total
    total = check_arrays(x, y)
    few = np.arange(min(total, 32))
    return _take(x, few), _take(y, few), total


def repeat_to(values: Any, size: int) -> Any:
    """The first `size` samples of `values`, repeated from the start as often as needed."""
    count = int(keras.tree.flatten(values)[0].shape[0])
    return _take(values, np.arange(size) % count)


def _from_arrays(x: Any, y: Any, batch_size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    total = check_arrays(x, y)
    size = min(batch_size, total)
    while True:
        order = rng.permutation(total)
        # The incomplete batch at the end is left out: its loss would be noisier than the others.
        for start in range(0, total - size + 1, size):
            rows = np.sort(order[start : start + size])
            yield _take(x, rows), _take(y, rows)


def _from_pydataset(data: Any) -> Iterator[tuple[Any, Any]]:
    if len(data) == 0:
        raise ValueError(message("x", data, "at least one batch"))
    pure = getattr(data, "batch", None)
    epoch = 0
    while True:
        for index in range(len(data)):
            # `Batches.batch` takes the epoch, so the data's own epoch doesn't move.
            batch = pure(epoch, index) if callable(pure) else data[index]
            yield _pair(batch)
        epoch += 1


def _from_tf_dataset(data: Any) -> Iterator[tuple[Any, Any]]:
    while True:
        found = False
        for batch in data:
            found = True
            yield _pair(batch)
        if not found:
            raise ValueError(message("x", data, "at least one batch"))


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(message("x", batch, "data that yields (x, y) batches"))
    return batch[0], batch[1]


def _take(values: Any, rows: np.ndarray) -> Any:
    def take(leaf: Any) -> np.ndarray:
        if keras.ops.is_tensor(leaf):
            leaf = keras.ops.convert_to_numpy(leaf)
        return np.asarray(leaf[rows])

    return keras.tree.map_structure(take, values)


def _no_targets(x: Any, y: Any) -> None:
    if y is not None:
        fix = "Leave `y` out."
        raise ValueError(message("y", y, f"None beside a {type(x).__name__}, which has it", fix))


def _is_tf_dataset(x: Any) -> bool:
    # Without importing TensorFlow: whoever has such an object has imported it already.
    module = type(x).__module__
    return module.startswith("tensorflow.") and hasattr(x, "element_spec")
