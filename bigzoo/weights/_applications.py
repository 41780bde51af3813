"""Weights of keras.applications: from a local file, or as Keras downloads them.

The files name their groups by class and number ("layers/conv2d_3"), and numbers in layers' own
names go on counting within a process ("conv2d_97"). So layers are paired by kind and order: the
third convolution in the file belongs to the third of the model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from bigzoo._errors import shorten
from bigzoo._hdf5 import check_hdf5, is_legacy_model
from bigzoo._optional import require
from bigzoo.weights._native import _weights_h5
from bigzoo.weights._transforms import adapt_channels

# Classes around a layer and its own, such as ("sequential", "conv2d").
Kind = tuple[str, ...]

_GROUP = re.compile(r"layers/(.+)/vars/(\d+)")
_IMAGENET_STD = (0.229, 0.224, 0.225)
_MOST_LINES = 6
# No application has more layers with weights than this behind its convolutions (VGG: three).
_LARGEST_HEAD = 3


class Saved(NamedTuple):
    """One layer's weights. `kind` is () in the old format, which keeps the model's order."""

    kind: Kind
    arrays: list[np.ndarray]


class Slot(NamedTuple):
    """A layer that weights are wanted for."""

    kind: Kind
    layer: Any


def slots_of(model: keras.Model) -> list[Slot]:
    """The layers of `model` that have weights, in its order, those of inner Sequentials too."""
    return list(_slots(model.layers, ()))


def _slots(layers: Sequence[Any], around: Kind) -> Iterator[Slot]:
    for layer in layers:
        kind = (*around, type(layer).__name__.lower())
        if isinstance(layer, keras.Sequential):
            yield from _slots(layer.layers, kind)
        elif layer.weights:
            yield Slot(kind, layer)


def saved_in_model(model: keras.Model) -> list[Saved]:
    """What `read_saved` gives, from a model instead of a file."""
    return [Saved(slot.kind, slot.layer.get_weights()) for slot in slots_of(model)]


def read_saved(path: Path, source: str) -> list[Saved]:
    """The weights in a `.keras`, `.weights.h5` or old `.h5` file, layer by layer.

    Args:
        path: The file.
        source: What the user gave, for messages.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    with _weights_h5(path) as file:
        shapes = check_hdf5(file, file.stat().st_size, repr(source))
        if is_legacy_model(file):
            fix = "Save its weights alone with model.save_weights('name.weights.h5')."
            raise ValueError(f"`weights` {source!r} is a whole model in the old format. {fix}")
        h5py: Any = require("h5py")
        with h5py.File(file, "r") as opened:
            if "layer_names" in opened.attrs:
                return _read_old(opened, shapes, source)
            return _read_new(opened, shapes)


def _read_new(opened: Any, shapes: dict[str, Any]) -> list[Saved]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in sorted(shapes, key=_natural):
        found = _GROUP.fullmatch(path)
        if found and "seed_generator" not in path:
            groups[found[1]].append(path)
    saved = []
    for group, paths in groups.items():
        parts = [part for part in group.split("/") if part != "layers"]
        kind = tuple(re.sub(r"_\d+$", "", part).replace("_", "") for part in parts)
        saved.append(Saved(kind, [np.asarray(opened[path]) for path in paths]))
    return saved


def _read_old(opened: Any, shapes: dict[str, Any], source: str) -> list[Saved]:
    saved = []
    for layer in _texts(opened.attrs["layer_names"]):
        names = _texts(opened[layer].attrs.get("weight_names", ())) if layer in opened else []
        paths = [f"{layer}/{name}" for name in names]
        if any(path not in shapes for path in paths):
            raise ValueError(f"`weights` {source!r} is damaged: weights of {layer!r} are missing.")
        if paths:
            saved.append(Saved((), [np.asarray(opened[path]) for path in paths]))
    return saved


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _natural(path: str) -> list[tuple[str, int]]:
    """Sort "conv2d" before "conv2d_1", and "conv2d_10" after "conv2d_9"."""
    parts = (re.fullmatch(r"(.*?)(?:_?(\d+))?", part) for part in path.split("/"))
    return [(found[1], int(found[2] or -1)) for found in parts if found]


