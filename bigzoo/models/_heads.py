"""The last layer that models share: one Dense layer named "predictions", always in float32."""

from __future__ import annotations

from typing import Any

from keras import layers

from bigzoo._errors import check_choice, check_int


def predictions(x: Any, num_outputs: int, activation: str) -> Any:
    """Dense layer in float32: a softmax or a loss in 16 bits loses digits that training needs."""
    return layers.Dense(num_outputs, activation=activation, dtype="float32", name="predictions")(x)


def classifier_units(num_classes: Any, classifier_activation: Any) -> tuple[int, str]:
    """(number of units, activation) of a classifier's head.

    | classifier_activation | units | what comes out |
    |---|---|---|
    | "softmax" | num_classes | probabilities that sum to 1 |
    | "sigmoid", num_classes = 2 | 1 | probability of class 1 |
    | "sigmoid", num_classes > 2 | num_classes | one probability per label (multilabel) |
    | None or "linear" | num_classes | logits: use a loss with `from_logits=True` |
    """
    fix = 'For two classes, keep num_classes=2; classifier_activation="sigmoid" gives one unit.'
    classes = check_int("num_classes", num_classes, minimum=2, fix=fix)
    choices = ("softmax", "sigmoid", "linear", None)
    activation = check_choice("classifier_activation", classifier_activation, choices) or "linear"
    units = 1 if activation == "sigmoid" and classes == 2 else classes
    return units, activation
