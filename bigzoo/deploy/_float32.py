"""A model of 16-bit layers, computed in float32 with the same weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_NARROW = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def is_narrow(model: keras.Model) -> bool:
    """Whether some layer or operation in the model computes in 16 bits."""
    try:
        return _mentions(model.get_config())
    except (NotImplementedError, TypeError, ValueError):  # a layer that doesn't describe itself
        return any(_policy(layer) in _NARROW for layer in model.layers)


def in_float32(model: keras.Model) -> keras.Model:
    """`model` itself, or where it computes in 16 bits a copy that does so in float32.

    Files hold float32: runtimes differ in how they round to 16 bits, and some can't compute so.
    """
    if not is_narrow(model):
        return model
    try:
        made = type(model).from_config(_widened(model.get_config()))
    except (NotImplementedError, TypeError, ValueError) as error:
        fix = "Build it with dtype='float32', and give it the weights by `set_weights`."
        raise ValueError(
            f"`model` {model.name!r} computes in 16 bits and can't be rebuilt in float32. {fix}"
        ) from error
    made.set_weights([_wide(weight) for weight in model.weights])
    for name in ("class_names", "image_size"):
        if getattr(model, name, None) is not None:
            setattr(made, name, getattr(model, name))
    return made


def _policy(layer: Any) -> str:
    return str(getattr(getattr(layer, "dtype_policy", None), "name", ""))


def _mentions(config: Any) -> bool:
    if isinstance(config, dict):
        return any(_mentions(part) for part in config.values())
    if isinstance(config, (list, tuple)):
        return any(_mentions(part) for part in config)
    return isinstance(config, str) and config in _NARROW


def _widened(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _widened(part) for key, part in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_widened(part) for part in config)
    return "float32" if isinstance(config, str) and config in _NARROW else config


def _wide(weight: Any) -> np.ndarray:
    # A copy: under JAX an array that a variable gives dies with the variable's next value.
    values = np.array(keras.ops.convert_to_numpy(weight))
    return values.astype("float32") if weight.dtype in _NARROW else values
