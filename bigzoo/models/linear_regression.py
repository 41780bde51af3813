"""Linear regression: one Dense layer without activation."""

from __future__ import annotations

from typing import Any

import keras

from bigzoo._errors import check_int
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._heads import predictions

# === Model ===


def linear_regression(
    num_features: int = 1,
    num_outputs: int = 1,
    *,
    dtype: Any = None,
    name: str = "linear_regression",
) -> keras.Model:
    """Linear regression, y = x W + b.

    The first model to try on numbers, and the yardstick for every larger one. Train it by
    gradient descent with `bz.fit`, or get the exact least-squares solution with `bz.solve`.

    Args:
        num_features: Features per sample, at least 1.
        num_outputs: Numbers to predict per sample, at least 1.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default. It is
            taken for uniformity with larger models: the one layer here is in float32 anyway.
        name: Name of the model.

    Input shape: (batch, num_features), float32, any range; features of similar scale learn faster.
    Output shape: (batch, num_outputs), float32. So y must have shape (batch, num_outputs) too:
        a y of shape (batch,) would broadcast in `y - model.predict(x)`.

    Returns:
        An uncompiled `keras.Model` with the layers "features" and "predictions".

    Raises:
        TypeError, ValueError: if an argument is not a positive integer, or `dtype` is unknown.

    Example:
        >>> model = bz.models.linear_regression(num_features=2)
        >>> model.output_shape, model.count_params()
        ((None, 1), 3)
    """
    num_features = check_int("num_features", num_features, minimum=1)
    num_outputs = check_int("num_outputs", num_outputs, minimum=1)
    name = check_name(name)
    check_policy(dtype)

    features = keras.Input((num_features,), dtype="float32", name="features")
    return keras.Model(features, predictions(features, num_outputs, "linear"), name=name)
