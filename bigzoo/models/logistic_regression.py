"""Logistic regression: one Dense layer with softmax or sigmoid."""

from __future__ import annotations

from typing import Any

import keras

from bigzoo._errors import check_int
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._heads import classifier_units, predictions

# === Model ===


def logistic_regression(
    num_features: int = 1,
    num_classes: int = 2,
    *,
    classifier_activation: str | None = "softmax",
    dtype: Any = None,
    name: str = "logistic_regression",
) -> keras.Model:
    """Logistic regression, p = softmax(x W + b).

    The linear model for classes: what it cannot separate needs a larger model.

    Args:
        num_features: Features per sample, at least 1.
        num_classes: Number of classes, at least 2.
        classifier_activation: "softmax" gives `num_classes` probabilities that sum to 1.
            "sigmoid" gives one unit, the probability of class 1, for `num_classes=2`, and
            `num_classes` independent probabilities (multilabel) above. None gives logits.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default. It is
            taken for uniformity with larger models: the one layer here is in float32 anyway.
        name: Name of the model.

    Input shape: (batch, num_features), float32, any range; features of similar scale learn faster.
    Output shape: (batch, num_classes), or (batch, 1) for two classes with "sigmoid"; float32.

    Returns:
        An uncompiled `keras.Model` with the layers "features" and "predictions".

    Raises:
        TypeError, ValueError: if a number is not an integer in its range, or a name is unknown.

    Example:
        >>> bz.models.logistic_regression(num_features=4, num_classes=3).output_shape
        (None, 3)
        >>> bz.models.logistic_regression(4, classifier_activation="sigmoid").output_shape
        (None, 1)
    """
    num_features = check_int("num_features", num_features, minimum=1)
    units, activation = classifier_units(num_classes, classifier_activation)
    name = check_name(name)
    check_policy(dtype)

    features = keras.Input((num_features,), dtype="float32", name="features")
    return keras.Model(features, predictions(features, units, activation), name=name)
