"""Any network of keras.applications, with its weights, under a new head.

References:
    https://keras.io/api/applications: the networks, their papers, licences and accuracies.
    Yosinski et al. 2014, https://arxiv.org/abs/1411.1792 (why features transfer).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from bigzoo._errors import check_choice, check_int, check_number, message
from bigzoo.models._arguments import check_image_shape, check_name, check_policy
from bigzoo.models._backbones import BACKBONES, build, check_options, flat_copy
from bigzoo.models._heads import Head, plan_head
from bigzoo.weights import open_checkpoint
from bigzoo.weights._applications import (
    Saved,
    adapt,
    assign,
    download,
    head_classes,
    pair,
    read_saved,
    slots_of,
)

CLASSES = 1000  # of ImageNet

# === Model ===


def pretrained(
    backbone: str,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = None,
    num_outputs: int | None = None,
    classifier_activation: str | None = "softmax",
    weights: Any = "imagenet",
    trainable: str | int = "head",
    dropout: float = 0.0,
    options: Mapping[str, Any] | None = None,
    dtype: Any = None,
    name: str = "pretrained",
) -> keras.Model:
    """A network of keras.applications as a model of this zoo: raw pixels in, your classes out.

    Choose it to classify photos of your own with few labels: the network has learned from
    ImageNet's 1.28 million photos what to look for, and only a new last layer learns your classes.
    Then go on with `trainable=20` or "all" and a small learning rate.
    Paper: each network's own, listed at https://keras.io/api/applications.
    Differs from keras.applications: pixels are scaled inside, the number of channels is free, all
    layers lie in one flat graph, batch normalisations stay in inference, the dtype policy is an
    argument.

    Args:
        backbone: Name in keras.applications, such as "ResNet50", "MobileNetV2", "EfficientNetB0".
        input_shape: (height, width, channels), without the batch; at least 32 pixels a side (71 to
            75 for Xception and Inception). None for height and width takes images of any size
            (not for NASNet). With weights of 3 channels and another number here, the first layer's
            are adapted as timm does: summed for one, repeated and scaled for others.
        num_classes: Number of classes, at least 2. None takes the checkpoint's, or 1000. 0 leaves
            the last layer out: pooled features come out. Where the checkpoint has a head for as
            many classes as asked for, it is loaded, with the layers that belong to it.
        num_outputs: For regression: number of linear outputs, at least 1; `num_classes` must be
            None then.
        classifier_activation: "softmax", "sigmoid" (one unit for two classes, else independent
            probabilities) or None for logits.
        weights: "imagenet" (Keras downloads them once), None for a random start, or a local file:
            `.weights.h5` or `.keras` saved from this function or from keras.applications, or the
            `.h5` that Keras downloads.
        trainable: "head" freezes the backbone, "all" frees it, a number n frees its last n layers
            that have weights. Batch normalisations aren't counted and stay frozen in each case:
            on few photos, their new statistics would spoil what the network has learned.
        dropout: Part of the pooled features set to 0 in training, in [0, 1). It isn't used in a
            head of several layers that a checkpoint brings.
        options: Arguments of the backbone's own function, such as {"alpha": 0.35} for MobileNetV2.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, height, width, channels), float32 or uint8, raw pixels 0-255, colours in
        the order red, green, blue, whatever the network was trained on.
    Output shape: (batch, num_classes); (batch, 1) for two classes with "sigmoid"; (batch,
        features) for `num_classes=0`. float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`; its layers are "image", "preprocess", those of the backbone
        under Keras' names, "global_pool", "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or the file doesn't fit.
        FileNotFoundError: if there is no such file.
        ConnectionError: if Keras can't download the weights.

    Example:
        >>> model = bz.models.pretrained(
        ...     "MobileNet", input_shape=(64, 64, 3), num_classes=2, weights=None,
        ...     options={"alpha": 0.25},
        ... )
        >>> model.output_shape, len(model.trainable_weights)  # the new head's kernel and bias
        ((None, 2), 2)
    """
    row = BACKBONES[check_choice("backbone", backbone, BACKBONES)]
    shape = check_image_shape(input_shape, row.minimum, any_size=True)
    if None in shape and not row.any_size:
        fix = f"{backbone} needs a fixed size, such as (224, 224, 3)."
        raise ValueError(message("input_shape", shape, "a height and a width in pixels", fix))
    own = check_options(options, backbone)
    rate = check_number("dropout", dropout, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    _check_trainable(trainable)
    if keras.config.image_data_format() != "channels_last":
        text = "keras.applications follows Keras' image data format, now 'channels_first'"
        raise ValueError(f"{text}. Run keras.config.set_image_data_format('channels_last').")
    wants_head = num_outputs is None and num_classes in (None, CLASSES)
    saved = _read(weights, backbone, own, with_head=wants_head)

    graph = build(backbone, shape, own)
    source, slots = str(weights), slots_of(graph)
    arrays, old_head = pair(slots, saved, backbone, source) if saved else ([], [])
    head = plan_head(
        num_classes,
        num_outputs,
        classifier_activation,
        default=CLASSES,
        checkpoint_classes=head_classes(old_head),
    )
    several = head.from_checkpoint and len(old_head) > 1
    if several:  # the head is more than one dense layer, as in VGG: all of it is kept
        graph = build(backbone, shape, own, classes=head.units, activation=head.activation)
        slots = slots_of(graph)
        arrays, old_head = pair(slots, saved, backbone, source)
    body, copies = flat_copy(graph, policy, with_head=several, is_last=several or not head.units)
    if saved:
        targets = [copies[id(slot.layer)] for slot in slots]
        assign(targets, adapt(targets, arrays, row.scaling == "caffe"), backbone, source)
    # A head of several layers is in the copy already.
    model = _with_head(body, Head(0, "") if several else head, rate, policy, name)
    if old_head and head.from_checkpoint and not several:
        _load_head(model.get_layer("predictions"), old_head, backbone, source)
    _set_trainable(model, trainable, head.units > 0)
    return model


# === Weights ===


def _read(weights: Any, backbone: str, own: dict[str, Any], with_head: bool) -> list[Saved]:
    """The weights, layer by layer; none for a random start."""
    if weights is None:
        return []
    if isinstance(weights, str) and weights == "imagenet":
        return download(backbone, own, with_head)
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(message("weights", weights, '"imagenet", None, or the path of a file'))
    text = os.fspath(weights)
    path = Path(text).expanduser()
    if text.endswith(".h5") and path.is_file():
        return read_saved(path, text)
    checkpoint = open_checkpoint(weights)
    if checkpoint is None or not checkpoint.native:
        fix = "Checkpoints of timm are for bz.models.resnet, convnext, efficientnet and vit."
        raise ValueError(message("weights", text, "a .weights.h5, .keras or .h5 file", fix))
    return read_saved(checkpoint.path, text)


def _load_head(layer: Any, old_head: Sequence[Saved], backbone: str, source: str) -> None:
    """The one layer of the old head; in MobileNet it is a 1 × 1 convolution of the same size."""
    shapes = [tuple(weight.shape) for weight in layer.weights]
    arrays = [
        array.reshape(shape) if array.size == np.prod(shape) else array
        for array, shape in zip(old_head[0].arrays, shapes, strict=False)
    ]
    assign([layer], [arrays], backbone, source)


# === Layers ===


def _with_head(body: keras.Model, head: Head, rate: float, policy: Any, name: str) -> keras.Model:
    # keras.applications gives a list of one input, with which a call on an array warns.
    (image,), (x,) = body.inputs, body.outputs
    if rate and head.units:
        x = layers.Dropout(rate, dtype=policy, name="dropout")(x)
    return keras.Model(image, head(x), name=name)


def _check_trainable(trainable: Any) -> None:
    if hasattr(trainable, "__index__"):
        check_int("trainable", trainable, minimum=1, fix='"head" frees the head alone.')
    elif trainable not in ("head", "all"):
        expected = '"head", "all", or the number of layers to free'
        make = ValueError if isinstance(trainable, str) else TypeError
        raise make(message("trainable", trainable, expected))


def _set_trainable(model: keras.Model, trainable: str | int, has_head: bool) -> None:
    """Freeze what isn't to be trained, and each batch normalisation."""
    frozen = (layers.BatchNormalization, layers.Normalization)
    free = [layer for layer in model.layers if layer.weights and not isinstance(layer, frozen)]
    body = free[:-1] if has_head else free
    if trainable == "all":
        return
    number = 0 if trainable == "head" else int(trainable)
    if number > len(body):
        fix = f'It has {len(body)} layers with weights below its head; "all" frees them.'
        raise ValueError(message("trainable", trainable, f"at most {len(body)}", fix))
    for layer in body[: len(body) - number]:
        layer.trainable = False
