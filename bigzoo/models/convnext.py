"""ConvNeXt: a convolutional network with the training and the proportions of a transformer.

References:
    Liu et al. 2022, "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545, section 3 (the
        sizes of Tiny to Large), figure 4 (the block).
    Huang et al. 2016, https://arxiv.org/abs/1603.09382 (blocks left out at random in training).
    Touvron et al. 2021, https://arxiv.org/abs/2103.17239 (each branch times a small number).
    The names of blocks and tensors in checkpoints: timm, models/convnext.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import check_number
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._heads import plan_head
from bigzoo.models._pixels import IMAGENET, pixel_statistics, scale_pixels
from bigzoo.models._sizes import choose_sizes
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._convnext import convnext_table, describe_convnext
from bigzoo.weights._timm import NOT_WEIGHTS

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`depths` blocks of `widths` channels in four stages.

    Attributes:
        layer_scale: What each branch is multiplied by before training.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    layer_scale: float = 1e-6


# Liu et al. 2022, section 3.
VARIANTS: dict[str, Sizes] = {
    "tiny": Sizes((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": Sizes((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": Sizes((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": Sizes((3, 3, 27, 3), (192, 384, 768, 1536)),
    # Not in the paper: builds and trains in a second. At 1e-6 its few steps would show nothing.
    "micro": Sizes((1, 1, 2, 1), (8, 8, 16, 16), layer_scale=0.5),
}
DEFAULT = "tiny"
MINIMUM = 32  # pixels a side: the stem quarters it, three stages halve it
EPSILON = 1e-6

# === Layers ===


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of one network share.

    `zeros` is (batch, 1, 1), integers: the row of the tables of one row that LayerScale is made of.
    """

    policy: Any
    layer_scale: float
    zeros: Any

    def conv(self, x: Any, width: int, size: int, name: str) -> Any:
        """Convolution of `size` by steps of `size`: (batch, h, w, c) -> (batch, h/size, …)."""
        return layers.Conv2D(
            width,
            size,
            strides=size,
            kernel_initializer=_normal(),
            data_format="channels_last",
            dtype=self.policy,
            name=name,
        )(x)

    def norm(self, x: Any, name: str) -> Any:
        return layers.LayerNormalization(epsilon=EPSILON, dtype=self.policy, name=name)(x)

    def dense(self, x: Any, width: int, name: str) -> Any:
        return layers.Dense(width, kernel_initializer=_normal(), dtype=self.policy, name=name)(x)

    def scale(self, x: Any, name: str) -> Any:
        """(batch, h, w, c) times a learned number per channel.

        Keras has no layer for this. A table of one row looked up for each image is the same
        numbers, of shape (batch, 1, 1, c), and a saved file needs no class of ours.
        """
        row = layers.Embedding(
            1,
            x.shape[-1],
            embeddings_initializer=keras.initializers.Constant(self.layer_scale),
            dtype=self.policy,
            name=f"{name}_gamma",
        )(self.zeros)
        return layers.Multiply(dtype=self.policy, name=f"{name}_scale")([x, row])


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _block(x: Any, drop: float, style: Style, name: str) -> Any:
    """7×7 per channel - norm - widen - GELU - narrow - scale - add: the shape stays."""
    width = x.shape[-1]
    y = layers.DepthwiseConv2D(
        7,
        padding="same",
        depthwise_initializer=_normal(),
        data_format="channels_last",
        dtype=style.policy,
        name=f"{name}_conv",
    )(x)
    y = style.norm(y, f"{name}_norm")
    y = style.dense(y, 4 * width, f"{name}_widen")
    y = layers.Activation("gelu", dtype=style.policy, name=f"{name}_gelu")(y)
    y = style.dense(y, width, f"{name}_narrow")
    y = style.scale(y, name)
    if drop:  # leaves out the whole branch, for each image anew
        y = layers.Dropout(
            drop, noise_shape=(None, 1, 1, 1), dtype=style.policy, name=f"{name}_drop"
        )(y)
    return layers.Add(dtype=style.policy, name=f"{name}_add")([x, y])


