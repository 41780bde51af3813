"""Vision Transformer: the names of timm's tensors for those of ours, and position tables resized.

theirs                              ours
patch_embed.proj                    patch_embedding
cls_token, pos_embed                class_token, position_embedding
blocks.0.norm1, .norm2              layer0_attention_norm, layer0_mlp_norm
blocks.0.attn.qkv (all in one)      layer0_attention/query, /key, /value
blocks.0.attn.proj                  layer0_attention/attention_output
blocks.0.mlp.fc1, .fc2              layer0_mlp_widen, layer0_mlp_narrow
norm, head                          norm, predictions
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._load import Table
from bigzoo.weights._transforms import (
    Shape,
    Transform,
    dense,
    flat,
    heads_bias,
    heads_in,
    heads_out,
    input_conv,
    same,
)

_HEAD_DIM = 64  # of all published sizes


def describe_vit(checkpoint: Checkpoint | None) -> dict[str, int]:
    """The sizes that the shapes of the tensors tell; {} for none in the names of timm."""
    tensors = checkpoint.tensors if checkpoint is not None else {}
    patch = tensors.get("patch_embed.proj.weight", ())
    widen = tensors.get("blocks.0.mlp.fc1.weight", ())
    if checkpoint is None or len(patch) != 4 or len(widen) != 2:
        return {}
    pooling = checkpoint.config.get("global_pool") or "token"
    if pooling != "token":
        expected = "a checkpoint that classifies by its class token"
        fix = f"Its config.json has global_pool={pooling!r}."
        raise ValueError(message("weights", checkpoint.source, expected, fix))
    names = (re.match(r"blocks\.(\d+)\.", name) for name in tensors)
    depth = 1 + max(int(found[1]) for found in names if found)
    return {
        "patch_size": patch[2],
        "num_layers": depth,
        "num_heads": _num_heads(checkpoint, patch[0]),
        "hidden_dim": patch[0],
        "mlp_dim": widen[0],
    }


def _num_heads(checkpoint: Checkpoint, hidden_dim: int) -> int:
    """From config.json, since no tensor tells; else as many as all published sizes have."""
    arguments = checkpoint.config.get("model_args")
    said = arguments.get("num_heads") if isinstance(arguments, Mapping) else None
    if type(said) is int and said > 0 and hidden_dim % said == 0:
        return said
    if said is None and hidden_dim % _HEAD_DIM == 0:
        return hidden_dim // _HEAD_DIM
    expected = f"the number of heads, a divisor of {hidden_dim}, in its config.json"
    fix = 'Add {"model_args": {"num_heads": ...}}.'
    raise ValueError(message("num_heads", said, f"{expected} ({checkpoint.source!r})", fix))


def vit_table(model: keras.Model) -> Table:
    """Path of each weight of `model` -> (name of the tensor, change of layout)."""
    patches = model.get_layer("patch_embedding").output.shape
    table: dict[str, tuple[str, Transform]] = {
        "patch_embedding/kernel": ("patch_embed.proj.weight", input_conv),
        "patch_embedding/bias": ("patch_embed.proj.bias", same),
        "class_token/embeddings": ("cls_token", flat),
        "position_embedding/embeddings": ("pos_embed", _positions((patches[1], patches[2]))),
        "norm/gamma": ("norm.weight", same),
        "norm/beta": ("norm.bias", same),
        "predictions/kernel": ("head.weight", dense),
        "predictions/bias": ("head.bias", same),
    }
    number = 0
    while any(layer.name == f"layer{number}_attention" for layer in model.layers):
        table |= _block_rows(f"layer{number}", f"blocks.{number}")
        number += 1
    return table


def _block_rows(ours: str, theirs: str) -> dict[str, tuple[str, Transform]]:
    rows: dict[str, tuple[str, Transform]] = {}
    for layer, tensor in (("attention_norm", "norm1"), ("mlp_norm", "norm2")):
        rows[f"{ours}_{layer}/gamma"] = f"{theirs}.{tensor}.weight", same
        rows[f"{ours}_{layer}/beta"] = f"{theirs}.{tensor}.bias", same
    for layer, tensor in (("mlp_widen", "mlp.fc1"), ("mlp_narrow", "mlp.fc2")):
        rows[f"{ours}_{layer}/kernel"] = f"{theirs}.{tensor}.weight", dense
        rows[f"{ours}_{layer}/bias"] = f"{theirs}.{tensor}.bias", same
    for part, name in enumerate(("query", "key", "value")):
        start = f"{ours}_attention/{name}"
        rows[f"{start}/kernel"] = f"{theirs}.attn.qkv.weight", _third(part, heads_in)
        rows[f"{start}/bias"] = f"{theirs}.attn.qkv.bias", _third(part, heads_bias)
    start = f"{ours}_attention/attention_output"
    rows[f"{start}/kernel"] = f"{theirs}.attn.proj.weight", heads_out
    rows[f"{start}/bias"] = f"{theirs}.attn.proj.bias", same
    return rows


def _third(part: int, transform: Transform) -> Transform:
    """timm computes query, key and value by one matrix: their rows one after the other."""

    def take(array: np.ndarray, target: Shape) -> np.ndarray:
        return transform(np.split(array, 3)[part], target)

    return take


# --- position embeddings ---------------------------------------------------------------------


def _positions(grid: tuple[int, int]) -> Transform:
    """(1, 1 + n, dim) -> (1 + h * w, dim): the class token's row, then the grid's, row by row."""

    def fit(array: np.ndarray, target: Shape) -> np.ndarray:
        rows = array[0]
        side = math.isqrt(len(rows) - 1)
        if side * side != len(rows) - 1:
            raise ValueError("the patches of the checkpoint are no square")
        table = rows[1:].reshape(side, side, -1)
        resized = resize_grid(table, grid).reshape(-1, rows.shape[1])
        return np.concatenate([rows[:1], resized])

    return fit


def resize_grid(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(h, w, dim) -> (*grid, dim), bicubic with antialiasing, as timm resizes position tables."""
    for axis, size in enumerate(grid):
        if table.shape[axis] != size:
            weights = _bicubic(table.shape[axis], size)
            table = np.moveaxis(np.tensordot(weights, table, axes=(1, axis)), 0, axis)
    return table.astype("float32")


def _bicubic(old: int, new: int) -> np.ndarray:
    """(new, old): how much each old point adds to each new one; Keys' cubic with a = -0.5.

    Where the grid shrinks, the kernel widens by as much, so that no point is passed over.
    """
    scale = old / new
    width = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale  # borders of the grid coincide, not its points
    distance = np.abs((np.arange(old) + 0.5)[None] - centers[:, None]) / width
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
