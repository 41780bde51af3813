"""Transformer of texts: an encoder that classifies, or an encoder and a decoder that translate.

References:
    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762 (architecture; sizes of Table 3; section
        3.4: one table for both embeddings and the last layer; section 3.5: sinusoids).
    Xiong et al. 2020, https://arxiv.org/abs/2002.04745 (normalisation first: no warm-up needed).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import check_choice, check_int, check_number, message
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._heads import plan_head
from bigzoo.models._text import positions as places

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A row of Table 3 of Vaswani et al.; the vocabulary is that of their section 5.1."""

    num_layers: int = 6
    hidden_dim: int = 512
    mlp_dim: int = 2048
    num_heads: int = 8
    dropout: float = 0.1
    vocab_size: int = 37_000
    max_length: int = 512


VARIANTS: dict[str, Sizes] = {
    "base": Sizes(),
    "big": Sizes(hidden_dim=1024, mlp_dim=4096, num_heads=16, dropout=0.3),
    "tiny": Sizes(2, 16, 32, 2, 0.1, 50, 64),
}
KINDS = ("encoder", "encoder_decoder")
POSITIONS = ("sinusoidal", "learned")

# === Layers ===


class _Builder:
    """What all layers of one model have in common."""

    def __init__(self, sizes: Sizes, positions: str, policy: Any) -> None:
        self.sizes = sizes
        self.positions = positions
        self.policy = policy

    def norm(self, x: Any, name: str) -> Any:
        return layers.LayerNormalization(epsilon=1e-5, dtype=self.policy, name=name)(x)

    def drop(self, x: Any, name: str) -> Any:
        if not self.sizes.dropout:
            return x
        return layers.Dropout(self.sizes.dropout, dtype=self.policy, name=name)(x)

    def add(self, x: Any, y: Any, name: str) -> Any:
        y = self.drop(y, f"{name}_dropout")
        return layers.Add(dtype=self.policy, name=f"{name}_add")([x, y])

    def table(self, vocab_size: int, name: str) -> Any:
        """Token embeddings, which give the logits of tokens as well."""
        return layers.ReversibleEmbedding(
            vocab_size,
            self.sizes.hidden_dim,
            embeddings_initializer=keras.initializers.RandomNormal(
                stddev=self.sizes.hidden_dim**-0.5
            ),
            dtype=self.policy,
            reverse_dtype="float32",
            name=name,
        )

    def embedded(self, table: Any, token_ids: Any, prefix: str) -> Any:
        """(batch, length) -> (batch, length, hidden_dim): tokens and their places."""
        scale = self.sizes.hidden_dim**0.5
        x = layers.Rescaling(scale, dtype=self.policy, name=f"{prefix}scale")(table(token_ids))
        where = places(token_ids)
        if self.positions == "learned":
            position = layers.Embedding(
                self.sizes.max_length,
                self.sizes.hidden_dim,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
                dtype=self.policy,
                name=f"{prefix}position_embedding",
            )(where)
        else:
            position = sinusoids(where, self.sizes.hidden_dim)
        x = layers.Add(dtype=self.policy, name=f"{prefix}embedding_add")([x, position])
        return self.drop(x, f"{prefix}embedding_dropout")

    def attention(self, x: Any, memory: Any, name: str, mask: Any = None) -> Any:
        """(batch, length, d) and (batch, other, d) -> (batch, length, d).

        Without `mask`, each place sees itself and those before it.
        """
        layer = layers.MultiHeadAttention(
            self.sizes.num_heads,
            self.sizes.hidden_dim // self.sizes.num_heads,
            dtype=self.policy,
            name=name,
        )
        return layer(x, memory, attention_mask=mask, use_causal_mask=mask is None)

    def mlp(self, x: Any, name: str) -> Any:
        """(batch, length, hidden_dim) -> the same, by way of `mlp_dim`."""
        sizes = self.sizes
        x = layers.Dense(sizes.mlp_dim, "relu", dtype=self.policy, name=f"{name}_mlp1")(x)
        x = self.drop(x, f"{name}_mlp1_dropout")
        return layers.Dense(sizes.hidden_dim, dtype=self.policy, name=f"{name}_mlp2")(x)

    def block(
        self, x: Any, name: str, mask: Any, memory: Any = None, memory_mask: Any = None
    ) -> Any:
        """Self-attention, attention to `memory` if there is one, and an MLP; each added to `x`."""
        y = self.norm(x, f"{name}_attention_norm")
        x = self.add(x, self.attention(y, y, f"{name}_attention", mask), f"{name}_attention")
        if memory is not None:
            y = self.norm(x, f"{name}_cross_norm")
            y = self.attention(y, memory, f"{name}_cross", memory_mask)
            x = self.add(x, y, f"{name}_cross")
        y = self.mlp(self.norm(x, f"{name}_mlp_norm"), name)
        return self.add(x, y, f"{name}_mlp")


