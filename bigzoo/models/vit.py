"""ViT, the Vision Transformer: an image is a sequence of patches.

References:
    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, Table 1 (Base and Large), figure 1
        (the network), appendix B.1 (where dropout is).
    Steiner et al. 2022, https://arxiv.org/abs/2106.10270, Table 1 (Tiny and Small).
    Huang et al. 2016, https://arxiv.org/abs/1603.09382 (blocks left out at random in training).
    The names of tensors in checkpoints: timm, models/vision_transformer.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import check_number, message
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._heads import plan_head
from bigzoo.models._pixels import HALF, pixel_statistics, scale_pixels
from bigzoo.models._sizes import choose_sizes
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._vit import describe_vit, vit_table

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One row of the papers' tables, and the side of a patch in pixels."""

    patch_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    mlp_dim: int


# Dosovitskiy et al. 2021, Table 1; Tiny and Small: Steiner et al. 2022, Table 1.
VARIANTS: dict[str, Sizes] = {
    "tiny16": Sizes(16, 12, 3, 192, 768),
    "small16": Sizes(16, 12, 6, 384, 1536),
    "small32": Sizes(32, 12, 6, 384, 1536),
    "base16": Sizes(16, 12, 12, 768, 3072),
    "base32": Sizes(32, 12, 12, 768, 3072),
    "large16": Sizes(16, 24, 16, 1024, 4096),
    "large32": Sizes(32, 24, 16, 1024, 4096),
    # Not in the papers: to train from scratch on a thousand pictures of 64 pixels.
    "mini8": Sizes(8, 6, 4, 128, 256),
    # Not in the papers: builds and trains in a second.
    "micro": Sizes(8, 2, 2, 16, 32),
}
DEFAULT = "base16"
EPSILON = 1e-6

