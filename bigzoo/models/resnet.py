"""ResNet: deep image classifiers made of blocks that add to what they are given.

References:
    He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385,
        Table 1 (the five sizes), figure 5 (both kinds of block).
    "v1.5": Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1: in a bottleneck block
        the 3×3 convolution has the stride, not the first 1×1. As torchvision and timm have it; the
        ResNet50 of keras.applications is v1, with the stride in the 1×1 and biases.
    The names of blocks and tensors in checkpoints: timm, models/resnet.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_number
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._heads import plan_head
from bigzoo.models._pixels import IMAGENET, pixel_statistics, scale_pixels
from bigzoo.models._sizes import choose_sizes
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._resnet import describe_resnet, resnet_table
from bigzoo.weights._timm import NOT_WEIGHTS

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One column of the paper's Table 1: `depths` blocks of `widths` channels in four stages.

    `block` is "basic" (two 3×3 convolutions) or "bottleneck" (1×1, 3×3, 1×1, which ends with four
    times `widths` channels).
    """

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64


# He et al. 2016, Table 1.
VARIANTS: dict[str, Sizes] = {
    "18": Sizes("basic", (2, 2, 2, 2)),
    "34": Sizes("basic", (3, 4, 6, 3)),
    "50": Sizes("bottleneck", (3, 4, 6, 3)),
    "101": Sizes("bottleneck", (3, 4, 23, 3)),
    "152": Sizes("bottleneck", (3, 8, 36, 3)),
    # Not in the paper: builds and trains in a second.
    "tiny": Sizes("bottleneck", (1, 2, 1, 1), (8, 8, 12, 16), 8),
}
DEFAULT = "50"
MINIMUM = 32  # pixels a side: five layers halve it

# === Layers ===


def _conv_norm(
    x: Any, width: int, kernel_size: int, stride: int, name: str, policy: Any, gamma: str = "ones"
) -> Any:
    """Convolution and normalisation: (batch, h, w, c) -> (batch, h / stride, w / stride, width)."""
    padding = "same"
    if stride > 1 and kernel_size > 1:
        # With a stride, "same" of Keras adds less at the top left than at the bottom right;
        # PyTorch, where the published weights come from, adds the same on all sides.
        x = layers.ZeroPadding2D(
            kernel_size // 2, data_format="channels_last", dtype=policy, name=f"{name}_pad"
        )(x)
        padding = "valid"
    x = layers.Conv2D(
        width,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=False,  # the normalisation that follows has its own
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        data_format="channels_last",
        dtype=policy,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, dtype=policy, name=f"{name}_norm"
    )(x)


def _relu(x: Any, name: str, policy: Any) -> Any:
    return layers.ReLU(dtype=policy, name=f"{name}_relu")(x)


def _basic(x: Any, width: int, stride: int, name: str, policy: Any) -> Any:
    """The branch of a basic block: (batch, h, w, c) -> (batch, h / stride, w / stride, width)."""
    x = _relu(_conv_norm(x, width, 3, stride, f"{name}_1", policy), f"{name}_1", policy)
    # gamma = 0: each block starts as the identity (Goyal et al. 2017, section 5.1).
    return _conv_norm(x, width, 3, 1, f"{name}_2", policy, gamma="zeros")


def _bottleneck(x: Any, width: int, stride: int, name: str, policy: Any) -> Any:
    """The branch of a bottleneck block: … -> (batch, h / stride, w / stride, 4 * width)."""
    x = _relu(_conv_norm(x, width, 1, 1, f"{name}_1", policy), f"{name}_1", policy)
    x = _relu(_conv_norm(x, width, 3, stride, f"{name}_2", policy), f"{name}_2", policy)
    return _conv_norm(x, 4 * width, 1, 1, f"{name}_3", policy, gamma="zeros")


def _block(x: Any, kind: str, width: int, stride: int, name: str, policy: Any) -> Any:
    """ReLU(branch + shortcut); the shortcut is a 1×1 convolution where the shape changes."""
    branch = _basic if kind == "basic" else _bottleneck
    y = branch(x, width, stride, name, policy)
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = _conv_norm(x, y.shape[-1], 1, stride, f"{name}_shortcut", policy)
    x = layers.Add(dtype=policy, name=f"{name}_add")([y, x])
    return _relu(x, name, policy)