def sinusoids(where: Any, dim: int) -> Any:
    """(1, length) places -> (1, length, dim): sines, then cosines, of wavelengths 2π to 20000π."""
    half = dim // 2
    place = ops.repeat(ops.expand_dims(ops.cast(where, "float32"), -1), half, axis=-1)
    number = ops.cumsum(ops.ones_like(place), axis=-1) - 1.0  # 0, 1, 2, ... along the last axis
    angles = place * ops.exp(number * (-math.log(10_000.0) / half))
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


def _visible(token_ids: Any) -> Any:
    """(batch, length) -> (batch, 1, length): which places are tokens and no padding."""
    return ops.expand_dims(ops.not_equal(token_ids, 0), 1)


def _mean(x: Any, token_ids: Any) -> Any:
    """(batch, length, d) -> (batch, d): the mean over the tokens, in float32."""
    tokens = ops.cast(ops.expand_dims(ops.not_equal(token_ids, 0), -1), "float32")
    total = ops.sum(ops.cast(x, "float32") * tokens, axis=1)
    # A row of padding alone has no tokens to divide by.
    return total / ops.maximum(ops.sum(tokens, axis=1), 1.0)


# === Model ===


def transformer(
    variant: str = "base",
    *,
    kind: str = "encoder",
    vocab_size: int | None = None,
    target_vocab_size: int | None = None,
    positions: str = "sinusoidal",
    max_length: int | None = None,
    num_layers: int | None = None,
    hidden_dim: int | None = None,
    num_heads: int | None = None,
    mlp_dim: int | None = None,
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    dropout: float | None = None,
    dtype: Any = None,
    name: str = "transformer",
) -> keras.Model:
    """Transformer to train from scratch on texts as token ids, where 0 is padding.

    "encoder" reads a text and says what it is: the mean of its last states goes into a head.
    "encoder_decoder" is the network of the paper: it reads a text and says, for each place of
    another one, which token comes there next. A text gives the same answer with and without
    padding behind it, and no place of the second text sees a later one.
    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Table 3.
    Differs from the paper: each block begins with its normalisation and a last one follows the
    blocks, which trains without warm-up; the MLP has the dropout of the blocks, too; sines and
    cosines don't alternate but follow one another.

    Train "encoder_decoder" on x = {"token_ids": source, "target_ids": target} and y = the target
    one place further on, with
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)`.

    Args:
        variant: "base" (63 million parameters as encoder and decoder) or "big" (214 million).
        kind: "encoder" or "encoder_decoder".
        vocab_size: Different token ids, at least 2; None for the paper's 37,000.
        target_vocab_size: Those of the second text; None for one vocabulary and one table for both.
        positions: "sinusoidal", for any length, or "learned", a table of `max_length` rows.
        max_length: Longest text with learned positions; None for 512.
        num_layers: Blocks of the encoder, and of the decoder; None for the variant's.
        hidden_dim: Numbers per place, an even multiple of `num_heads`; None for the variant's.
        num_heads: Heads of each attention; None for the variant's.
        mlp_dim: Hidden units of each block's MLP; None for the variant's.
        num_classes: Classes of an encoder, at least 2; 0 for no head, the mean state; None for 2.
        num_outputs: Units of a regression head instead of classes.
        classifier_activation: "softmax" gives `num_classes` probabilities, "sigmoid" one unit for
            two classes and independent probabilities above, None logits.
        dropout: Probability in [0, 1); None for the variant's 0.1 or 0.3.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: "token_ids", (batch, length), int32; "encoder_decoder" takes a dict of it and
        "target_ids", (batch, target_length), int32. Padding, 0, stands at the end.
    Output shape: (batch, num_classes); or (batch, target_length, vocab_size), logits. float32
        whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        TypeError, ValueError: if an argument is out of its range, or two exclude each other.

    Example:
        >>> model = bz.models.transformer("tiny", vocab_size=100, num_classes=3)
        >>> model.predict(np.array([[7, 4, 9, 0, 0]]), verbose=0).shape
        (1, 3)
        >>> model = bz.models.transformer("tiny", kind="encoder_decoder", vocab_size=100)
        >>> model.output_shape
        (None, None, 100)
    """
    sizes = VARIANTS[check_choice("variant", variant, VARIANTS)]
    check_choice("kind", kind, KINDS)
    check_choice("positions", positions, POSITIONS)
    sizes = _sized(sizes, num_layers, hidden_dim, num_heads, mlp_dim, vocab_size, max_length)
    if dropout is not None:
        rate = check_number("dropout", dropout, minimum=0, below=1)
        sizes = dataclasses.replace(sizes, dropout=rate)
    builder = _Builder(sizes, positions, check_policy(dtype))
    name = check_name(name)
    if kind == "encoder":
        if target_vocab_size is not None:
            expected = 'None with kind="encoder"'
            raise ValueError(message("target_vocab_size", target_vocab_size, expected))
        head = plan_head(num_classes, num_outputs, classifier_activation, default=2)
        token_ids, x, _ = _encoder(builder, "")
        return keras.Model(token_ids, head(_mean(x, token_ids)), name=name)
    for given, value in (("num_classes", num_classes), ("num_outputs", num_outputs)):
        if value is not None:
            fix = "Its outputs are logits of the next token."
            raise ValueError(message(given, value, 'None with kind="encoder_decoder"', fix))
    return _encoder_decoder(builder, target_vocab_size, name)


