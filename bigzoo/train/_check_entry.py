"""What a model does first with an input: scale it, embed it, or multiply it by weights as it is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_NORMALIZES = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)
_PASSES = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Masking,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Resizing,
    keras.layers.CenterCrop,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.RandomCrop,
)
_WEIGHTS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.SimpleRNN,
    keras.layers.Bidirectional,
)


def entries(model: keras.Model, index: int = 0) -> set[Any]:
    """What happens to input `index`, over all ways that it takes, as a set of marks.

    "raw": multiplied by weights as it is; "normalized"; ("scale", s): multiplied by s;
    ("embedding", rows): looked up in a table of so many rows; "unknown": anything else.
    """
    try:
        tensor = model.inputs[index]
    except (AttributeError, IndexError, TypeError, ValueError):
        return {"unknown"}
    return _follow(model, tensor, 0)


def _follow(model: keras.Model, tensor: Any, depth: int) -> set[Any]:
    operations = getattr(model, "operations", None) or model.layers
    found: set[Any] = set()
    for operation in operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        try:
            given = keras.tree.flatten(operation.input)
            made = keras.tree.flatten(operation.output)
        except (AttributeError, ValueError):  # a layer that is used several times
            return {"unknown"}
        places = [place for place, one in enumerate(given) if one is tensor]
        if places:
            found |= _mark(model, operation, places[0], made, depth)
    return found or {"unknown"}


def _mark(model: keras.Model, operation: Any, place: int, made: list[Any], depth: int) -> set[Any]:
    if depth > 20:  # deep enough for any preprocessing, and an end for any graph
        return {"unknown"}
    if isinstance(operation, keras.Model):
        return entries(operation, place)
    if isinstance(operation, keras.layers.Rescaling):
        scale = np.asarray(operation.scale)
        return {("scale", float(scale))} if scale.ndim == 0 else {"unknown"}
    if isinstance(operation, _NORMALIZES):
        return {"normalized"}
    if isinstance(operation, keras.layers.Embedding):
        return {("embedding", int(operation.input_dim))}
    if isinstance(operation, keras.layers.TimeDistributed):
        return {"raw"} if isinstance(operation.layer, _WEIGHTS) else {"unknown"}
    if isinstance(operation, _WEIGHTS):
        return {"raw"}
    if isinstance(operation, _PASSES) or type(operation).__name__ == "Concatenate":
        return _follow(model, made[0], depth + 1)
    return {"unknown"}
