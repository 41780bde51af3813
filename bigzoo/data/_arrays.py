"""Arrays in memory as batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigzoo.data._batches import Batches
from bigzoo.data._checks import Augmenter


def arrays(
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    augment: Augmenter | None = None,
    class_names: Sequence[str] | None = None,
) -> Batches:
    """Batches of arrays, in a new order in each epoch; the arrays are not copied.

    Args:
        x: Array of shape (n, ...) of numbers, or a dict or tuple of such arrays.
        y: Targets with n rows: class numbers of shape (n,), or numbers of shape (n, k).
        sample_weight: Array of shape (n,), at least 0.
        batch_size: Samples per batch, at least 1.
        shuffle: Whether each epoch has an order of its own.
        seed: At least 0; the order is drawn from (seed, epoch).
        augment: None, or a function `augment(x, y, rng) -> (x, y)` of one batch.
        class_names: Names of the classes 0, 1, ...; the labels must fit them.

    Returns:
        `Batches` that `model.fit` and `bigzoo.fit` take.

    Raises:
        TypeError: if `x` or `y` hold text or no rows.
        ValueError: if lengths differ, or labels don't fit `class_names`.

    Example:
        >>> x, y = np.zeros((6, 3), "float32"), np.array([0, 1, 0, 1, 0, 1])
        >>> batches = bz.data.arrays(x, y, batch_size=4, class_names=["no", "yes"])
        >>> [x_batch.shape for x_batch, y_batch in batches]
        [(4, 3), (2, 3)]
    """
    return Batches(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        augment=augment,
        class_names=class_names,
    )
