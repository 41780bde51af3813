"""Map of names for GPT-2 checkpoints of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._text_config import check_config, read_sizes
from bigzoo.weights._transforms import Shape, Transform, same

# Buffers, and the table of words a second time.
IGNORED = ("h.*.attn.bias", "h.*.attn.masked_bias", "lm_head.weight")
_CONFIG = {
    "num_layers": "n_layer",
    "hidden_dim": "n_embd",
    "num_heads": "n_head",
    "mlp_dim": "n_inner",
    "vocab_size": "vocab_size",
    "max_length": "n_positions",
    "epsilon": "layer_norm_epsilon",
}
_MUST_BE = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
    "add_cross_attention": (False,),
}


def gpt_names(checkpoint: Checkpoint) -> Checkpoint:
    """The same tensors without the prefix "transformer."."""
    return checkpoint.renamed(lambda name: name.removeprefix("transformer."))


def describe_gpt(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    """Sizes by our names, from config.json; None where there is none."""
    if checkpoint is None or not checkpoint.config:
        return None
    config = {"layer_norm_epsilon": 1e-5, "n_positions": 1024, **checkpoint.config}
    check_config(config, _MUST_BE, checkpoint.source)
    if config.get("n_inner") is None and isinstance(config.get("n_embd"), int):
        config["n_inner"] = 4 * config["n_embd"]
    return read_sizes(config, _CONFIG, checkpoint.source)


def gpt_table(model: keras.Model) -> dict[str, tuple[str, Transform]]:
    """Path of each weight of `model` -> (name of its tensor, change of layout).

    GPT-2's dense layers are stored as (in, out), which is Keras' own order; query, key and value
    lie side by side in one tensor.
    """
    table: dict[str, tuple[str, Transform]] = {
        "token_embedding/embeddings": ("wte.weight", same),
        "position_embedding/embeddings": ("wpe.weight", same),
        **_norm("final_norm", "ln_f"),
    }
    attentions = [x for x in model.layers if isinstance(x, keras.layers.MultiHeadAttention)]
    for index in range(len(attentions)):
        table |= _layer(f"layer{index}", f"h.{index}")
    return table


def _layer(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    table = {
        **_norm(f"{ours}_attention_norm", f"{theirs}.ln_1"),
        f"{ours}_attention/attention_output/kernel": (f"{theirs}.attn.c_proj.weight", _join),
        f"{ours}_attention/attention_output/bias": (f"{theirs}.attn.c_proj.bias", same),
        **_norm(f"{ours}_mlp_norm", f"{theirs}.ln_2"),
        f"{ours}_mlp_up/kernel": (f"{theirs}.mlp.c_fc.weight", same),
        f"{ours}_mlp_up/bias": (f"{theirs}.mlp.c_fc.bias", same),
        f"{ours}_mlp_down/kernel": (f"{theirs}.mlp.c_proj.weight", same),
        f"{ours}_mlp_down/bias": (f"{theirs}.mlp.c_proj.bias", same),
    }
    for place, part in enumerate(("query", "key", "value")):
        for weight, tensor in (("kernel", "weight"), ("bias", "bias")):
            path = f"{ours}_attention/{part}/{weight}"
            table[path] = (f"{theirs}.attn.c_attn.{tensor}", _third(place))
    return table


def _third(place: int) -> Transform:
    """(…, 3 * H * D) -> (…, H, D): the query's, the key's or the value's part."""

    def split(array: np.ndarray, target: Shape) -> np.ndarray:
        return np.split(array, 3, axis=-1)[place].reshape(target)

    return split


def _join(array: np.ndarray, target: Shape) -> np.ndarray:
    """(H * D, out) -> (H, D, out)."""
    return array.reshape(target)


def _norm(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    return {f"{ours}/gamma": (f"{theirs}.weight", same), f"{ours}/beta": (f"{theirs}.bias", same)}
