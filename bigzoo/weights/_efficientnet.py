"""EfficientNet checkpoints: timm's names, and those of the older efficientnet_pytorch package.

timm: `blocks.1.0.conv_pw.weight` is block 0 of stage 1. efficientnet_pytorch (L. Melas-Kyriazi,
https://github.com/lukemelas/EfficientNet-PyTorch) counts the blocks through:
`_blocks.1._expand_conv.weight`. Both hold the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras

from bigzoo._errors import message
from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._load import Table
from bigzoo.weights._transforms import Transform, conv, dense, depthwise, input_conv, same

# Layer of ours within a block -> module of timm. A block that doesn't widen has other numbers.
_WIDENING = {
    "expand_conv": "conv_pw",
    "expand_norm": "bn1",
    "depthwise_conv": "conv_dw",
    "depthwise_norm": "bn2",
    "squeeze_reduce": "se.conv_reduce",
    "squeeze_expand": "se.conv_expand",
    "project_conv": "conv_pwl",
    "project_norm": "bn3",
}
_PLAIN = {
    "depthwise_conv": "conv_dw",
    "depthwise_norm": "bn1",
    "squeeze_reduce": "se.conv_reduce",
    "squeeze_expand": "se.conv_expand",
    "project_conv": "conv_pw",
    "project_norm": "bn2",
}
_OUTSIDE = {
    "stem_conv": "conv_stem",
    "stem_norm": "bn1",
    "last_conv": "conv_head",
    "last_norm": "bn2",
    "predictions": "classifier",
}

# efficientnet_pytorch: module -> layer of ours.
_OLD_BLOCK = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise_conv",
    "_bn1": "depthwise_norm",
    "_se_reduce": "squeeze_reduce",
    "_se_expand": "squeeze_expand",
    "_project_conv": "project_conv",
    "_bn2": "project_norm",
}
_OLD_OUTSIDE = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_norm",
    "_conv_head": "last_conv",
    "_bn1": "last_norm",
    "_fc": "predictions",
}


class Shape(NamedTuple):
    """What tells one variant from another."""

    stem_width: int
    block_widths: tuple[int, ...]
    last_width: int
    lite: bool


def find_variant(checkpoint: Checkpoint, shapes: Mapping[str, Shape], given: str | None) -> str:
    """The variant in a checkpoint, which must be `given` if that isn't None."""
    found = shape_of(checkpoint)
    fitting = [variant for variant, shape in shapes.items() if shape == found]
    if not fitting:
        expected = f"a checkpoint of {', '.join(shapes)}"
        fix = f"It has {len(found.block_widths)} blocks, and {found.stem_width} first channels."
        raise ValueError(message("weights", checkpoint.source, expected, fix))
    if given not in (None, *fitting):
        expected = f"{fitting[0]!r}, which the checkpoint {checkpoint.source!r} holds"
        raise ValueError(message("variant", given, expected, "Or leave `variant` out."))
    return fitting[0]


def shape_of(checkpoint: Checkpoint) -> Shape:
    """Sizes of the network in a checkpoint, from the shapes of its tensors."""
    old = has_old_names(checkpoint)
    stem, last = ("_conv_stem", "_conv_head") if old else ("conv_stem", "conv_head")
    block = r"_blocks\.(\d+)\._project_conv" if old else r"blocks\.(\d+)\.(\d+)\.conv_pwl?"
    widths: dict[tuple[int, ...], int] = {}
    for name, shape in sorted(checkpoint.tensors.items()):
        if found := re.fullmatch(rf"{block}\.weight", name):
            # In a block that widens, conv_pw comes before conv_pwl, which is its end.
            widths[tuple(map(int, found.groups()))] = shape[0]
    first = checkpoint.tensors.get(f"{stem}.weight")
    end = checkpoint.tensors.get(f"{last}.weight")
    if first is None or end is None or not widths:
        expected = "an EfficientNet checkpoint with the names of timm's tensors"
        fix = f"It has no {stem}.weight, no {last}.weight or no blocks."
        raise ValueError(message("weights", checkpoint.source, expected, fix))
    lite = not any(".se." in name or "_se_reduce" in name for name in checkpoint.tensors)
    return Shape(first[0], tuple(widths[key] for key in sorted(widths)), end[0], lite)


def has_old_names(checkpoint: Checkpoint) -> bool:
    """Whether the tensors are named as in efficientnet_pytorch."""
    return "_conv_stem.weight" in checkpoint.tensors


def find_padding(checkpoint: Checkpoint) -> str:
    """ "same" or "symmetric": whether TensorFlow or PyTorch trained it, which no tensor tells."""
    if has_old_names(checkpoint):
        return "same"  # that package has TensorFlow's weights only
    architecture = checkpoint.config.get("architecture")
    if isinstance(architecture, str):
        return "same" if architecture.startswith("tf_") else "symmetric"
    expected = f"'same' or 'symmetric' for the checkpoint {checkpoint.source!r}"
    fix = (
        "It has no config.json that names its architecture. timm's tf_efficientnet_* are "
        "'same', its efficientnet_* 'symmetric'."
    )
    raise ValueError(message("padding", None, expected, fix))


def with_timm_names(checkpoint: Checkpoint, depths: Sequence[int]) -> Checkpoint:
    """The checkpoint under timm's names; `depths`: how many blocks each stage has."""
    if not has_old_names(checkpoint):
        return checkpoint
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    widening = {
        int(found[1])
        for name in checkpoint.tensors
        if (found := re.match(r"_blocks\.(\d+)\._expand_conv\.", name))
    }

    def rename(name: str) -> str:
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, module, kind = int(found[1]), found[2], found[3]
            names = _WIDENING if number in widening else _PLAIN
            layer = _OLD_BLOCK.get(module, "")
            if number < len(places) and layer in names:
                stage, block = places[number]
                return f"blocks.{stage}.{block}.{names[layer]}.{kind}"
        module, _, kind = name.rpartition(".")
        return f"{_OUTSIDE[_OLD_OUTSIDE[module]]}.{kind}" if module in _OLD_OUTSIDE else name

    return checkpoint.renamed(rename)


def efficientnet_table(model: keras.Model) -> Table:
    """Path of each weight -> (tensor of timm, transform)."""
    names = {layer.name for layer in model.layers}
    table: dict[str, tuple[str, Transform]] = {}
    for weight in model.weights:
        layer, _, kind = weight.path.rpartition("/")
        tensor = _module(layer, names)
        table[weight.path] = _TENSORS[kind].format(tensor), _transform(layer, kind)
    return table


_TENSORS = {
    "kernel": "{}.weight",
    "bias": "{}.bias",
    "gamma": "{}.weight",
    "beta": "{}.bias",
    "moving_mean": "{}.running_mean",
    "moving_variance": "{}.running_var",
}


def _module(layer: str, names: set[str]) -> str:
    found = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer)
    if not found:
        return _OUTSIDE[layer]
    stage, block, part = int(found[1]), int(found[2]), found[3]
    widening = f"stage{stage}_block{block}_expand_conv" in names
    return f"blocks.{stage - 1}.{block}.{(_WIDENING if widening else _PLAIN)[part]}"


def _transform(layer: str, kind: str) -> Transform:
    if kind != "kernel":
        return same
    if layer == "stem_conv":
        return input_conv
    if layer == "predictions":
        return dense
    return depthwise if layer.endswith("depthwise_conv") else conv
