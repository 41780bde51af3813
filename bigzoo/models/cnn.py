"""Convolutional networks for small sets of images.

References:
    "plain": the cats-and-dogs network of the tutorials, as in deeplizard, "Build and Train a CNN
        with TensorFlow's Keras API", https://deeplizard.com/learn/video/daovGOlMbT4.
    "modern": our own, of known parts: He et al. 2016, https://arxiv.org/abs/1512.03385 (residual
        blocks); the convolution - pooling - residual block order of the "ResNet-9" of D. Page,
        "How to train your ResNet", 2018, https://github.com/davidcpage/cifar10-fast;
        Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1 (blocks that start as the
        identity: the last normalisation of each begins with gamma = 0).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_choice, check_number
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._heads import classifier_units, predictions

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Plain:
    """Convolution - ReLU - pooling, once per entry of `widths`, then one dense layer."""

    widths: tuple[int, ...] = (32, 64)
    kernel_size: int = 3
    padding: str = "same"
    hidden_dims: tuple[int, ...] = ()
    dropout: float = 0.0
    any_size = False

    @property
    def minimum(self) -> int:
        """Smallest side in pixels: each pooling halves it."""
        return 2 ** len(self.widths)


@dataclasses.dataclass(frozen=True)
class Modern:
    """A strided stem, then stages: convolution - pooling - residual blocks; one last convolution.

    Each convolution is followed by batch normalisation and ReLU. Channels are widened before the
    pooling, and the residual blocks run after it, where they cost a quarter.
    """

    stem_width: int = 32
    widths: tuple[int, ...] = (48, 96, 192)
    depths: tuple[int, ...] = (1, 1, 1)
    last_width: int = 192
    dropout: float = 0.2
    # 25 steps an epoch (800 photos by 32) are few: Keras' 0.99 would lag epochs behind.
    norm_momentum: float = 0.9
    any_size = True

    @property
    def minimum(self) -> int:
        """Smallest side in pixels: the stem and each stage halve it."""
        return 2 ** (1 + len(self.widths))


VARIANTS: dict[str, Plain | Modern] = {"plain": Plain(), "modern": Modern()}

# === Layers ===


def _conv_norm(
    x: Any, width: int, sizes: Modern, name: str, policy: Any, stride: int = 1, gamma: str = "ones"
) -> Any:
    """(batch, h, w, c) -> (batch, h / stride, w / stride, width)."""
    x = layers.Conv2D(
        width,
        3,
        strides=stride,
        padding="same",
        use_bias=False,  # the normalisation that follows has its own
        kernel_initializer="he_normal",
        data_format="channels_last",
        dtype=policy,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(
        momentum=sizes.norm_momentum,
        epsilon=1e-5,
        gamma_initializer=gamma,
        dtype=policy,
        name=f"{name}_norm",
    )(x)


def _conv_norm_relu(
    x: Any, width: int, sizes: Modern, name: str, policy: Any, stride: int = 1
) -> Any:
    """(batch, h, w, c) -> (batch, h / stride, w / stride, width)."""
    x = _conv_norm(x, width, sizes, name, policy, stride)
    return layers.ReLU(dtype=policy, name=f"{name}_relu")(x)


def _residual_block(x: Any, width: int, sizes: Modern, name: str, policy: Any) -> Any:
    """(batch, h, w, width) -> the same shape; the identity before training, since gamma is 0."""
    y = _conv_norm_relu(x, width, sizes, f"{name}_1", policy)
    # No ReLU after the second: at gamma = 0 it would pass no gradient, and the block would be dead.
    y = _conv_norm(y, width, sizes, f"{name}_2", policy, gamma="zeros")
    return layers.Add(dtype=policy, name=f"{name}_add")([x, y])


def _plain_body(x: Any, sizes: Plain, policy: Any) -> Any:
    """(batch, h, w, c) -> (batch, h / 4 * w / 4 * 64) at the default sizes."""
    for index, width in enumerate(sizes.widths, start=1):
        x = layers.Conv2D(
            width,
            sizes.kernel_size,
            padding=sizes.padding,
            activation="relu",
            data_format="channels_last",
            dtype=policy,
            name=f"conv{index}",
        )(x)
        x = layers.MaxPooling2D(2, data_format="channels_last", dtype=policy, name=f"pool{index}")(
            x
        )
    x = layers.Flatten(data_format="channels_last", dtype=policy, name="flatten")(x)
    for index, units in enumerate(sizes.hidden_dims, start=1):
        x = layers.Dense(units, activation="relu", dtype=policy, name=f"hidden{index}")(x)
    return x


def _modern_body(x: Any, sizes: Modern, policy: Any) -> Any:
    """(batch, h, w, c) -> (batch, last_width); h and w are halved by the stem and each stage."""
    x = _conv_norm_relu(x, sizes.stem_width, sizes, "stem", policy, stride=2)
    for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True), start=1):
        x = _conv_norm_relu(x, width, sizes, f"stage{stage}_in", policy)
        x = layers.MaxPooling2D(
            2, data_format="channels_last", dtype=policy, name=f"stage{stage}_pool"
        )(x)
        for block in range(1, depth + 1):
            x = _residual_block(x, width, sizes, f"stage{stage}_block{block}", policy)
    x = _conv_norm_relu(x, sizes.last_width, sizes, "last", policy)
    return layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=policy, name="global_pool"
    )(x)


# === Model ===


def cnn(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int = 2,
    variant: str = "modern",
    *,
    classifier_activation: str | None = "softmax",
    dropout: float | None = None,
    dtype: Any = None,
    name: str = "cnn",
) -> keras.Model:
    """Convolutional image classifier to train from scratch, on a thousand photos or so.

    "plain" is the network of the tutorials, weight for weight: Conv 32 3×3 - pool - Conv 64 3×3 -
    pool - flatten - dense. "modern" is a small residual network with batch normalisation, a
    strided stem and global pooling: it learns more from few photos, takes images of any size, and
    its number of parameters doesn't depend on that size.

    Differs from the tutorials: "plain" takes raw pixels and divides by 255 inside; theirs is fed
    with pixels that are prepared outside. That adds no weights.

    Args:
        input_shape: (height, width, channels), without the batch. At least 4 pixels a side for
            "plain" and 16 for "modern"; any number of channels. "modern" also takes None for
            height and width: one model for images of all sizes.
        num_classes: Number of classes, at least 2.
        variant: "modern" or "plain".
        classifier_activation: "softmax" gives `num_classes` probabilities that sum to 1.
            "sigmoid" gives one unit, the probability of class 1, for `num_classes=2`, and
            `num_classes` independent probabilities (multilabel) above. None gives logits.
        dropout: Part of the last features set to 0 in training, in [0, 1); None takes the
            variant's own, 0.2 for "modern" and 0 for "plain".
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does.
    Output shape: (batch, num_classes), or (batch, 1) for two classes with "sigmoid"; float32
        whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", …, "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or `input_shape` is not
            channels-last.

    Example:
        >>> model = bz.models.cnn(input_shape=(64, 64, 3), num_classes=2)
        >>> photos = np.zeros((5, 64, 64, 3), "uint8")
        >>> model.predict(photos, verbose=0).shape
        (5, 2)
        >>> bz.models.cnn((32, 32, 1), classifier_activation="sigmoid").output_shape
        (None, 1)
    """
    sizes = VARIANTS[check_choice("variant", variant, VARIANTS)]
    shape = check_image_shape(input_shape, sizes.minimum, any_size=sizes.any_size)
    units, activation = classifier_units(num_classes, classifier_activation)
    rate = sizes.dropout if dropout is None else dropout
    rate = check_number("dropout", rate, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)

    image = keras.Input(shape, dtype="float32", name="image")
    # In float32 under any policy: bfloat16 can't tell 200.3 from 200.9.
    if isinstance(sizes, Plain):
        x = layers.Rescaling(1 / 255, dtype="float32", name="preprocess")(image)
        x = _plain_body(x, sizes, policy)
    else:
        x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocess")(image)
        x = _modern_body(x, sizes, policy)
    if rate:
        x = layers.Dropout(rate, dtype=policy, name="dropout")(x)
    return keras.Model(image, predictions(x, units, activation), name=name)
