"""BERT: a Transformer encoder of text, for classes, tags, gaps and sentence embeddings.

References:
    Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3 ("base" and "large").
    Turc et al. 2019, https://arxiv.org/abs/1908.08962, Table 1 ("tiny" to "medium").
    Wang et al. 2020, https://arxiv.org/abs/2002.10957 (MiniLM); "minilm" is the 6-layer, 384-wide
        student that sentence-transformers' all-MiniLM-L6-v2 is made of.
    Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084 (mean pooling to embeddings).
    The names of tensors in checkpoints: transformers, models/bert/modeling_bert.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import check_bool, check_number
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._bert_heads import Plan, plan_bert
from bigzoo.models._text import choose_sizes, in_float32, normal, override_sizes, positions
from bigzoo.weights import load_weights, open_checkpoint
from bigzoo.weights._bert import bert_names, bert_table, describe_bert

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One variant; `mlp_dim` is the width inside each layer's two dense layers."""

    num_layers: int
    hidden_dim: int
    num_heads: int
    mlp_dim: int
    vocab_size: int = 30_522
    max_length: int = 512
    num_segments: int = 2
    epsilon: float = 1e-12


VARIANTS: dict[str, Sizes] = {
    "tiny": Sizes(num_layers=2, hidden_dim=128, num_heads=2, mlp_dim=512),
    "mini": Sizes(num_layers=4, hidden_dim=256, num_heads=4, mlp_dim=1024),
    "small": Sizes(num_layers=4, hidden_dim=512, num_heads=8, mlp_dim=2048),
    "medium": Sizes(num_layers=8, hidden_dim=512, num_heads=8, mlp_dim=2048),
    "minilm": Sizes(num_layers=6, hidden_dim=384, num_heads=12, mlp_dim=1536),
    "base": Sizes(num_layers=12, hidden_dim=768, num_heads=12, mlp_dim=3072),
    "large": Sizes(num_layers=24, hidden_dim=1024, num_heads=16, mlp_dim=4096),
    # For tests: every kind of layer in a network that builds in a moment.
    "micro": Sizes(2, 16, 2, 32, vocab_size=50, max_length=24),
}

# === Layers ===


def _embed(token_ids: Any, segment_ids: Any, sizes: Sizes, dropout: float, policy: Any) -> Any:
    """(batch, length) twice -> (batch, length, hidden_dim), and the table of tokens."""
    dim = sizes.hidden_dim
    # Reversible: the masked-LM head multiplies by the same table.
    tokens = layers.ReversibleEmbedding(
        sizes.vocab_size,
        dim,
        embeddings_initializer=normal(),
        reverse_dtype="float32",
        dtype=policy,
        name="token_embedding",
    )
    table = {"embeddings_initializer": normal(), "dtype": policy}
    place = layers.Embedding(sizes.max_length, dim, name="position_embedding", **table)
    table = {"embeddings_initializer": normal(), "dtype": policy}
    segment = layers.Embedding(sizes.num_segments, dim, name="segment_embedding", **table)
    parts = [tokens(token_ids), segment(segment_ids), place(positions(token_ids))]
    x = layers.Add(dtype=policy, name="embedding_add")(parts)
    x = _norm(x, sizes, "embedding_norm", policy)
    return _drop(x, dropout, "embedding_dropout", policy), tokens


def _norm(x: Any, sizes: Sizes, name: str, policy: Any) -> Any:
    return layers.LayerNormalization(epsilon=sizes.epsilon, dtype=policy, name=name)(x)


def _drop(x: Any, rate: float, name: str, policy: Any) -> Any:
    return layers.Dropout(rate, dtype=policy, name=name)(x) if rate else x


def _dense(x: Any, units: int, activation: str | None, name: str, policy: Any) -> Any:
    return layers.Dense(
        units, activation=activation, kernel_initializer=normal(), dtype=policy, name=name
    )(x)


