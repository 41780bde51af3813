"""Features with mean 0 and standard deviation 1, by the statistics of the training part alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.data._batches import Batches
from bigzoo.data._rows import as_rows, blocks, leaves, num_rows, read_all, tree_map


@dataclass(frozen=True)
class Normalizer:
    """The statistics of a training part, and what they do to other data.

    Attributes:
        mean: float64 of shape (features,): one mean per entry of the last axis (per feature, or per
            channel of images). A dict or tuple of such arrays where the data are one.
        std: Standard deviations, in the same form; 1 for constant features.
        constant: Names of the constant features, such as "x[2]": they are moved to 0, not scaled.
    """

    mean: Any
    std: Any
    constant: tuple[str, ...] = ()

    def __call__(self, x: Any) -> Any:
        """(x - mean) / std as float32, for data of the same form as the training part's.

        Args:
            x: Array of shape (n, ..., features), or a dict or tuple of such arrays.

        Raises:
            ValueError: if the number of features differs.
        """
        rows = as_rows("x", x)
        _check_same_form(rows, self.mean)
        return tree_map(_scaled, rows, self.mean, self.std)

    def undo(self, x: Any) -> Any:
        """x * std + mean as float32: back to the original units."""
        rows = as_rows("x", x)
        _check_same_form(rows, self.mean)
        return tree_map(
            lambda source, mean, std: (read_all(source) * std + mean).astype(np.float32),
            rows,
            self.mean,
            self.std,
        )

    def layer(self, name: str = "normalization") -> keras.layers.Normalization:
        """The same as a Keras layer, to put first in a model so that it takes original units.

        Args:
            name: Name of the layer.

        Raises:
            TypeError: if the data are a dict or tuple: each input then needs its own layer.
        """
        if isinstance(self.mean, (dict, tuple)):
            raise TypeError(message("mean", type(self.mean), "one array, not several inputs"))
        return keras.layers.Normalization(
            axis=-1, mean=self.mean, variance=self.std**2, name=name, dtype="float32"
        )


class ScaledRows:
    """A source whose rows are normalised when they are read: files stay on the disk."""

    def __init__(self, source: Any, mean: np.ndarray, std: np.ndarray) -> None:
        self.source, self.mean, self.std = source, mean, std
        self.shape = tuple(source.shape)
        self.dtype = np.dtype(np.float32)
        self.block_rows = getattr(source, "block_rows", None)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> np.ndarray:
        return ((self.source[rows] - self.mean) / self.std).astype(np.float32)


def normalize(train: Any, val: Any = None) -> tuple[Any, Any, Normalizer]:
    """Scale features to mean 0 and standard deviation 1, by the training part's statistics.

    The validation part is scaled by the same numbers and never looked at: statistics of all the
    data would let the validation part leak into training.

    Models of images in this package take raw pixels and scale inside; they need no `normalize`.

    Args:
        train: `Batches`, or an array of shape (n, ..., features), or a dict or tuple of arrays.
            Statistics are per entry of the last axis; of an array of shape (n,), over all of it.
        val: The validation part, of the same kind; None if there is none.

    Returns:
        `(train, val, normalizer)`: the scaled data (float32; `Batches` for `Batches`, whose targets
        stay as they are; val None if none was given), and the `Normalizer` for data to come:
        `normalizer(x_new)`, or `normalizer.layer()` inside a model.

    Warns:
        UserWarning: if a feature is constant in the training part; it is moved to 0, not scaled.

    Raises:
        ValueError: if the training part holds NaN or infinity, or the features differ in number.
        TypeError: if the parts are of different kinds.

    Example:
        >>> x_train, x_val = np.array([[1.0], [3.0]]), np.array([[5.0]])
        >>> x_train, x_val, normalizer = bz.data.normalize(x_train, x_val)
        >>> x_train.tolist(), x_val.tolist()
        ([[-1.0], [1.0]], [[3.0]])
        >>> normalizer(np.array([[2.0]])).tolist()
        [[0.0]]
    """
    if val is not None and isinstance(train, Batches) != isinstance(val, Batches):
        expected = "of the same kind as `train` (both Batches or both arrays)"
        raise TypeError(f"`val` is {type(val).__name__} beside {type(train).__name__}; {expected}.")
    x_train = train.x if isinstance(train, Batches) else as_rows("x", train)
    num_rows(("x", x_train))
    normalizer = _fit(x_train)
    if isinstance(train, Batches):
        new_val = None if val is None else _scaled_batches(val, normalizer)
        return _scaled_batches(train, normalizer), new_val, normalizer
    return normalizer(x_train), None if val is None else normalizer(val), normalizer


def _fit(tree: Any) -> Normalizer:
    fitted = {name: _moments(name, source) for name, source in leaves("x", tree)}
    constant = []
    for name, (_, std) in fitted.items():
        still = np.flatnonzero(std == 0)
        constant += [f"{name}[{column}]" if std.size > 1 else name for column in still]
    if constant:
        shown = ", ".join(constant[:8]) + (", …" if len(constant) > 8 else "")
        warnings.warn(
            f"Constant in the training part: {shown}. A constant feature tells nothing; it is "
            "moved to 0 and not scaled.",
            stacklevel=3,
        )
    # tree_map and leaves visit the sources in the same order.
    means = iter([mean for mean, _ in fitted.values()])
    stds = iter([np.where(std == 0, 1.0, std) for _, std in fitted.values()])
    mean = tree_map(lambda _: next(means), tree)
    return Normalizer(mean, tree_map(lambda _: next(stds), tree), tuple(constant))


def _moments(name: str, source: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in one pass, block by block (Chan, Golub and LeVeque, 1983)."""
    width = int(source.shape[-1]) if len(source.shape) > 1 else 1
    count, mean, squares = 0, np.zeros(width), np.zeros(width)
    for block in blocks(source):
        values = np.asarray(block, dtype=np.float64).reshape(-1, width)
        if not bool(np.isfinite(values).all()):
            column = int(np.argmax(~np.isfinite(values).all(axis=0)))
            raise ValueError(
                f"`{name}` holds NaN or infinity (feature {column}); expected finite numbers. Drop "
                "or fill those values first."
            )
        size, block_mean = len(values), values.mean(axis=0)
        shift = block_mean - mean
        squares += ((values - block_mean) ** 2).sum(axis=0) + shift**2 * count * size / (
            count + size
        )
        mean += shift * size / (count + size)
        count += size
    std = np.sqrt(squares / count)
    # Rounding leaves a tiny deviation in a constant column of large numbers.
    return mean, np.where(std <= 1e-12 * np.abs(mean), 0.0, std)


def _scaled(source: Any, mean: np.ndarray, std: np.ndarray) -> Any:
    if not isinstance(source, np.ndarray):
        return ScaledRows(source, mean, std)
    result = np.empty(source.shape, dtype=np.float32)
    start = 0
    for block in blocks(source):  # in blocks, since the arithmetic is in float64
        result[start : start + len(block)] = (block - mean) / std
        start += len(block)
    return result


def _scaled_batches(batches: Batches, normalizer: Normalizer) -> Batches:
    copy = batches.replace()
    copy.x = normalizer(batches.x)
    return copy


def _check_same_form(x: Any, mean: Any) -> None:
    got, known = dict(leaves("x", x)), dict(leaves("x", mean))
    if got.keys() != known.keys():
        raise ValueError(
            f"The data have the parts {sorted(got)}; expected {sorted(known)}, as in the training "
            "part."
        )
    for name, source in got.items():
        width = int(source.shape[-1]) if len(source.shape) > 1 else 1
        if width != len(known[name]):
            raise ValueError(
                f"`{name}` has {width} features (shape {tuple(source.shape)}); expected "
                f"{len(known[name])}, as in the training part."
            )
