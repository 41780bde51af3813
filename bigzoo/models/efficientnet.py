"""EfficientNet: image classifiers that are small for their accuracy.

References:
    Tan and Le 2019, https://arxiv.org/abs/1905.11946, Table 1 (the stages of B0) and section 3.3
        (compound scaling: one number widens and deepens the network).
    EfficientNet-Lite: R. Liu 2020, https://github.com/tensorflow/tpu/tree/master/models/official/
        efficientnet/lite (no squeeze-and-excitation, ReLU6 in place of swish, stem and head of one
        size for all: for phones, and for numbers of 8 bits).
    The names of blocks and tensors in checkpoints: timm, models/efficientnet.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_choice, check_number
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._heads import plan_head
from bigzoo.models._pixels import HALF, IMAGENET, pixel_statistics, scale_pixels
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._efficientnet import (
    Shape,
    efficientnet_table,
    find_padding,
    find_variant,
    with_timm_names,
)
from bigzoo.weights._timm import NOT_WEIGHTS

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the paper's Table 1: `depth` blocks of `width` channels; the first has the stride.

    `expansion`: how many times wider than its input the inside of a block is.
    """

    depth: int
    kernel_size: int
    stride: int
    expansion: int
    width: int


B0 = (
    Stage(depth=1, kernel_size=3, stride=1, expansion=1, width=16),
    Stage(depth=2, kernel_size=3, stride=2, expansion=6, width=24),
    Stage(depth=2, kernel_size=5, stride=2, expansion=6, width=40),
    Stage(depth=3, kernel_size=3, stride=2, expansion=6, width=80),
    Stage(depth=3, kernel_size=5, stride=1, expansion=6, width=112),
    Stage(depth=4, kernel_size=5, stride=2, expansion=6, width=192),
    Stage(depth=1, kernel_size=3, stride=1, expansion=6, width=320),
)
# Every block kind of B0 once, in a network that builds and trains in a second.
TINY = (
    Stage(depth=1, kernel_size=3, stride=1, expansion=1, width=8),
    Stage(depth=2, kernel_size=5, stride=2, expansion=2, width=16),
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One variant: how much wider and deeper than B0; `image_size` is what it was made for."""

    width: float
    depth: float
    image_size: int
    dropout: float
    lite: bool = False
    stages: tuple[Stage, ...] = B0
    stem_width: int = 32
    last_width: int = 1280

    @property
    def scaled_stem_width(self) -> int:
        return self.stem_width if self.lite else round_width(self.stem_width * self.width)

    @property
    def scaled_last_width(self) -> int:
        return self.last_width if self.lite else round_width(self.last_width * self.width)

    @property
    def scaled_stages(self) -> tuple[Stage, ...]:
        """The stages at this size; "lite" keeps the depth of the first and the last stage."""
        scaled = []
        for number, stage in enumerate(self.stages):
            fixed = self.lite and number in (0, len(self.stages) - 1)
            depth = stage.depth if fixed else math.ceil(stage.depth * self.depth)
            width = round_width(stage.width * self.width)
            scaled.append(dataclasses.replace(stage, depth=depth, width=width))
        return tuple(scaled)

    @property
    def shape(self) -> Shape:
        """What a checkpoint of this variant is known by."""
        widths = tuple(stage.width for stage in self.scaled_stages for _ in range(stage.depth))
        return Shape(self.scaled_stem_width, widths, self.scaled_last_width, self.lite)


VARIANTS: dict[str, Sizes] = {
    "lite0": Sizes(1.0, 1.0, 224, 0.2, lite=True),
    "lite1": Sizes(1.0, 1.1, 240, 0.2, lite=True),
    "lite2": Sizes(1.1, 1.2, 260, 0.3, lite=True),
    "lite3": Sizes(1.2, 1.4, 280, 0.3, lite=True),
    "lite4": Sizes(1.4, 1.8, 300, 0.3, lite=True),
    "b0": Sizes(1.0, 1.0, 224, 0.2),
    "b1": Sizes(1.0, 1.1, 240, 0.2),
    "b2": Sizes(1.1, 1.2, 260, 0.3),
    "b3": Sizes(1.2, 1.4, 300, 0.3),
    "b4": Sizes(1.4, 1.8, 380, 0.4),
    "b5": Sizes(1.6, 2.2, 456, 0.4),
    "b6": Sizes(1.8, 2.6, 528, 0.5),
    "b7": Sizes(2.0, 3.1, 600, 0.5),
    "tiny": Sizes(1.0, 1.0, 32, 0.1, stages=TINY, stem_width=8, last_width=32),
}
DEFAULT = "b0"
# Padding -> epsilon of the normalisation: they come together, from where a network was trained.
EPSILON = {"same": 1e-3, "symmetric": 1e-5}  # TensorFlow's "tf_" networks; PyTorch's own


def round_width(width: float) -> int:
    """To a multiple of 8, as the published networks do: never more than 10% below."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


# === Layers ===


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of one network share."""

    lite: bool
    padding: str
    policy: Any

    def conv(self, x: Any, width: int, kernel_size: int, stride: int, name: str) -> Any:
        """(batch, h, w, c) -> (batch, h / stride, w / stride, width)."""
        x, same = self._pad(x, kernel_size, stride, name)
        return layers.Conv2D(width, kernel_size, kernel_initializer=_fan_out(), **same)(x)

    def depthwise(self, x: Any, kernel_size: int, stride: int, name: str) -> Any:
        """(batch, h, w, c) -> (batch, h / stride, w / stride, c), each channel by itself."""
        x, same = self._pad(x, kernel_size, stride, name)
        return layers.DepthwiseConv2D(kernel_size, depthwise_initializer=_fan_out(), **same)(x)

    def norm(self, x: Any, name: str, *, activate: bool = True) -> Any:
        x = layers.BatchNormalization(
            momentum=0.9,  # few steps an epoch in fine-tuning: Keras' 0.99 would lag epochs behind
            epsilon=EPSILON[self.padding],
            dtype=self.policy,
            name=f"{name}_norm",
        )(x)
        return self.activation(x, f"{name}_activation") if activate else x

    def activation(self, x: Any, name: str) -> Any:
        if self.lite:
            return layers.ReLU(max_value=6.0, dtype=self.policy, name=name)(x)
        return layers.Activation("silu", dtype=self.policy, name=name)(x)

    def _pad(self, x: Any, kernel_size: int, stride: int, name: str) -> tuple[Any, dict[str, Any]]:
        """`x`, padded where Keras' "same" would do it otherwise, and what both kinds share."""
        # With a stride, "same" adds less at the top left than at the bottom right.
        symmetric = stride > 1 and self.padding == "symmetric"
        if symmetric:
            x = layers.ZeroPadding2D(
                kernel_size // 2, data_format="channels_last", dtype=self.policy, name=f"{name}_pad"
            )(x)
        return x, {
            "strides": stride,
            "padding": "valid" if symmetric else "same",
            "use_bias": False,  # the normalisation that follows has its own
            "data_format": "channels_last",
            "dtype": self.policy,
            "name": f"{name}_conv",
        }


def _fan_out() -> keras.Initializer:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _squeeze_excite(x: Any, width: int, style: Style, name: str) -> Any:
    """(batch, h, w, c) -> the same shape, each channel times a number in (0, 1) for the image."""
    options = {"data_format": "channels_last", "dtype": style.policy}
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool", **options)(x)
    y = layers.Conv2D(width, 1, kernel_initializer=_fan_out(), name=f"{name}_reduce", **options)(y)
    y = style.activation(y, f"{name}_activation")
    options |= {"activation": "sigmoid", "kernel_initializer": _fan_out()}
    y = layers.Conv2D(x.shape[-1], 1, name=f"{name}_expand", **options)(y)
    return layers.Multiply(dtype=style.policy, name=f"{name}_scale")([x, y])


def _block(x: Any, stage: Stage, stride: int, style: Style, drop: float, name: str) -> Any:
    """Inverted residual: widen, filter each channel, weigh the channels, narrow, add.

    (batch, h, w, c) -> (batch, h / stride, w / stride, width).
    """
    shortcut, channels = x, x.shape[-1]
    if stage.expansion > 1:
        x = style.conv(x, channels * stage.expansion, 1, 1, f"{name}_expand")
        x = style.norm(x, f"{name}_expand")
    x = style.depthwise(x, stage.kernel_size, stride, f"{name}_depthwise")
    x = style.norm(x, f"{name}_depthwise")
    if not style.lite:
        # A quarter of the block's input, not of its wide inside.
        x = _squeeze_excite(x, channels // 4, style, f"{name}_squeeze")
    x = style.conv(x, stage.width, 1, 1, f"{name}_project")
    x = style.norm(x, f"{name}_project", activate=False)
    if stride > 1 or channels != stage.width:
        return x
    if drop:  # leaves out the whole branch, for each image anew
        x = layers.Dropout(
            drop, noise_shape=(None, 1, 1, 1), dtype=style.policy, name=f"{name}_drop"
        )(x)
    return layers.Add(dtype=style.policy, name=f"{name}_add")([x, shortcut])


def _body(x: Any, sizes: Sizes, style: Style, drop_path: float) -> Any:
    """(batch, h, w, c) -> (batch, h / 32, w / 32, last_width): five of the layers halve."""
    x = style.conv(x, sizes.scaled_stem_width, 3, 2, "stem")
    x = style.norm(x, "stem")
    stages, number = sizes.scaled_stages, 0
    blocks = sum(stage.depth for stage in stages)
    for stage_number, stage in enumerate(stages, start=1):
        for block in range(stage.depth):
            stride = stage.stride if block == 0 else 1
            drop = drop_path * number / blocks  # later blocks are left out more often
            x = _block(x, stage, stride, style, drop, f"stage{stage_number}_block{block}")
            number += 1
    x = style.conv(x, sizes.scaled_last_width, 1, 1, "last")
    return style.norm(x, "last")


# === Model ===


def efficientnet(
    variant: str | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = None,
    padding: str | None = None,
    dropout: float | None = None,
    drop_path: float = 0.0,
    dtype: Any = None,
    name: str = "efficientnet",
) -> keras.Model:
    """EfficientNet image classifier: accurate for its number of parameters and operations.

    The one to start from for photos: with weights, "lite0" gives features of which a linear head
    learns cats and dogs from a few hundred pictures. The "lite" variants leave out
    squeeze-and-excitation and use ReLU6; they are faster on CPUs and survive 8 bits.
    Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946, Table 1.
    Differs from the paper: `drop_path` (there 0.2) is 0 unless it is given; the normalisations
    have a momentum of 0.9 instead of 0.99, for runs of few steps.

    Args:
        variant: "lite0" … "lite4", "b0" … "b7", or "tiny" for tests; None for the one that the
            checkpoint holds, "b0" without one.
        input_shape: (height, width, channels), without the batch; at least 32 pixels a side, or
            None for images of any size. Made for 224 pixels ("lite0", "b0") to 600 ("b7"). The
            first layer of a checkpoint is adapted to other than 3 channels, as timm does.
        num_classes: Number of classes, at least 2. None takes the checkpoint's, or 1000. 0 leaves
            the last layer out: the pooled features come out.
        num_outputs: Number of linear outputs for regression; `num_classes` must be None then.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes, else independent
            probabilities) or None for logits.
        weights: None for a random start, or a checkpoint: a file, a folder, "hf://org/name" or a
            name (see `bigzoo.weights.open_checkpoint`). Its classifier is loaded too if it has as
            many classes as are asked for; otherwise the last layer is new.
        padding: "same", TensorFlow's (timm's `tf_efficientnet_*`; epsilon 1e-3 in the
            normalisations), or "symmetric", PyTorch's (`efficientnet_*`, 1e-5). None for the
            checkpoint's, "same" without one.
        dropout: Part of the pooled features set to 0 in training, in [0, 1); None for the paper's.
        drop_path: Probability in [0, 1) that the last block's branch is left out for an image in
            training; it grows from 0 at the first block.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does, with the checkpoint's mean and standard deviation.
    Output shape: (batch, num_classes), or (batch, 1) for two classes with "sigmoid"; float32.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", …, "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or the checkpoint doesn't fit.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.efficientnet("tiny", input_shape=(64, 64, 3), num_classes=2)
        >>> model.predict(np.zeros((5, 64, 64, 3), "uint8"), verbose=0).shape
        (5, 2)
        >>> bz.models.efficientnet("tiny", num_classes=0).output_shape  # features
        (None, 32)
    """
    if variant is not None:
        check_choice("variant", variant, VARIANTS)
    check_choice("padding", padding, (*EPSILON, None))
    shape = check_image_shape(input_shape, minimum=32, any_size=True)
    drop_path = check_number("drop_path", drop_path, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    checkpoint = open_checkpoint(weights, family="efficientnet")
    if checkpoint is not None and not checkpoint.native:
        shapes = {name: sizes.shape for name, sizes in VARIANTS.items()}
        variant = find_variant(checkpoint, shapes, variant)
        padding = padding or find_padding(checkpoint)
        depths = [stage.depth for stage in VARIANTS[variant].scaled_stages]
        checkpoint = with_timm_names(checkpoint, depths)
    sizes = VARIANTS[variant or DEFAULT]
    rate = check_number("dropout", sizes.dropout if dropout is None else dropout, 0, below=1)
    head = plan_head(
        num_classes,
        num_outputs,
        classifier_activation,
        default=1000,
        checkpoint_classes=checkpoint.classes("classifier.weight") if checkpoint else None,
    )

    image = keras.Input(shape, dtype="float32", name="image")
    x = scale_pixels(image, *pixel_statistics(checkpoint, HALF if sizes.lite else IMAGENET))
    style = Style(sizes.lite, padding or "same", policy)
    x = _body(x, sizes, style, drop_path)
    pool_policy = policy if head.units else "float32"
    x = layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=pool_policy, name="global_pool"
    )(x)
    if rate and head.units:
        x = layers.Dropout(rate, dtype=policy, name="dropout")(x)
    model = keras.Model(image, head(x), name=name)
    if checkpoint is not None:
        new = () if head.from_checkpoint else ("predictions",)
        ignore = () if head.from_checkpoint else ("classifier.*",)
        table = efficientnet_table(model)
        load_weights(model, checkpoint, table, ignore=(*NOT_WEIGHTS, *ignore), skip=new)
    return model
