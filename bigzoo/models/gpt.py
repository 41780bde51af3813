"""GPT-2: a Transformer decoder that continues text.

References:
    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", Table 2,
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training" (GPT).
    Press and Wolf 2017, https://arxiv.org/abs/1608.05859 (one table for input and output).
    The names of tensors in checkpoints: transformers, models/gpt2/modeling_gpt2.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import check_number
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._text import choose_sizes, in_float32, override_sizes, positions
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._gpt import IGNORED, describe_gpt, gpt_names, gpt_table

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One variant; `mlp_dim` is the width inside each layer's two dense layers."""

    num_layers: int
    hidden_dim: int
    num_heads: int
    mlp_dim: int
    vocab_size: int = 50_257
    max_length: int = 1024
    epsilon: float = 1e-5


VARIANTS: dict[str, Sizes] = {
    "small": Sizes(num_layers=12, hidden_dim=768, num_heads=12, mlp_dim=3072),
    "medium": Sizes(num_layers=24, hidden_dim=1024, num_heads=16, mlp_dim=4096),
    "large": Sizes(num_layers=36, hidden_dim=1280, num_heads=20, mlp_dim=5120),
    "xl": Sizes(num_layers=48, hidden_dim=1600, num_heads=25, mlp_dim=6400),
    # For tests: every kind of layer in a network that builds in a moment.
    "micro": Sizes(2, 16, 2, 64, vocab_size=50, max_length=24),
}

# === Layers ===


def _normal(stddev: float = 0.02) -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def _embed(token_ids: Any, sizes: Sizes, dropout: float, policy: Any) -> Any:
    """(batch, length) -> (batch, length, hidden_dim), and the table of tokens."""
    # Reversible: the logits are products with the rows of the same table.
    tokens = layers.ReversibleEmbedding(
        sizes.vocab_size,
        sizes.hidden_dim,
        embeddings_initializer=_normal(),
        reverse_dtype="float32",
        dtype=policy,
        name="token_embedding",
    )
    place = layers.Embedding(
        sizes.max_length,
        sizes.hidden_dim,
        embeddings_initializer=_normal(0.01),
        dtype=policy,
        name="position_embedding",
    )
    parts = [tokens(token_ids), place(positions(token_ids))]
    x = layers.Add(dtype=policy, name="embedding_add")(parts)
    return _drop(x, dropout, "embedding_dropout", policy), tokens


def _norm(x: Any, sizes: Sizes, name: str, policy: Any) -> Any:
    return layers.LayerNormalization(epsilon=sizes.epsilon, dtype=policy, name=name)(x)


def _drop(x: Any, rate: float, name: str, policy: Any) -> Any:
    return layers.Dropout(rate, dtype=policy, name=name)(x) if rate else x


def _layer(x: Any, sizes: Sizes, rates: tuple[float, float], name: str, policy: Any) -> Any:
    """(batch, length, hidden_dim) -> the same shape; normalised before each half."""
    dropout, attention_dropout = rates
    y = _norm(x, sizes, f"{name}_attention_norm", policy)
    # No mask but the causal one, which the backends have their own fast paths for.
    y = layers.MultiHeadAttention(
        sizes.num_heads,
        sizes.hidden_dim // sizes.num_heads,
        dropout=attention_dropout,
        kernel_initializer=_normal(),
        dtype=policy,
        name=f"{name}_attention",
    )(y, y, use_causal_mask=True)
    y = _drop(y, dropout, f"{name}_attention_dropout", policy)
    x = layers.Add(dtype=policy, name=f"{name}_attention_add")([x, y])
    y = _norm(x, sizes, f"{name}_mlp_norm", policy)
    y = layers.Dense(
        sizes.mlp_dim, kernel_initializer=_normal(), dtype=policy, name=f"{name}_mlp_up"
    )(y)
    y = ops.gelu(y, approximate=True)  # by tanh, as GPT-2's
    # The paper: weights that add to the residual stream start smaller, by the number of additions.
    y = layers.Dense(
        sizes.hidden_dim,
        kernel_initializer=_normal(0.02 / math.sqrt(2 * sizes.num_layers)),
        dtype=policy,
        name=f"{name}_mlp_down",
    )(y)
    y = _drop(y, dropout, f"{name}_mlp_dropout", policy)
    return layers.Add(dtype=policy, name=f"{name}_mlp_add")([x, y])


