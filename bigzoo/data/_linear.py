"""Samples of a linear law with noise: the smallest regression task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigzoo._errors import check_int, check_number, message


def linear(
    n: int = 100,
    weights: Sequence[float] = (3.0, 2.0),
    bias: float = 0.0,
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of y = x·weights + bias + noise, with x and the noise normally distributed.

    No model can have a mean squared error below noise² on new samples of it.

    Args:
        n: Number of samples, at least 1.
        weights: One finite number per feature.
        bias: The value at x = 0.
        noise: Standard deviation of the noise, at least 0.
        seed: At least 0.

    Returns:
        x of shape (n, len(weights)) and y of shape (n, 1), both float32. The targets have two axes
        as the outputs of `linear_regression` have: (n,) against (n, 1) broadcasts to (n, n).

    Raises:
        ValueError: if a number is out of its range or `weights` is empty.
        TypeError: if `weights` isn't a sequence of numbers.

    Example:
        >>> x, y = bz.data.linear(n=5, noise=0.0)
        >>> x.shape, y.shape
        ((5, 2), (5, 1))
        >>> bool(np.allclose(y[:, 0], 3 * x[:, 0] + 2 * x[:, 1], atol=1e-5))
        True
    """
    n = check_int("n", n, 1)
    bias = check_number("bias", bias)
    noise = check_number("noise", noise, 0)
    rng = np.random.default_rng(check_int("seed", seed, 0))
    factors = _check_weights(weights)
    x = rng.standard_normal((n, len(factors))).astype(np.float32)
    y = x.astype(np.float64) @ factors + bias + noise * rng.standard_normal(n)
    return x, y[:, None].astype(np.float32)


def _check_weights(weights: Sequence[float]) -> np.ndarray:
    expected = "a sequence of numbers, one per feature, such as (3.0, 2.0)"
    if isinstance(weights, (str, bytes)) or not hasattr(weights, "__len__"):
        raise TypeError(message("weights", weights, expected))
    if len(weights) == 0:
        raise ValueError(message("weights", weights, expected))
    return np.array([check_number(f"weights[{i}]", weight) for i, weight in enumerate(weights)])