def download(backbone: str, options: Mapping[str, Any], with_head: bool) -> list[Saved]:
    """ImageNet's weights from where Keras keeps or gets them."""
    function = getattr(keras.applications, backbone)
    try:
        model = function(weights="imagenet", include_top=with_head, **options)
    except (TypeError, ValueError) as error:
        text = f"Keras has no ImageNet weights for {backbone} with options={dict(options)}"
        raise ValueError(f"{text}: {shorten(error)}.") from error
    except Exception as error:  # Keras raises a plain Exception where a download fails
        fix = (
            "Without a network: put the file into ~/.keras/models on this machine, or give a local "
            "file, weights='name.weights.h5', saved elsewhere with "
            f"keras.applications.{backbone}().save_weights('name.weights.h5')."
        )
        text = f"Keras can't download the ImageNet weights of {backbone}: {shorten(error)}."
        raise ConnectionError(f"{text} {fix}") from error
    return saved_in_model(model)


def pair(
    slots: Sequence[Slot], saved: Sequence[Saved], model: str, source: str
) -> tuple[list[list[np.ndarray]], list[Saved]]:
    """The arrays for each slot, and the layers that are left over, which are the old head.

    Raises:
        ValueError: if layers are missing, or more are left over than a head has.
    """
    if saved and not saved[0].kind:
        arrays = [one.arrays for one in saved[: len(slots)]]
        extra = list(saved[len(slots) :])
    else:
        waiting: dict[Kind, list[Saved]] = defaultdict(list)
        for one in reversed(saved):
            waiting[one.kind].append(one)
        nested = any(len(one.kind) > 1 for one in saved)
        # Our own models have no Sequentials inside; files saved from them don't either.
        kinds = [slot.kind if nested else slot.kind[-1:] for slot in slots]
        taken = [waiting[kind].pop() for kind in kinds if waiting[kind]]
        arrays = [one.arrays for one in taken]
        extra = [one for rest in waiting.values() for one in reversed(rest)]
    if len(arrays) < len(slots) or len(extra) > _LARGEST_HEAD:
        got = f"{len(saved)} layers with weights"
        text = f"`weights` {source!r} doesn't fit {model!r}: it has {got}, {model} {len(slots)}"
        raise ValueError(f"{text} without its head. Is it a file of another model?")
    return arrays, extra


def head_classes(old_head: Sequence[Saved]) -> int | None:
    """Units of the last layer of a head; None if there is none."""
    kernels = [one.arrays for one in old_head if one.arrays[0].ndim > 1]
    return int(kernels[-1][0].shape[-1]) if kernels else None


def adapt(
    layers: Sequence[Any], arrays: Sequence[list[np.ndarray]], bgr: bool
) -> list[list[np.ndarray]]:
    """Bring the weights of the first layers to the number of channels of the images.

    Args:
        layers: What they are for.
        arrays: The weights of each.
        bgr: Whether the network was trained on blue, green, red; with other channels than three
            the model doesn't turn the images' order, so the weights' order is turned.
    """
    adapted = [list(found) for found in arrays]
    for layer, found in zip(layers, adapted, strict=True):
        if isinstance(layer, keras.layers.Normalization):
            _adapt_normalization(layer, found)
        elif isinstance(layer, keras.layers.Conv2D):
            channels, kernel = layer.kernel.shape[2], found[0]
            if channels != kernel.shape[2] == 3:
                kernel = kernel[:, :, ::-1] if bgr else kernel
                found[0] = adapt_channels(kernel, channels, axis=2)
            break
    return adapted


def _adapt_normalization(layer: Any, found: list[np.ndarray]) -> None:
    """EfficientNet's own layer: (pixels - mean) / sqrt(variance).

    With ImageNet's weights, Keras keeps the standard deviation as "variance", and divides by its
    square root once more in a further layer. Here the variance is the variance, and one is enough.
    """
    mean, variance = found[:2]
    if np.allclose(variance, _IMAGENET_STD, atol=1e-4):
        variance = np.square(variance)
    channels = layer.weights[0].shape
    if channels != mean.shape:
        mean, variance = (np.broadcast_to(array.mean(), channels) for array in (mean, variance))
    found[:2] = mean, variance


def assign(
    layers: Sequence[Any], arrays: Sequence[list[np.ndarray]], model: str, source: str
) -> None:
    """Give each layer its arrays: all of them, or an error that lists both sides."""
    wrong = []
    for layer, found in zip(layers, arrays, strict=True):
        ours = [tuple(weight.shape) for weight in layer.weights]
        theirs = [array.shape for array in found]
        if ours != theirs:
            wrong.append(f"{layer.name}: model {ours}, file {theirs}")
    if wrong:
        more = f"; and {len(wrong) - _MOST_LINES} more" if len(wrong) > _MOST_LINES else ""
        text = f"`weights` {source!r} doesn't fit {model!r}. {'; '.join(wrong[:_MOST_LINES])}{more}"
        raise ValueError(f"{text}. Is it a file of another model, or of other `options`?")
    for layer, found in zip(layers, arrays, strict=True):
        layer.set_weights(found)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
