"""Raw pixels 0-255 to what a network was trained on: the layer "preprocess"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import layers

from bigzoo.weights import Checkpoint

Numbers = tuple[float, ...]

# (mean, standard deviation) per channel, of pixels divided by 255.
IMAGENET: tuple[Numbers, Numbers] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF: tuple[Numbers, Numbers] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # pixels from -1 to 1


def scale_pixels(image: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """(batch, h, w, c), 0-255 -> (pixel / 255 - mean) / std, in float32 under any policy.

    With another number of channels than `mean` has, all get the average of its numbers.
    """
    channels = image.shape[-1]
    if channels != len(mean):
        mean = (sum(mean) / len(mean),) * channels
        std = (sum(std) / len(std),) * channels
    scale = [1 / (255 * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    if len(set(scale)) == len(set(offset)) == 1:
        layer = layers.Rescaling(scale[0], offset[0], dtype="float32", name="preprocess")
    else:
        # Shape (1, 1, channels): Keras would turn a plain list by its global image data format.
        layer = layers.Rescaling([[scale]], [[offset]], dtype="float32", name="preprocess")
    return layer(image)


def pixel_statistics(
    checkpoint: Checkpoint | None, default: tuple[Numbers, Numbers]
) -> tuple[Numbers, Numbers]:
    """(mean, standard deviation) that a checkpoint was trained with; `default` if it isn't said.

    timm writes them into config.json, under "pretrained_cfg".
    """
    if checkpoint is None:
        return default
    said = checkpoint.config.get("pretrained_cfg", checkpoint.config)
    if not isinstance(said, Mapping):
        return default
    mean = _numbers(said.get("mean"), default[0], "mean", checkpoint)
    std = _numbers(said.get("std"), default[1], "std", checkpoint)
    if len(mean) != len(std) or min(std) <= 0:
        text = f"mean {mean} and std {std}; expected as many of each, and std above 0"
        raise ValueError(f"config.json of {checkpoint.source!r} is damaged: it has {text}.")
    return mean, std


def _numbers(value: Any, default: Numbers, name: str, checkpoint: Checkpoint) -> Numbers:
    if value is None:
        return default
    good = isinstance(value, (list, tuple)) and value
    if not good or not all(type(number) in (int, float) for number in value):
        text = f"{name!r} is {value!r}; expected a number per channel"
        raise ValueError(f"config.json of {checkpoint.source!r} is damaged: {text}.")
    return tuple(float(number) for number in value)
