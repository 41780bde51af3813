r"""The exact least-squares solution of a linear model.

Minimises \(\lVert X W + b - Y \rVert^2\). The data are centred, so that the bias drops out, and
reduced to a triangular factor by QR in blocks of rows; a singular value decomposition of that small
factor gives the solution, of least norm where the columns are dependent. Nothing is squared on the
way (no normal equations), so the accuracy is that of a QR of the whole matrix.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.train._outputs import activation_of

# Rows in a block of the QR: a block of some tens of columns stays in the processor's cache.
_BLOCK_ROWS = 8192
# What may stand before the Dense layer: it moves values and never mixes or changes them.
_MOVING = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Identity,
)
# These are fixed affine maps of each feature; the model stays linear behind them.
_AFFINE = (keras.layers.Rescaling, keras.layers.Normalization)


@dataclass(frozen=True)
class LinearSolution:
    """What `bigzoo.solve` found.

    Attributes:
        coefficients: float64, shape (num_features, num_outputs).
        intercept: float64, shape (num_outputs,); zeros for a model without bias.
        rank: Number of independent columns of the (centred) features.
        mse: Mean squared residual on the data that was given.
        num_samples: Rows that were used.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    rank: int
    mse: float
    num_samples: int

    def __str__(self) -> str:
        features = self.coefficients.shape[0]
        return (
            f"least squares on {self.num_samples} samples: MSE {self.mse:.6g}, "
            f"rank {self.rank} of {features} features"
        )


def solve(model: keras.Model, x: Any, y: Any = None) -> LinearSolution:
    """Set the weights of a linear model to the exact least-squares solution.

    Works in float64; the model's weights get the solution rounded to their dtype. Where features
    depend on one another there are many best solutions: the one with the smallest weights is
    taken, and a warning says so.

    Args:
        model: One Dense layer without activation, with or without bias, such as
            `bigzoo.models.linear_regression`; Flatten, Reshape, Rescaling and Normalization layers
            may stand before it. It needs no `compile`.
        x: Features, shape (num_samples, num_features), any numeric dtype, finite; or a
            `bigzoo.data.Batches` that holds x and y.
        y: Targets, shape (num_samples, num_outputs) or, for one output, (num_samples,), finite.

    Returns:
        A `LinearSolution`.

    Raises:
        ValueError: if the model is not linear, or the data don't fit it or aren't finite.
        TypeError: if `model` is not a Keras model or the data are not numbers.

    Example:
        >>> model = bz.models.linear_regression(2)
        >>> x = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]])
        >>> found = bz.solve(model, x, x @ [3, 2] + 1)
        >>> found.coefficients.ravel().round(6).tolist(), found.intercept.round(6).tolist()
        ([3.0, 2.0], [1.0])
    """
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    if y is None and hasattr(x, "arrays"):
        x, y = x.arrays()
    features = _numbers("x", x)
    targets = _numbers("y", y)
    if features.ndim < 2 or len(features) == 0:
        raise ValueError(message("x", features, "the shape (num_samples, num_features)"))
    if not model.built:
        model.build((None, *features.shape[1:]))
    dense = _dense_of(model)
    features = _before(model, dense, features)
    targets = _fitting_targets(features, targets, dense)
    solution = least_squares(features, targets, with_bias=dense.use_bias)
    dense.kernel.assign(solution.coefficients)
    if dense.use_bias:
        dense.bias.assign(solution.intercept)
    columns = features.shape[1]
    if solution.rank < columns:
        text = (
            f"`x` has {columns} features of which {solution.rank} are independent (rank "
            f"{solution.rank}); of the many best solutions the one with the smallest weights was "
            "taken."
        )
        warnings.warn(text, stacklevel=2)
    return solution


def least_squares(x: np.ndarray, y: np.ndarray, *, with_bias: bool = True) -> LinearSolution:
    """Least squares of `y` (n, m) on `x` (n, k), both finite, in float64."""
    n, k = x.shape
    x_mean = x.mean(axis=0, dtype=np.float64) if with_bias else np.zeros(k)
    y_mean = y.mean(axis=0, dtype=np.float64) if with_bias else np.zeros(y.shape[1])
    factor = _reduce(x, y, x_mean, y_mean)
    left, right = factor[:, :k], factor[:, k:]
    cutoff = np.finfo(np.float64).eps * max(n, k)
    weights, _, rank, _ = np.linalg.lstsq(left, right, rcond=cutoff)
    # The factor's columns have the lengths and angles of the data's: so have the residuals.
    residual = right - left @ weights
    mse = float(np.sum(residual**2) / (n * y.shape[1]))
    intercept = y_mean - x_mean @ weights
    return LinearSolution(weights, intercept, int(rank), mse, n)


