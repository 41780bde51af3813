"""ConvNeXt: the names of timm's tensors for those of our layers.

theirs                          ours
stem.0, stem.1                  stem_conv, stem_norm
stages.1.downsample.0, .1       stage2_downsample_norm, stage2_downsample_conv
stages.0.blocks.0.conv_dw       stage1_block0_conv
stages.0.blocks.0.norm          stage1_block0_norm
stages.0.blocks.0.mlp.fc1, fc2  stage1_block0_widen, stage1_block0_narrow
stages.0.blocks.0.gamma         stage1_block0_gamma
head.norm, head.fc              head_norm, predictions
"""

from __future__ import annotations

import re
from typing import Any

import keras

from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._load import Table
from bigzoo.weights._timm import Rows
from bigzoo.weights._transforms import Transform, conv, dense, depthwise, flat, input_conv, same

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(conv|norm|widen|narrow|gamma)")


def convnext_table(model: keras.Model) -> Table:
    """Path of each weight of `model` -> (name of the tensor, change of layout)."""
    table: dict[str, tuple[str, Transform]] = {
        **dict(_rows("stem_conv", "kernel", "stem.0", input_conv)),
        **dict(_rows("stem_norm", "gamma", "stem.1", same)),
        **dict(_rows("head_norm", "gamma", "head.norm", same)),
        **dict(_rows("predictions", "kernel", "head.fc", dense)),
    }
    for stage in range(2, 5):
        ours, theirs = f"stage{stage}_downsample", f"stages.{stage - 1}.downsample"
        table.update(_rows(f"{ours}_norm", "gamma", f"{theirs}.0", same))
        table.update(_rows(f"{ours}_conv", "kernel", f"{theirs}.1", conv))
    for layer in model.layers:
        found = _BLOCK.fullmatch(layer.name)
        if found is not None:
            stage_number, block, part = found.groups()
            start = f"stages.{int(stage_number) - 1}.blocks.{block}"
            table.update(_block_rows(layer.name, part, start))
    return table


def describe_convnext(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The sizes that the shapes of the tensors tell; {} if they don't look like a ConvNeXt."""
    tensors = checkpoint.tensors if checkpoint is not None else {}
    first = [tensors.get(f"stages.{stage}.blocks.0.conv_dw.weight", ()) for stage in range(4)]
    if not all(first):
        return {}
    depths = tuple(_count(tensors, stage) for stage in range(4))
    return {"depths": depths, "widths": tuple(shape[0] for shape in first)}


def _block_rows(layer: str, part: str, start: str) -> Rows:
    if part == "gamma":
        yield f"{layer}/embeddings", (f"{start}.gamma", flat)
    elif part == "conv":
        yield from _rows(layer, "kernel", f"{start}.conv_dw", depthwise)
    elif part == "norm":
        yield from _rows(layer, "gamma", f"{start}.norm", same)
    else:
        name = {"widen": "fc1", "narrow": "fc2"}[part]
        yield from _rows(layer, "kernel", f"{start}.mlp.{name}", dense)


def _rows(layer: str, kernel: str, tensor: str, transform: Transform) -> Rows:
    """A layer of two weights: a kernel or a gamma, and a bias or a beta."""
    yield f"{layer}/{kernel}", (f"{tensor}.weight", transform)
    yield f"{layer}/{'beta' if kernel == 'gamma' else 'bias'}", (f"{tensor}.bias", same)


def _count(tensors: Any, stage: int) -> int:
    depth = 0
    while f"stages.{stage}.blocks.{depth}.conv_dw.weight" in tensors:
        depth += 1
    return depth
