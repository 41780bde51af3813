"""Map of names for BERT checkpoints of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import keras

from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._text_config import check_config, read_sizes
from bigzoo.weights._transforms import Transform, dense, flat, heads_bias, heads_in, heads_out, same

CLASSIFIER = "classifier"
POOLER = "pooler"
MASKED_LM = "cls.predictions."
# Buffers, the head for "is this the next sentence", and the table of words a second time.
ALWAYS_IGNORED = (
    "embeddings.position_ids",
    "cls.seq_relationship.*",
    "cls.predictions.decoder.*",
)
_CONFIG = {
    "num_layers": "num_hidden_layers",
    "hidden_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "epsilon": "layer_norm_eps",
}
_DEFAULTS = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "max_position_embeddings": 512}
_MUST_BE = {"hidden_act": ("gelu", "gelu_python"), "position_embedding_type": ("absolute",)}


def bert_names(checkpoint: Checkpoint) -> Checkpoint:
    """The same tensors without the prefix "bert." and with the newer names of normalisations."""
    return checkpoint.renamed(_rename)


def _rename(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def describe_bert(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    """Sizes by our names, from config.json; None where there is none."""
    if checkpoint is None or not checkpoint.config:
        return None
    config = {**_DEFAULTS, **checkpoint.config}
    check_config(config, _MUST_BE, checkpoint.source)
    return read_sizes(config, _CONFIG, checkpoint.source)


def bert_table(model: keras.Model) -> dict[str, tuple[str, Transform]]:
    """Path of each weight of `model` -> (name of its tensor, change of layout)."""
    table: dict[str, tuple[str, Transform]] = {
        "token_embedding/embeddings": ("embeddings.word_embeddings.weight", same),
        "position_embedding/embeddings": ("embeddings.position_embeddings.weight", same),
        "segment_embedding/embeddings": ("embeddings.token_type_embeddings.weight", same),
        "mlm_bias/embeddings": ("cls.predictions.bias", flat),
        **_norm("embedding_norm", "embeddings.LayerNorm"),
        **_dense("pooler", "pooler.dense"),
        **_dense("predictions", CLASSIFIER),
        **_dense("mlm_dense", "cls.predictions.transform.dense"),
        **_norm("mlm_norm", "cls.predictions.transform.LayerNorm"),
    }
    attentions = [x for x in model.layers if isinstance(x, keras.layers.MultiHeadAttention)]
    for index in range(len(attentions)):
        table |= _layer(f"layer{index}", f"encoder.layer.{index}")
    return table


def _layer(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    table = {
        f"{ours}_attention/attention_output/kernel": (
            f"{theirs}.attention.output.dense.weight",
            heads_out,
        ),
        f"{ours}_attention/attention_output/bias": (f"{theirs}.attention.output.dense.bias", same),
        **_norm(f"{ours}_attention_norm", f"{theirs}.attention.output.LayerNorm"),
        **_dense(f"{ours}_mlp_up", f"{theirs}.intermediate.dense"),
        **_dense(f"{ours}_mlp_down", f"{theirs}.output.dense"),
        **_norm(f"{ours}_mlp_norm", f"{theirs}.output.LayerNorm"),
    }
    for part in ("query", "key", "value"):
        name = f"{theirs}.attention.self.{part}"
        table[f"{ours}_attention/{part}/kernel"] = (f"{name}.weight", heads_in)
        table[f"{ours}_attention/{part}/bias"] = (f"{name}.bias", heads_bias)
    return table


def _dense(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    return {f"{ours}/kernel": (f"{theirs}.weight", dense), f"{ours}/bias": (f"{theirs}.bias", same)}


def _norm(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    return {f"{ours}/gamma": (f"{theirs}.weight", same), f"{ours}/beta": (f"{theirs}.bias", same)}
