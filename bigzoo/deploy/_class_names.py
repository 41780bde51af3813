"""Class names, checked against what a model puts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bigzoo._errors import message


def check_model(model: Any) -> keras.Model:
    """`model`, or an error if it isn't a Keras model with weights."""
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    if not model.built:
        fix = "Call it on a batch first: `model(x[:1])`."
        raise ValueError(f"`model` {model.name!r} has no weights yet. {fix}")
    return model


def output_units(model: keras.Model) -> int | None:
    """Size of the last axis of the only output; None where there are several or it's unknown."""
    try:
        shape = model.output_shape
    except (AttributeError, ValueError):  # a subclassed model doesn't know its shapes
        return None
    if not isinstance(shape, tuple) or not shape or not all(_is_size(size) for size in shape):
        return None
    return shape[-1]


def _is_size(size: Any) -> bool:
    return size is None or isinstance(size, int)


def resolve_class_names(model: keras.Model, class_names: Any) -> tuple[str, ...] | None:
    """`class_names`, or those that the model carries, checked; None where there are none."""
    given = class_names is not None
    if not given:
        class_names = getattr(model, "class_names", None)
        if class_names is None:
            return None
    where = "class_names" if given else "model.class_names"
    return check_names(where, class_names, output_units(model))


def check_names(where: str, class_names: Any, units: int | None) -> tuple[str, ...]:
    """`class_names`, checked against a number of output units."""
    if isinstance(class_names, (str, bytes)) or not isinstance(class_names, Sequence):
        raise TypeError(message(where, class_names, "a list of names, one per class"))
    for name in class_names:
        if not isinstance(name, str):
            raise TypeError(message(where, class_names, "a list of str"))
        if not name.strip():
            raise ValueError(message(where, class_names, "names that aren't empty"))
    names = tuple(class_names)
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{where}` has {double!r} twice; expected a name per class.")
    if units is not None and len(names) != max(units, 2):
        meaning = "one unit tells two classes apart" if units == 1 else f"{units} outputs"
        fix = "List them in the order of the labels 0, 1, ..."
        expected = f"{max(units, 2)} names ({meaning})"
        raise ValueError(f"`{where}` has {len(names)} names; expected {expected}. {fix}")
    return names
