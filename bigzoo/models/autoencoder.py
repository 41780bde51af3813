"""Autoencoder: squeezes an image through a narrow layer and draws it again.

References:
    Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks",
        https://doi.org/10.1126/science.1127647 (dense layers around a narrow one; there each layer
        is trained by itself first, which ReLU and Adam have made unnecessary).
    Masci et al. 2011, https://doi.org/10.1007/978-3-642-21735-7_7 (with convolutions).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_choice, check_int, message
from bigzoo.models._arguments import check_image_shape, check_name, check_policy

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Dense:
    """Layers of `widths` units before the code, and the same in reverse after it."""

    widths: tuple[int, ...]
    code_dim: int
    minimum = 1


@dataclasses.dataclass(frozen=True)
class Conv:
    """Convolutions of `widths` channels that halve the image; the mirror image doubles it."""

    widths: tuple[int, ...]
    code_dim: int

    @property
    def minimum(self) -> int:
        """Smallest side in pixels."""
        return 2 ** len(self.widths)


# Our own sizes, for small images such as 28 × 28 digits.
VARIANTS: dict[str, Dense | Conv] = {
    "dense": Dense(widths=(512, 128), code_dim=32),
    "conv": Conv(widths=(32, 64), code_dim=32),
}

# === Layers ===


def _dense(x: Any, units: int, name: str, policy: Any) -> Any:
    return layers.Dense(
        units, activation="relu", kernel_initializer="he_normal", dtype=policy, name=name
    )(x)


def _code(x: Any, code_dim: int, policy: Any) -> Any:
    """(batch, any) -> (batch, code_dim). Without an activation: a code may be any number."""
    return layers.Dense(code_dim, dtype=policy, name="code")(x)


def _flatten(x: Any, policy: Any) -> Any:
    return layers.Flatten(data_format="channels_last", dtype=policy, name="flatten")(x)


def _to_pixels(x: Any, offset: float, policy: Any) -> Any:
    """Features as large as the last layer needs them to reach 0 and 255 from 127.5.

    Its weights could be large instead; but an optimizer moves weights by the same small steps
    wherever they are, and would take ages to move large ones. The same holds for the bias: with
    an offset, the kernel can do its work.
    """
    return layers.Rescaling(64.0, offset, dtype=policy, name="to_pixels")(x)


def _dense_body(x: Any, sizes: Dense, policy: Any) -> Any:
    """(batch, h, w, c) -> (batch, h, w, c), by way of (batch, code_dim)."""
    shape = x.shape[1:]
    x = _flatten(x, policy)
    for number, units in enumerate(sizes.widths, start=1):
        x = _dense(x, units, f"encoder{number}", policy)
    x = _code(x, sizes.code_dim, policy)
    for number, units in enumerate(reversed(sizes.widths), start=1):
        x = _dense(x, units, f"decoder{number}", policy)
    # A dense layer whose outputs come out as an image.
    pixels = layers.EinsumDense(
        "bd,dhwc->bhwc",
        output_shape=shape,
        bias_axes="hwc",
        kernel_initializer=keras.initializers.RandomNormal(stddev=x.shape[-1] ** -0.5),
        bias_initializer=_grey(),
        dtype="float32",
        name="predictions",
    )
    return pixels(_to_pixels(x, 0.0, policy))


def _conv_body(x: Any, sizes: Conv, policy: Any) -> Any:
    """(batch, h, w, c) -> (batch, h, w, c), by way of (batch, code_dim)."""
    channels = x.shape[-1]
    options = {"padding": "same", "kernel_initializer": "he_normal", "activation": "relu"}
    options |= {"data_format": "channels_last", "dtype": policy}
    sides = []  # height and width before each halving: odd ones are cut on the way back
    for number, filters in enumerate(sizes.widths, start=1):
        sides.append(x.shape[1:3])
        x = layers.Conv2D(filters, 3, strides=2, name=f"encoder{number}", **options)(x)
    small = x.shape[1:]
    x = _code(_flatten(x, policy), sizes.code_dim, policy)
    x = _dense(x, math.prod(small), "decoder0", policy)
    x = layers.Reshape(small, dtype=policy, name="unflatten")(x)
    for number, filters in enumerate(reversed(sizes.widths), start=1):
        x = layers.Conv2DTranspose(filters, 3, strides=2, name=f"decoder{number}", **options)(x)
        x = _cut(x, sides[-number], f"decoder{number}_cut", policy)
    pixels = layers.Conv2D(
        channels,
        3,
        padding="same",
        # Small, since each weight meets the offset: the first images are grey, not of any shade.
        kernel_initializer=keras.initializers.VarianceScaling(0.1, "fan_avg"),
        bias_initializer=_grey(),
        data_format="channels_last",
        dtype="float32",
        name="predictions",
    )
    # One bias for all pixels: the grey of most of them is the first thing to be learned.
    return pixels(_to_pixels(x, 64.0, policy))


def _cut(x: Any, side: tuple[int, int], name: str, policy: Any) -> Any:
    """A row or a column less, where the side was odd: 7 is halved to 4, and 4 doubled to 8."""
    rows, columns = x.shape[1] - side[0], x.shape[2] - side[1]
    if not rows and not columns:
        return x
    cropping = ((0, rows), (0, columns))
    return layers.Cropping2D(cropping, data_format="channels_last", dtype=policy, name=name)(x)


def _grey() -> keras.Initializer:
    return keras.initializers.Constant(127.5)


# === Model ===


def autoencoder(
    variant: str = "dense",
    *,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    code_dim: int | None = None,
    widths: Sequence[int] | None = None,
    dtype: Any = None,
    name: str = "autoencoder",
) -> keras.Model:
    """Autoencoder of images: learns without labels to draw its input again from a short code.

    Choose it to compress images, to find odd ones (those that it draws badly), or to see what a
    code of few numbers can hold. Train it with the images as both input and target:
    `bz.fit(model, x, x)`; `bz.compile(model)` gives it the mean squared error in pixels. The code
    is the output of the layer "code": `keras.Model(model.input, model.get_layer("code").output)`.
    Reference: Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647.
    Differs from the reference: ReLU, all layers trained at once, linear pixels.

    Args:
        variant: "dense" (every unit sees every pixel; for small images) or "conv" (convolutions
            by steps of 2; fewer weights on large images).
        input_shape: (height, width, channels), without the batch; for "conv" each side at least
            2 to the power of the number of `widths`.
        code_dim: Numbers in the code, at least 1; 32 by default.
        widths: Units of the layers from the image to the code for "dense", (512, 128) by default;
            channels of the convolutions, each of which halves the image, for "conv", (32, 64) by
            default. The way back mirrors them.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does.
    Output shape: the same, float32, in the same units: about 0-255, not clipped.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", "encoder1", …, "code",
        …, "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range.

    Example:
        >>> model = bz.models.autoencoder("conv", input_shape=(28, 28, 1), code_dim=8)
        >>> model.output_shape
        (None, 28, 28, 1)
        >>> encoder = keras.Model(model.input, model.get_layer("code").output)
        >>> encoder.predict(np.zeros((5, 28, 28, 1), "uint8"), verbose=0).shape
        (5, 8)
    """
    sizes = VARIANTS[check_choice("variant", variant, VARIANTS)]
    if code_dim is not None:
        sizes = dataclasses.replace(sizes, code_dim=check_int("code_dim", code_dim, minimum=1))
    if widths is not None:
        sizes = dataclasses.replace(sizes, widths=_check_widths(widths, variant))
    shape = check_image_shape(input_shape, sizes.minimum, any_size=True)
    if None in shape:
        fix = "The layers around the code need a fixed size."
        raise ValueError(message("input_shape", shape, "a height and a width in pixels", fix))
    policy = check_policy(dtype)
    name = check_name(name)

    image = keras.Input(shape, dtype="float32", name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocess")(image)
    body = _dense_body if isinstance(sizes, Dense) else _conv_body
    return keras.Model(image, body(x, sizes, policy), name=name)  # type: ignore[arg-type]


def _check_widths(widths: Any, variant: str) -> tuple[int, ...]:
    expected = "a tuple of integers, one per layer before the code"
    if isinstance(widths, (str, bytes)) or not isinstance(widths, Sequence):
        raise TypeError(message("widths", widths, expected, "For one layer write (64,)."))
    if variant == "conv" and not widths:
        raise ValueError(message("widths", tuple(widths), f"{expected}; at least one for 'conv'"))
    return tuple(check_int(f"widths[{i}]", units, minimum=1) for i, units in enumerate(widths))
