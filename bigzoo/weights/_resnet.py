"""ResNet: the names of timm's and torchvision's tensors for those of ours.

theirs                        ours
conv1, bn1                    stem_conv, stem_norm
layer1.0.conv2, .bn2          stage1_block0_2_conv, stage1_block0_2_norm
layer2.0.downsample.0, .1     stage2_block0_shortcut_conv, stage2_block0_shortcut_norm
fc                            predictions
"""

from __future__ import annotations

import re
from typing import Any

import keras

from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._load import Table
from bigzoo.weights._timm import norm_rows
from bigzoo.weights._transforms import Transform, conv, dense, input_conv, same

_LAYER = re.compile(r"stage(\d+)_block(\d+)_(\d+|shortcut)_(conv|norm)")


def resnet_table(model: keras.Model) -> Table:
    """Path of each weight of `model` -> (name of the tensor, change of layout)."""
    table: dict[str, tuple[str, Transform]] = {
        "stem_conv/kernel": ("conv1.weight", input_conv),
        "predictions/kernel": ("fc.weight", dense),
        "predictions/bias": ("fc.bias", same),
        **dict(norm_rows("stem_norm", "bn1")),
    }
    for layer in model.layers:
        found = _LAYER.fullmatch(layer.name)
        if found is None:
            continue
        stage, block, part, kind = found.groups()
        start = f"layer{stage}.{block}"
        if kind == "conv":
            tensor = f"{start}.downsample.0" if part == "shortcut" else f"{start}.conv{part}"
            table[f"{layer.name}/kernel"] = f"{tensor}.weight", conv
        else:
            tensor = f"{start}.downsample.1" if part == "shortcut" else f"{start}.bn{part}"
            table.update(norm_rows(layer.name, tensor))
    return table


def describe_resnet(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The sizes that the shapes of the tensors tell; {} if they don't look like a ResNet."""
    tensors = checkpoint.tensors if checkpoint is not None else {}
    stages = [f"layer{stage}" for stage in range(1, 5)]
    first = [tensors.get(f"{stage}.0.conv1.weight", ()) for stage in stages]
    stem = tensors.get("conv1.weight", ())
    if not stem or not all(first):
        return {}
    block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
    depths = tuple(_count(tensors, stage) for stage in stages)
    widths = tuple(shape[0] for shape in first)
    return {"block": block, "depths": depths, "widths": widths, "stem_width": stem[0]}


def _count(tensors: Any, stage: str) -> int:
    depth = 0
    while f"{stage}.{depth}.conv1.weight" in tensors:
        depth += 1
    return depth