# === Model ===


def gpt(
    variant: str | None = None,
    *,
    weights: Any = None,
    vocab_size: int | None = None,
    max_length: int | None = None,
    num_layers: int | None = None,
    hidden_dim: int | None = None,
    num_heads: int | None = None,
    mlp_dim: int | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    dtype: Any = None,
    name: str = "gpt",
) -> keras.Model:
    """GPT-2, a Transformer decoder: for each place of a text, the logits of the next token.

    Choose it to continue text with `bz.generate`, from a checkpoint, or to learn how language
    models work: a small one (`num_layers=4, hidden_dim=128, num_heads=4`) learns the letters of a
    book in minutes. Train it on token ids x and the same ids moved by one as y;
    `bz.compile` chooses the crossentropy on logits, per token.
    Paper: Radford et al. 2019, Table 2 (its counts of parameters are wrong; these are counted).

    Differs from the paper: dropout is off by default (`dropout=0.1, attention_dropout=0.1` for the
    paper's), and of the weights that add to the residual stream those of the attention start as
    large as all others.

    Args:
        variant: "small" (124 million parameters), "medium" (355), "large" (774), "xl" (1,558), or
            "micro" for tests. None takes the checkpoint's sizes, else "small".
        weights: None; a folder with a Hugging Face GPT-2 checkpoint (`config.json` and
            `model.safetensors`), a `.safetensors`, `.keras` or `.weights.h5` file,
            "hf://org/name", or a name from `bz.weights.list_weights()`.
        vocab_size: Number of token ids. This and the sizes below replace the variant's; with
            `weights` they must be the checkpoint's.
        max_length: Longest text in tokens.
        num_layers: Number of layers.
        hidden_dim: Width of the hidden states; a multiple of `num_heads`.
        num_heads: Heads of each attention.
        mlp_dim: Width inside the dense layers; 4 × `hidden_dim` where only that is given.
        dropout: Part of the hidden states set to 0 in training, in [0, 1).
        attention_dropout: The same for the attention's weights; above 0, Keras' attention takes a
            slower path, in inference too.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, length), int32 token ids in [0, vocab_size); length at most `max_length`.
    Output shape: (batch, length, vocab_size), float32 logits whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`, with the layers "token_ids", …, "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or a checkpoint doesn't fit.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.gpt("micro", vocab_size=30)
        >>> model.predict(np.array([[1, 2, 3]]), verbose=0).shape
        (1, 3, 30)
    """
    checkpoint = open_checkpoint(weights, family="gpt")
    if checkpoint is not None:
        checkpoint = gpt_names(checkpoint)
    numbers = describe_gpt(checkpoint)
    found = None if numbers is None else Sizes(**numbers)
    source = "" if checkpoint is None else checkpoint.source
    given = {
        "vocab_size": vocab_size,
        "max_length": max_length,
        "num_layers": num_layers,
        "hidden_dim": hidden_dim,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
    }
    sizes = choose_sizes(variant, VARIANTS, "small", found, source)
    sizes = override_sizes(sizes, found, given)
    dropout = check_number("dropout", dropout, minimum=0, below=1)
    attention = check_number("attention_dropout", attention_dropout, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)

    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    x, tokens = _embed(token_ids, sizes, dropout, policy)
    for index in range(sizes.num_layers):
        x = _layer(x, sizes, (dropout, attention), f"layer{index}", policy)
    x = _norm(x, sizes, "final_norm", policy)
    logits = in_float32(tokens(x, reverse=True), "predictions")
    model = keras.Model(token_ids, logits, name=name)
    if checkpoint is not None:
        load_weights(model, checkpoint, gpt_table(model), ignore=IGNORED)
    return model