def _body(x: Any, sizes: Sizes, policy: Any) -> Any:
    """(batch, h, w, c) -> (batch, h / 32, w / 32, features)."""
    x = _relu(_conv_norm(x, sizes.stem_width, 7, 2, "stem", policy), "stem", policy)
    # After a ReLU a border of zeros never wins, so it is the same as PyTorch's border of -inf.
    x = layers.ZeroPadding2D(1, data_format="channels_last", dtype=policy, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(
        3, strides=2, data_format="channels_last", dtype=policy, name="stem_pool"
    )(x)
    for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True), start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(x, sizes.block, width, stride, f"stage{stage}_block{block}", policy)
    return x


# === Model ===


def resnet(
    variant: str | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = None,
    dropout: float = 0.0,
    dtype: Any = None,
    name: str = "resnet",
) -> keras.Model:
    """ResNet image classifier: the network that the field compares with.

    Choose it as a solid start for photos, with weights from a checkpoint; "18" for small sets and
    small machines, "50" as the usual size. Checkpoints are those of timm and torchvision.
    Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, Table 1.
    Differs from the paper: v1.5, the stride of a bottleneck block is in its 3×3 convolution; the
    last normalisation of each block starts at 0, so that a new block is the identity.

    Args:
        variant: "18", "34", "50", "101" or "152", or "tiny" for tests. None takes the
            checkpoint's, and "50" without one.
        input_shape: (height, width, channels), without the batch; at least 32 pixels a side, None
            for height and width to take images of any size. With a checkpoint and another number
            of channels than 3, the weights of the first layer are adapted as timm does.
        num_classes: Number of classes, at least 2. None takes the checkpoint's, or 1000. 0 leaves
            the last layer out: pooled features come out.
        num_outputs: For regression: number of linear outputs, at least 1; `num_classes` must be
            None then.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes, else independent
            probabilities) or None for logits.
        weights: None for a random start, or a checkpoint: a file, a folder, "hf://org/name" or a
            name (see `bigzoo.weights.open_checkpoint`). Its classifier is loaded too if it has as
            many classes as are asked for; otherwise the last layer is new.
        dropout: Part of the pooled features set to 0 in training, in [0, 1).
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does, with the checkpoint's mean and standard deviation
        (ImageNet's without one).
    Output shape: (batch, num_classes); (batch, 1) for two classes with "sigmoid"; (batch,
        features) for `num_classes=0`. float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", "stem_conv", …,
        "stage4_block2_relu", "global_pool", "predictions" (for "50").

    Raises:
        TypeError, ValueError: if an argument is out of its range, or the checkpoint is damaged or
            doesn't fit; nothing is loaded then.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.resnet("tiny", input_shape=(64, 64, 3), num_classes=2)
        >>> model.predict(np.zeros((5, 64, 64, 3), "uint8"), verbose=0).shape
        (5, 2)
        >>> bz.models.resnet("tiny", num_classes=0).output_shape
        (None, 64)
    """
    shape = check_image_shape(input_shape, MINIMUM, any_size=True)
    rate = check_number("dropout", dropout, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    checkpoint = open_checkpoint(weights, family="resnet")
    sizes = choose_sizes(variant, VARIANTS, DEFAULT, describe_resnet(checkpoint), weights)
    head = plan_head(
        num_classes,
        num_outputs,
        classifier_activation,
        default=1000,
        checkpoint_classes=checkpoint.classes("fc.weight") if checkpoint else None,
    )

    image = keras.Input(shape, dtype="float32", name="image")
    x = scale_pixels(image, *pixel_statistics(checkpoint, IMAGENET))
    x = _body(x, sizes, policy)
    x = layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=policy if head.units else "float32", name="global_pool"
    )(x)
    if rate and head.units:
        x = layers.Dropout(rate, dtype=policy, name="dropout")(x)
    model = keras.Model(image, head(x), name=name)
    if checkpoint is not None:
        new = () if head.from_checkpoint else ("predictions",)
        ignore = NOT_WEIGHTS if head.from_checkpoint else (*NOT_WEIGHTS, "fc.*")
        load_weights(model, checkpoint, resnet_table(model), ignore=ignore, skip=new)
    return model