def _reduce(x: np.ndarray, y: np.ndarray, x_mean: np.ndarray, y_mean: np.ndarray) -> np.ndarray:
    """A matrix with at most k + m rows and the same least-squares problem as centred [x, y]."""
    n, k = x.shape
    columns = k + y.shape[1]
    rows = max(_BLOCK_ROWS, 4 * columns)
    factor = np.empty((0, columns))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        block = np.empty((len(factor) + stop - start, columns))
        block[: len(factor)] = factor
        new = block[len(factor) :]
        np.subtract(x[start:stop], x_mean, out=new[:, :k])
        np.subtract(y[start:stop], y_mean, out=new[:, k:])
        # With fewer rows than columns there is nothing to reduce.
        tall = len(block) > columns
        factor = np.asarray(np.linalg.qr(block, mode="r")) if tall else block
    return factor


def _numbers(name: str, value: Any) -> np.ndarray:
    expected = "an array of finite numbers"
    if value is None:
        raise TypeError(message(name, value, expected))
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message(name, value, expected)) from error
    if array.dtype.kind not in "fiub":
        try:
            array = array.astype(np.float64)  # bfloat16 and objects that are numbers
        except (TypeError, ValueError) as error:
            raise TypeError(message(name, value, expected)) from error
    if array.dtype.kind == "f":
        # The sum is finite if all are; only where it isn't (it may overflow) look at each.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(array.sum(dtype=np.float64)) or np.isfinite(array).all()
        if not finite:
            fix = "Remove or fill the rows with NaN or infinity."
            raise ValueError(message(name, array, expected, fix))
    return array


def _dense_of(model: keras.Model) -> keras.layers.Dense:
    """The only Dense layer of a linear model, or an error that says why it isn't linear."""
    fix = "Only one Dense layer without activation has an exact solution; train with bigzoo.fit."
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        got = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise ValueError(f"`model` has {got}; expected one of each. {fix}")
    found = None
    for layer in getattr(model, "operations", model.layers):
        if isinstance(layer, keras.layers.Dense):
            if found is not None:
                names = f"{found.name!r} and {layer.name!r}"
                raise ValueError(f"`model` has the Dense layers {names}; expected one. {fix}")
            found = layer
        elif isinstance(layer, _AFFINE) and found is not None:
            raise ValueError(f"`model` has {layer.name!r} after the Dense layer. {fix}")
        elif not isinstance(layer, _MOVING + _AFFINE) and activation_of(layer) is not None:
            kind = type(layer).__name__
            raise ValueError(f"`model` has the {kind} layer {layer.name!r}. {fix}")
    if found is None:
        raise ValueError(f"`model` {model.name!r} has no Dense layer. {fix}")
    activation = activation_of(found)
    if activation != "linear":
        text = f"The layer {found.name!r} of `model` has the activation {activation!r}"
        raise ValueError(f"{text}; expected none. {fix}")
    for name in ("kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint"):
        if getattr(found, name) is not None:
            text = f"The layer {found.name!r} of `model` has a {name}"
            raise ValueError(f"{text}, which plain least squares can't take into account. {fix}")
    return found


def _before(model: keras.Model, dense: keras.layers.Dense, x: np.ndarray) -> np.ndarray:
    """What the Dense layer sees, shape (num_samples, num_features)."""
    expected = tuple(model.inputs[0].shape)[1:]
    fits = len(expected) == x.ndim - 1 and all(
        size in (None, own) for size, own in zip(expected, x.shape[1:], strict=True)
    )
    if not fits:
        wanted = f"the shape {('num_samples', *expected)} of the model's input"
        raise ValueError(message("x", x, wanted))
    operations = getattr(model, "operations", model.layers)
    if any(isinstance(layer, _AFFINE) for layer in operations):
        inner = keras.Model(model.inputs[0], dense.input)
        x = np.asarray(keras.ops.convert_to_numpy(inner(x.astype(np.float32))))
    features = dense.kernel.shape[0]
    if x.ndim == 2:
        return x
    if x.ndim > 2 and int(np.prod(x.shape[1:])) == features:
        return x.reshape(len(x), features)
    raise ValueError(message("x", x, f"{features} features for each sample"))


def _fitting_targets(x: np.ndarray, y: np.ndarray, dense: keras.layers.Dense) -> np.ndarray:
    outputs = dense.units
    if y.ndim == 1 and outputs == 1:
        y = y[:, None]
    if y.shape != (len(x), outputs):
        raise ValueError(message("y", y, f"the shape ({len(x)}, {outputs})"))
    return y