# === Layers ===


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of one network share."""

    sizes: Sizes
    dropout: float
    policy: Any

    def norm(self, x: Any, name: str) -> Any:
        return layers.LayerNormalization(epsilon=EPSILON, dtype=self.policy, name=name)(x)

    def dense(self, x: Any, width: int, name: str, activation: str | None = None) -> Any:
        return layers.Dense(width, activation=activation, dtype=self.policy, name=name)(x)

    def drop(self, x: Any, name: str) -> Any:
        if not self.dropout:
            return x
        return layers.Dropout(self.dropout, dtype=self.policy, name=name)(x)

    def add(self, x: Any, branch: Any, drop_path: float, name: str) -> Any:
        """x + branch; in training, the branch is left out for some of the images."""
        if drop_path:
            branch = layers.Dropout(
                drop_path, noise_shape=(None, 1, 1), dtype=self.policy, name=f"{name}_drop_path"
            )(branch)
        return layers.Add(dtype=self.policy, name=f"{name}_add")([x, branch])


def _embed(x: Any, style: Style) -> Any:
    """(batch, h, w, c) -> (batch, 1 + patches, hidden_dim): the class token is the first."""
    dim, patch = style.sizes.hidden_dim, style.sizes.patch_size
    x = layers.Conv2D(
        dim,
        patch,
        strides=patch,
        kernel_initializer="lecun_normal",
        data_format="channels_last",
        dtype=style.policy,
        name="patch_embedding",
    )(x)
    # (batch, h / patch, w / patch, dim) -> (batch, patches, dim)
    x = layers.Reshape((-1, dim), dtype=style.policy, name="patches")(x)
    # A learned vector is a table of one row, looked up for each image: a stock layer.
    zeros = ops.zeros_like(x[:, :1, 0], dtype="int32")
    token = layers.Embedding(
        1, dim, embeddings_initializer="zeros", dtype=style.policy, name="class_token"
    )(zeros)
    x = layers.Concatenate(axis=1, dtype=style.policy, name="tokens")([token, x])
    places = ops.cumsum(ops.ones_like(x[:, :, 0], dtype="int32"), axis=1) - 1
    places = layers.Embedding(
        x.shape[1],
        dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
        dtype=style.policy,
        name="position_embedding",
    )(places)
    x = layers.Add(dtype=style.policy, name="embeddings")([x, places])
    return style.drop(x, "embeddings_drop")


def _layer(x: Any, style: Style, drop_path: float, name: str) -> Any:
    """Attention, then two dense layers, each normalised before and added: the shape stays."""
    sizes = style.sizes
    y = style.norm(x, f"{name}_attention_norm")
    # Glorot's for a matrix of hidden_dim x hidden_dim. By its name, Keras would take the kernels
    # of shape (hidden_dim, heads, head_dim) for convolutions, and start them far smaller.
    limit = math.sqrt(6 / (2 * sizes.hidden_dim))
    y = layers.MultiHeadAttention(
        sizes.num_heads,
        sizes.hidden_dim // sizes.num_heads,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        dtype=style.policy,
        name=f"{name}_attention",
    )(y, y)
    y = style.drop(y, f"{name}_attention_dropout")
    x = style.add(x, y, drop_path, f"{name}_attention")

    y = style.norm(x, f"{name}_mlp_norm")
    y = style.dense(y, sizes.mlp_dim, f"{name}_mlp_widen", "gelu")  # by erf, not by tanh
    y = style.drop(y, f"{name}_mlp_widen_dropout")
    y = style.dense(y, sizes.hidden_dim, f"{name}_mlp_narrow")
    y = style.drop(y, f"{name}_mlp_narrow_dropout")
    return style.add(x, y, drop_path, f"{name}_mlp")


def _body(x: Any, style: Style, drop_path: float) -> Any:
    """(batch, h, w, c) -> (batch, hidden_dim): the class token at the end."""
    x = _embed(x, style)
    last = max(style.sizes.num_layers - 1, 1)
    for number in range(style.sizes.num_layers):
        # Later layers are left out more often.
        x = _layer(x, style, drop_path * number / last, f"layer{number}")
    return style.norm(x, "norm")[:, 0]


# === Model ===


def vit(
    variant: str | None = None,
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    dtype: Any = None,
    name: str = "vit",
) -> keras.Model:
    """Vision Transformer image classifier: patches as words, and attention between all of them.

    Choose it with weights from a checkpoint, for fine-tuning on a GPU. From scratch it needs many
    more pictures than a convolutional network, which knows that neighbours belong together.
    Checkpoints are those of timm, `vit_{tiny,small,base,large}_patch{16,32}_*`.
    Paper: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, Table 1.
    Differs from the paper: no hidden layer in the head (there in pre-training only).

    Args:
        variant: "tiny16", "small16", "small32", "base16", "base32", "large16" or "large32" (the
            number is the side of a patch), "mini8" for small pictures, or "micro" for tests. None
            takes the checkpoint's, and "base16" without one.
        input_shape: (height, width, channels), without the batch; height and width are multiples
            of the patch. With another size than the checkpoint's, its position embeddings are
            resized (bicubic); with other than 3 channels, its first layer is adapted as timm does.
        num_classes: Number of classes, at least 2. None takes the checkpoint's, or 1000. 0 leaves
            the last layer out: the normalised class token comes out.
        num_outputs: For regression: number of linear outputs, at least 1; `num_classes` must be
            None then.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes, else independent
            probabilities) or None for logits.
        weights: None for a random start, or a checkpoint: a file, a folder, "hf://org/name" or a
            name (see `bigzoo.weights.open_checkpoint`). Its classifier is loaded too if it has as
            many classes as are asked for; otherwise the last layer is new.
        dropout: Part of the embeddings and of each dense layer's output set to 0 in training, in
            [0, 1); the attention's weights have none.
        drop_path: Probability in [0, 1) that the last layer's branches are left out for an image
            in training; it grows from 0 at the first layer.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255. Don't
        scale them: the layer "preprocess" does, with the checkpoint's mean and standard deviation
        (to -1 … 1 without one).
    Output shape: (batch, num_classes); (batch, 1) for two classes with "sigmoid"; (batch,
        hidden_dim) for `num_classes=0`. float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`, with the layers "image", "preprocess", "patch_embedding",
        "class_token", "position_embedding", "layer0_attention", …, "norm", "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, a side is no multiple of the
            patch, or the checkpoint is damaged or doesn't fit; nothing is loaded then.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.vit("micro", input_shape=(32, 48, 3), num_classes=2)
        >>> model.predict(np.zeros((5, 32, 48, 3), "uint8"), verbose=0).shape
        (5, 2)
        >>> model.get_layer("layer1_attention").output.shape  # 4 x 6 patches and the class token
        (None, 25, 16)
    """
    shape = check_image_shape(input_shape, minimum=1, any_size=True)
    rate = check_number("dropout", dropout, minimum=0, below=1)
    drop_path = check_number("drop_path", drop_path, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    checkpoint = open_checkpoint(weights, family="vit")
    sizes = choose_sizes(variant, VARIANTS, DEFAULT, describe_vit(checkpoint), weights)
    _check_patches(shape, sizes.patch_size)
    head = plan_head(
        num_classes,
        num_outputs,
        classifier_activation,
        default=1000,
        checkpoint_classes=checkpoint.classes("head.weight") if checkpoint else None,
    )

    image = keras.Input(shape, dtype="float32", name="image")
    x = scale_pixels(image, *pixel_statistics(checkpoint, HALF))
    x = _body(x, Style(sizes, rate, policy), drop_path)
    outputs = head(x) if head.units else ops.cast(x, "float32")
    model = keras.Model(image, outputs, name=name)
    if checkpoint is not None:
        new = () if head.from_checkpoint else ("predictions",)
        ignore = () if head.from_checkpoint else ("head.*",)
        load_weights(model, checkpoint, vit_table(model), ignore=ignore, skip=new)
    return model


def _check_patches(shape: tuple[int | None, int | None, int], patch: int) -> None:
    """Refuse sides that aren't whole patches: the rest of the image would be cut off unseen."""
    for axis, side in enumerate(shape[:2]):
        expected = f"a multiple of {patch} pixels, the side of a patch"
        if side is None:
            fix = "Each patch has a position of its own, so height and width must be fixed."
            raise ValueError(message(f"input_shape[{axis}]", side, expected, fix))
        if side % patch:
            low, high = side // patch * patch, (side // patch + 1) * patch
            near = f"{low} or {high}" if low else f"{high}"
            raise ValueError(message(f"input_shape[{axis}]", side, expected, f"Use {near}."))