def _body(x: Any, sizes: Sizes, style: Style, drop_path: float) -> Any:
    """(batch, h, w, c) -> (batch, widths[-1]); h and w are divided by 32 on the way."""
    x = style.norm(style.conv(x, sizes.widths[0], 4, "stem_conv"), "stem_norm")
    number, last = 0, max(sum(sizes.depths) - 1, 1)
    for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True), start=1):
        if stage > 1:
            x = style.norm(x, f"stage{stage}_downsample_norm")
            x = style.conv(x, width, 2, f"stage{stage}_downsample_conv")
        for block in range(depth):
            drop = drop_path * number / last  # later blocks are left out more often
            x = _block(x, drop, style, f"stage{stage}_block{block}")
            number += 1
    return layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=style.policy, name="global_pool"
    )(x)


# === Model ===


def convnext(
    variant: str | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    dtype: Any = None,
    name: str = "convnext",
) -> keras.Model:
    """ConvNeXt image classifier: convolutions only, as accurate as transformers of its size.

    Choose it with weights from a checkpoint, where accuracy counts and a GPU is at hand; from
    scratch and on few photos, `cnn` or `resnet` learn faster. Checkpoints are those of timm.
    Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545, section 3.
    Differs from the paper: nothing in the network; `drop_path` is 0 unless given (the paper trains
    Tiny to Large with 0.1, 0.4, 0.5 and 0.5).

    Args:
        variant: "tiny", "small", "base" or "large" of the paper, or "micro" for tests. None takes
            the checkpoint's, and "tiny" without one.
        input_shape: (height, width, channels), without the batch; at least 32 pixels a side, None
            for height and width to take images of any size. With a checkpoint and another number
            of channels than 3, the weights of the first layer are adapted as timm does.
        num_classes: Number of classes, at least 2. None takes the checkpoint's, or 1000. 0 leaves
            the last layer out: pooled, normalised features come out.
        num_outputs: For regression: number of linear outputs, at least 1; `num_classes` must be
            None then.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes, else independent
            probabilities) or None for logits.
        weights: None for a random start, or a checkpoint: a file, a folder, "hf://org/name" or a
            name (see `bigzoo.weights.open_checkpoint`). Its classifier is loaded too if it has as
            many classes as are asked for; otherwise the last layer is new.
        dropout: Part of the pooled features set to 0 in training, in [0, 1).
        drop_path: Probability in [0, 1) that the last block's branch is left out for an image in
            training; it grows from 0 at the first block.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does, with the checkpoint's mean and standard deviation
        (ImageNet's without one).
    Output shape: (batch, num_classes); (batch, 1) for two classes with "sigmoid"; (batch,
        features) for `num_classes=0`. float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", "stem_conv", …,
        "global_pool", "head_norm", "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or the checkpoint is damaged or
            doesn't fit; nothing is loaded then.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.convnext("micro", input_shape=(64, 64, 3), num_classes=2)
        >>> model.predict(np.zeros((5, 64, 64, 3), "uint8"), verbose=0).shape
        (5, 2)
        >>> bz.models.convnext("micro", num_classes=0).output_shape
        (None, 16)
    """
    shape = check_image_shape(input_shape, MINIMUM, any_size=True)
    rate = check_number("dropout", dropout, minimum=0, below=1)
    drop_path = check_number("drop_path", drop_path, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    checkpoint = open_checkpoint(weights, family="convnext")
    sizes = choose_sizes(variant, VARIANTS, DEFAULT, describe_convnext(checkpoint), weights)
    head = plan_head(
        num_classes,
        num_outputs,
        classifier_activation,
        default=1000,
        checkpoint_classes=checkpoint.classes("head.fc.weight") if checkpoint else None,
    )

    image = keras.Input(shape, dtype="float32", name="image")
    zeros = ops.zeros_like(image[:, :1, :1, 0], dtype="int32")
    x = scale_pixels(image, *pixel_statistics(checkpoint, IMAGENET))
    x = _body(x, sizes, Style(policy, sizes.layer_scale, zeros), drop_path)
    last_policy = policy if head.units else "float32"
    x = layers.LayerNormalization(epsilon=EPSILON, dtype=last_policy, name="head_norm")(x)
    if rate and head.units:
        x = layers.Dropout(rate, dtype=policy, name="dropout")(x)
    model = keras.Model(image, head(x), name=name)
    if checkpoint is not None:
        new = () if head.from_checkpoint else ("predictions",)
        ignore = () if head.from_checkpoint else ("head.fc.*",)
        table = convnext_table(model)
        load_weights(model, checkpoint, table, ignore=(*NOT_WEIGHTS, *ignore), skip=new)
    return model
