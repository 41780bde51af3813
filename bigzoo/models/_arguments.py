"""Checks of the arguments that several models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bigzoo._errors import check_int, message, suggest

ACTIVATIONS = (
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "swish",
    "tanh",
)

_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64")


def check_name(name: Any) -> str:
    """`name` as a model name that every backend and file format accepts."""
    expected = "a name without '/' and '.'"
    if not isinstance(name, str):
        raise TypeError(message("name", name, expected))
    if not name or "/" in name or "." in name:
        fix = "Keras uses both signs in the paths of weights."
        raise ValueError(message("name", name, expected, fix))
    return name


def check_policy(dtype: Any) -> Any:
    """`dtype` as a `keras.DTypePolicy`; the global one for None, which is only read."""
    if dtype is None:
        return keras.dtype_policies.get(keras.config.dtype_policy())
    fix = f"Choose among {', '.join(map(repr, _POLICIES))}."
    expected = "the name of a dtype policy, or a keras.DTypePolicy"
    if not isinstance(dtype, (str, keras.DTypePolicy)):
        raise TypeError(message("dtype", dtype, expected, fix))
    if isinstance(dtype, str) and dtype not in _POLICIES:
        raise ValueError(message("dtype", dtype, expected, suggest(dtype, _POLICIES)))
    return keras.dtype_policies.get(dtype)


def check_activation(name: str, value: Any) -> str:
    """`value` as the name of an activation that Keras can save and load."""
    expected = "the name of an activation"
    if not isinstance(value, str):
        fix = 'Give its name, such as "relu": a function could not be loaded from a saved file.'
        raise TypeError(message(name, value, expected, fix))
    if value not in ACTIVATIONS:
        raise ValueError(message(name, value, expected, suggest(value, ACTIVATIONS)))
    return value


def check_image_shape(input_shape: Any, minimum: int, *, any_size: bool) -> tuple[Any, Any, int]:
    """`input_shape` as (height, width, channels).

    Args:
        input_shape: What the user gave.
        minimum: Smallest side in pixels that survives the network's downsampling.
        any_size: True if the network takes `None` for height and width.
    """
    expected = "(height, width, channels), such as (224, 224, 3)"
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, (str, bytes)):
        raise TypeError(message("input_shape", input_shape, expected))
    shape = tuple(input_shape)
    if len(shape) != 3:
        raise ValueError(message("input_shape", shape, expected, _fix_for_length(shape)))
    if _looks_channels_first(shape):
        fix = (
            f"This looks like channels first. Use ({shape[1]}, {shape[2]}, {shape[0]}), and "
            "np.moveaxis(images, 1, -1) on a batch of images."
        )
        raise ValueError(message("input_shape", shape, expected, fix))
    height = _side("input_shape[0]", shape[0], minimum, any_size)
    width = _side("input_shape[1]", shape[1], minimum, any_size)
    channels = check_int("input_shape[2]", shape[2], minimum=1, fix="It is the number of channels.")
    return height, width, channels


def _side(name: str, value: Any, minimum: int, any_size: bool) -> int | None:
    if value is not None:
        fix = "It is a side of the image in pixels, which the network halves several times."
        return check_int(name, value, minimum=minimum, fix=fix)
    if any_size:
        return None
    fix = 'The dense layer needs a fixed size; variant="modern" takes images of any size.'
    raise ValueError(message(name, value, f"an integer at least {minimum}", fix))


def _fix_for_length(shape: tuple[Any, ...]) -> str:
    if len(shape) == 4:
        return f"Leave out the batch size: {tuple(shape[1:])}."
    if len(shape) == 2:
        return f"Grey images have one channel: ({shape[0]}, {shape[1]}, 1)."
    return ""


def _looks_channels_first(shape: tuple[Any, ...]) -> bool:
    few, *sides = shape
    numbers = all(isinstance(side, int) for side in shape)
    return numbers and 1 <= few <= 4 and min(sides) > 4