def _layer(
    x: Any, mask: Any, sizes: Sizes, rates: tuple[float, float], name: str, policy: Any
) -> Any:
    """(batch, length, hidden_dim) -> the same shape; normalised after each addition."""
    dropout, attention_dropout = rates
    y = layers.MultiHeadAttention(
        sizes.num_heads,
        sizes.hidden_dim // sizes.num_heads,
        dropout=attention_dropout,
        kernel_initializer=normal(),
        dtype=policy,
        name=f"{name}_attention",
    )(x, x, attention_mask=mask)
    y = _drop(y, dropout, f"{name}_attention_dropout", policy)
    x = layers.Add(dtype=policy, name=f"{name}_attention_add")([x, y])
    x = _norm(x, sizes, f"{name}_attention_norm", policy)
    y = _dense(x, sizes.mlp_dim, None, f"{name}_mlp_up", policy)
    # Keras' "gelu" is the exact one, by the error function, as BERT's. In float32: on processors
    # the error function of 16-bit numbers takes longer.
    y = layers.Activation("gelu", dtype="float32", name=f"{name}_mlp_gelu")(y)
    y = _dense(y, sizes.hidden_dim, None, f"{name}_mlp_down", policy)
    y = _drop(y, dropout, f"{name}_mlp_dropout", policy)
    x = layers.Add(dtype=policy, name=f"{name}_mlp_add")([x, y])
    return _norm(x, sizes, f"{name}_mlp_norm", policy)


def _masked_lm(x: Any, tokens: Any, sizes: Sizes, policy: Any) -> Any:
    """(batch, length, hidden_dim) -> (batch, length, vocab_size), logits."""
    x = _dense(x, sizes.hidden_dim, "gelu", "mlm_dense", policy)
    x = _norm(x, sizes, "mlm_norm", policy)
    # One bias for each word: the only row of a table, looked up for any input.
    row = ops.zeros_like(x[:1, :1, 0], dtype="int32")  # (1, 1)
    bias = layers.Embedding(
        1, sizes.vocab_size, embeddings_initializer="zeros", dtype="float32", name="mlm_bias"
    )(row)
    logits = tokens(x, reverse=True)
    return layers.Add(dtype="float32", name="predictions")([logits, bias])


def _outputs(
    x: Any, padding_mask: Any, tokens: Any, sizes: Sizes, plan: Plan, dropout: float, policy: Any
) -> Any:
    """What the head makes of the hidden states (batch, length, hidden_dim)."""
    if plan.head == "masked_lm":
        return _masked_lm(x, tokens, sizes, policy)
    if plan.head == "embedding":
        x = layers.GlobalAveragePooling1D(
            data_format="channels_last", dtype="float32", name="mean_pool"
        )(x, mask=padding_mask)
        if plan.normalize:
            return layers.UnitNormalization(dtype="float32", name="embedding")(x)
        return in_float32(x, "embedding")
    if plan.head == "classification":
        last = "float32" if not plan.layer.units else policy
        x = _dense(x[:, 0], sizes.hidden_dim, "tanh", "pooler", last)
        if not plan.layer.units:
            return x
    elif plan.head is None or not plan.layer.units:
        return in_float32(x, "hidden_states")
    return plan.layer(_drop(x, dropout, "dropout", policy))


# === Model ===


