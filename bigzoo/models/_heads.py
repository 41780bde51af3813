"""The last layer that models share: one Dense layer named "predictions", always in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from bigzoo._errors import check_choice, check_int, message


@dataclass(frozen=True)
class Head:
    """What the last layer is to be. Call it with the features to get the outputs.

    Attributes:
        units: Number of outputs; 0 for no layer at all, so that the features come out.
        activation: "softmax", "sigmoid" or "linear".
        from_checkpoint: Whether the checkpoint's own head fits and is to be loaded; False where
            there is no checkpoint, or where it has another number of classes and this one is new.
    """

    units: int
    activation: str
    from_checkpoint: bool = False

    def __call__(self, x: Any) -> Any:
        """(..., features) -> (..., units), or `x` itself for no layer."""
        return predictions(x, self.units, self.activation) if self.units else x


def plan_head(
    num_classes: Any,
    num_outputs: Any,
    classifier_activation: Any,
    *,
    default: int,
    checkpoint_classes: int | None = None,
) -> Head:
    """The head that the arguments of a model ask for.

    Args:
        num_classes: None for the checkpoint's number, or `default`; 0 for no head; or at least 2.
        num_outputs: Units of a regression head; `num_classes` must be None then.
        classifier_activation: See `classifier_units`.
        default: Number of classes where neither the user nor a checkpoint gives one.
        checkpoint_classes: Units of the head in the checkpoint; None or 0 if it has none.
    """
    if num_outputs is not None:
        if num_classes is not None:
            fix = "num_outputs asks for a regression head, num_classes for a classifier."
            raise ValueError(message("num_classes", num_classes, "None with num_outputs", fix))
        return Head(check_int("num_outputs", num_outputs, minimum=1), "linear")
    if num_classes is None and checkpoint_classes == 1:
        return Head(1, "linear", from_checkpoint=True)  # one unit: a regression, not a class
    if num_classes is None:
        num_classes = checkpoint_classes or default
    elif _is_zero(num_classes):
        return Head(0, "linear")
    units, activation = classifier_units(num_classes, classifier_activation)
    return Head(units, activation, from_checkpoint=units == checkpoint_classes)


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


def _is_zero(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and int(value) == 0
