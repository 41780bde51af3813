"""One seed for everything that is random."""

from __future__ import annotations

import keras

from bigzoo._errors import check_int


def set_seed(seed: int) -> None:
    """Seed Python, NumPy, Keras and the backend, so that two runs start with the same weights.

    Call it before the model is made: the weights are drawn then. Two processes that call it with
    the same number and then build the same layers in the same order get identical weights and
    dropout masks on the same versions and backend. Sums on several threads or on a GPU may still
    differ in the last digits from one machine to another.

    On TensorFlow, plain `model.fit` on arrays with `shuffle=True` repeats the same order in every
    epoch once a seed is set. `bigzoo.fit` and `bigzoo.data` draw a new order for each epoch, from
    their own seed and the number of the epoch.

    Args:
        seed: An integer from 0 to 2**32 - 1.

    Raises:
        TypeError, ValueError: if `seed` is not such an integer.

    Example:
        >>> bz.set_seed(7)
        >>> first = keras.layers.Dense(2)(np.ones((1, 3)))
        >>> bz.set_seed(7)
        >>> second = keras.layers.Dense(2)(np.ones((1, 3)))
        >>> bool(keras.ops.all(first == second))
        True
    """
    # NumPy's limit; the other generators take as much.
    keras.utils.set_random_seed(check_int("seed", seed, 0, 2**32 - 1))