def bert(
    variant: str | None = None,
    *,
    head: str | None = "auto",
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = None,
    vocab_size: int | None = None,
    max_length: int | None = None,
    num_layers: int | None = None,
    hidden_dim: int | None = None,
    num_heads: int | None = None,
    mlp_dim: int | None = None,
    normalize: bool = True,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    dtype: Any = None,
    name: str = "bert",
) -> keras.Model:
    """BERT, a Transformer encoder of text.

    Choose it for text classification, tagging, filling gaps and sentence embeddings, from a
    checkpoint: weights of 11 million sentences can't be had from a small set of one's own.
    Paper: Devlin et al. 2019, https://arxiv.org/abs/1810.04805.

    Differs from the paper: the attention's own weights have no dropout by default
    (`attention_dropout=0.1` for the paper's), since with it Keras and its backends take a slower
    path, in inference too.

    | head | output shape | what it is |
    |---|---|---|
    | "classification" | (batch, num_classes) | a dense layer on the pooled first token |
    | "token" | (batch, length, num_classes) | a dense layer on each token |
    | "masked_lm" | (batch, length, vocab_size) | logits of words, by the table of tokens |
    | "embedding" | (batch, hidden_dim) | mean over the tokens, as sentence-transformers does |
    | None | (batch, length, hidden_dim) | hidden states |
    | "auto" | | what the checkpoint has; without one, "classification" |

    With `weights`, "auto" takes the head that the checkpoint was saved with: a classifier, tagger
    or masked-LM head is loaded and never dropped; a folder of sentence-transformers gives
    "embedding"; a checkpoint without any head gives hidden states. `num_classes` or `num_outputs`
    beside a checkpoint without a classifier asks for "classification", with a new last layer.

    Args:
        variant: "tiny", "mini", "small", "medium", "minilm", "base", "large", or "micro" for
            tests. None takes the checkpoint's sizes, else "base".
        head: One of the table above.
        num_classes: Classes of the heads "classification" and "token", at least 2. None takes the
            checkpoint's number, else 2; 0 leaves the last layer out: the pooled features, or
            hidden states for "token". A number other than the checkpoint's makes a new last layer.
        num_outputs: Units of a linear last layer in place of classes, for regression.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes; above, one
            probability per label) or None for logits.
        weights: None; a folder with a Hugging Face BERT checkpoint (`config.json` and
            `model.safetensors`), a `.safetensors`, `.keras` or `.weights.h5` file,
            "hf://org/name", or a name from `bz.weights.list_weights()`.
        vocab_size: Number of token ids; 30,522 by default. This and the sizes below replace the
            variant's; with `weights` they must be the checkpoint's.
        max_length: Longest text in tokens; 512 by default.
        num_layers: Number of layers.
        hidden_dim: Width of the hidden states; a multiple of `num_heads`.
        num_heads: Heads of each attention.
        mlp_dim: Width inside the dense layers; 4 × `hidden_dim` where only that is given.
        normalize: Whether the head "embedding" gives vectors of length 1.
        dropout: Part of the hidden states set to 0 in training, in [0, 1).
        attention_dropout: The same for the attention's weights.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: a dict of three int32 arrays (batch, length), as the tokenizer gives them:
        "token_ids"; "padding_mask", 1 for a token and 0 for padding; "segment_ids", 0 for the
        first text and 1 for the second of a pair. Length at most `max_length`.
    Output shape: by `head`, float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        TypeError, ValueError: if an argument is out of its range, or a checkpoint doesn't fit.
        FileNotFoundError: if there is no such checkpoint.

    Example:
        >>> model = bz.models.bert("micro", num_classes=3)
        >>> ids = np.array([[2, 7, 9, 3, 0]], "int32")
        >>> x = {"token_ids": ids, "padding_mask": (ids > 0) * 1, "segment_ids": ids * 0}
        >>> model.predict(x, verbose=0).shape
        (1, 3)
        >>> bz.models.bert("micro", head="embedding").output_shape
        (None, 16)
    """
    checkpoint = open_checkpoint(weights, family="bert")
    if checkpoint is not None:
        checkpoint = bert_names(checkpoint)
    numbers = describe_bert(checkpoint)
    found = None if numbers is None else Sizes(**numbers)
    source = "" if checkpoint is None else checkpoint.source
    sizes = choose_sizes(variant, VARIANTS, "base", found, source)
    given = {
        "vocab_size": vocab_size,
        "max_length": max_length,
        "num_layers": num_layers,
        "hidden_dim": hidden_dim,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
    }
    sizes = override_sizes(sizes, found, given)
    normalize = check_bool("normalize", normalize)
    plan = plan_bert(head, num_classes, num_outputs, classifier_activation, checkpoint, normalize)
    dropout = check_number("dropout", dropout, minimum=0, below=1)
    attention = check_number("attention_dropout", attention_dropout, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)

    inputs = {
        key: keras.Input((None,), dtype="int32", name=key)
        for key in ("token_ids", "padding_mask", "segment_ids")
    }
    mask = ops.cast(inputs["padding_mask"], "bool")[:, None, :]  # (batch, 1, length)
    x, tokens = _embed(inputs["token_ids"], inputs["segment_ids"], sizes, dropout, policy)
    for index in range(sizes.num_layers):
        x = _layer(x, mask, sizes, (dropout, attention), f"layer{index}", policy)
    outputs = _outputs(x, inputs["padding_mask"], tokens, sizes, plan, dropout, policy)
    model = keras.Model(inputs, outputs, name=name)
    if checkpoint is not None:
        load_weights(model, checkpoint, bert_table(model), ignore=plan.ignore, skip=plan.skip)
    return model