def _encoder(builder: _Builder, prefix: str) -> tuple[Any, Any, Any]:
    """(input, last states, table of tokens)."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    table = builder.table(builder.sizes.vocab_size, "token_embedding")
    x = builder.embedded(table, token_ids, prefix)
    mask = _visible(token_ids)
    for index in range(builder.sizes.num_layers):
        x = builder.block(x, f"{prefix}layer{index}", mask)
    return token_ids, builder.norm(x, f"{prefix}norm"), table


def _encoder_decoder(builder: _Builder, target_vocab_size: Any, name: str) -> keras.Model:
    token_ids, memory, table = _encoder(builder, "encoder_")
    if target_vocab_size is not None:
        size = check_int("target_vocab_size", target_vocab_size, minimum=2)
        table = builder.table(size, "target_embedding")
    target_ids = keras.Input((None,), dtype="int32", name="target_ids")
    x = builder.embedded(table, target_ids, "decoder_")
    memory_mask = _visible(token_ids)
    for index in range(builder.sizes.num_layers):
        x = builder.block(x, f"decoder_layer{index}", None, memory, memory_mask)
    logits = table(builder.norm(x, "decoder_norm"), reverse=True)
    outputs = layers.Activation("linear", dtype="float32", name="predictions")(logits)
    return keras.Model({"token_ids": token_ids, "target_ids": target_ids}, outputs, name=name)


def _sized(
    sizes: Sizes,
    num_layers: Any,
    hidden_dim: Any,
    num_heads: Any,
    mlp_dim: Any,
    vocab_size: Any,
    max_length: Any,
) -> Sizes:
    given = {"num_layers": num_layers, "hidden_dim": hidden_dim, "num_heads": num_heads}
    given |= {"mlp_dim": mlp_dim, "vocab_size": vocab_size, "max_length": max_length}
    least = {"hidden_dim": 2, "vocab_size": 2}
    changes = {
        key: check_int(key, value, minimum=least.get(key, 1))
        for key, value in given.items()
        if value is not None
    }
    sizes = dataclasses.replace(sizes, **changes)
    if sizes.hidden_dim % sizes.num_heads or sizes.hidden_dim % 2:
        expected = f"even, and a multiple of num_heads={sizes.num_heads}"
        raise ValueError(message("hidden_dim", sizes.hidden_dim, expected))
    return sizes
