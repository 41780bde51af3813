"""The networks of keras.applications: what each was trained on, and a flat copy of its graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from bigzoo._errors import message, suggest
from bigzoo.models._pixels import IMAGENET, scale_pixels

# Mean of ImageNet's pixels in the order blue, green, red, as in the first VGG and ResNet (Caffe).
_CAFFE_MEAN = (103.939, 116.779, 123.68)

# Arguments of the functions in keras.applications that `pretrained` sets itself.
_OURS = {
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "include_preprocessing",
    "name",
}


@dataclass(frozen=True)
class Backbone:
    """One function of keras.applications.

    Attributes:
        scaling: What it was trained on: "caffe" (blue, green, red, minus their mean), "tf" (-1 to
            1), "torch" (minus the mean, by the standard deviation), "by_128" (0 to 2, minus 1), or
            "inside" (its own layers do it).
        minimum: Smallest side in pixels.
        any_size: Whether it can be built for images of all sizes.
    """

    scaling: str
    minimum: int = 32
    any_size: bool = True


def _rows(
    names: str, scaling: str, minimum: int = 32, any_size: bool = True
) -> dict[str, Backbone]:
    return {name: Backbone(scaling, minimum, any_size) for name in names.split()}


BACKBONES: dict[str, Backbone] = {
    **_rows("VGG16 VGG19 ResNet50 ResNet101 ResNet152", "caffe"),
    **_rows("ResNet50V2 ResNet101V2 ResNet152V2", "tf"),
    **_rows("MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large", "tf"),
    **_rows("InceptionV3 InceptionResNetV2", "tf", 75),
    **_rows("Xception", "tf", 71),
    **_rows("NASNetMobile NASNetLarge", "tf", any_size=False),
    **_rows("DenseNet121 DenseNet169 DenseNet201", "torch"),
    **_rows("ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge", "torch"),
    **_rows(" ".join(f"EfficientNetB{number}" for number in range(8)), "inside"),
    **_rows(" ".join(f"EfficientNetV2B{number}" for number in range(4)), "torch"),
    **_rows("EfficientNetV2S EfficientNetV2M EfficientNetV2L", "by_128"),
}


def check_options(options: Any, backbone: str) -> dict[str, Any]:
    """`options` as a dict of arguments that the backbone's function takes beside ours."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(message("options", options, 'a dict, such as {"alpha": 0.5}'))
    known = set(inspect.signature(getattr(keras.applications, backbone)).parameters) - _OURS
    for name in options:
        if name not in known:
            choices = suggest(str(name), known) if known else "It has none."
            raise ValueError(message("options", name, f"arguments of {backbone}", choices))
    return dict(options)


def scaled(image: Any, scaling: str) -> Any:
    """(batch, h, w, c), 0-255 -> what the network was trained on, by the layer "preprocess"."""
    if scaling == "inside":
        return image
    if scaling == "torch":
        return scale_pixels(image, *IMAGENET)
    if scaling == "caffe":
        colours = image.shape[-1] == len(_CAFFE_MEAN)
        image = ops.flip(image, axis=-1) if colours else image
        mean = [[[-m for m in _CAFFE_MEAN]]] if colours else -sum(_CAFFE_MEAN) / len(_CAFFE_MEAN)
        return layers.Rescaling(1.0, mean, dtype="float32", name="preprocess")(image)
    scale = {"tf": 1 / 127.5, "by_128": 1 / 128}[scaling]
    return layers.Rescaling(scale, -1.0, dtype="float32", name="preprocess")(image)


def build(
    backbone: str, shape: Any, options: Mapping[str, Any], classes: int = 0, activation: str = ""
) -> keras.Model:
    """The graph of keras.applications on raw pixels; its own head, for `classes`, if not 0."""
    function = getattr(keras.applications, backbone)
    arguments = dict(options)
    if "include_preprocessing" in inspect.signature(function).parameters:
        arguments["include_preprocessing"] = False
    if classes:
        arguments |= {"classes": classes, "classifier_activation": activation}
    else:
        arguments["pooling"] = "avg"
    image = keras.Input(shape, dtype="float32", name="image")
    return function(
        include_top=bool(classes),
        weights=None,
        input_tensor=scaled(image, BACKBONES[backbone].scaling),
        input_shape=shape,
        **arguments,
    )


def flat_copy(
    graph: keras.Model, policy: Any, *, with_head: bool, is_last: bool
) -> tuple[keras.Model, dict[int, Any]]:
    """`graph` with new weights under another dtype policy, and with inner Sequentials unpacked.

    Normalisations are frozen, names that Keras made up with a counter of the process are replaced
    by ones that stay the same.

    Args:
        graph: From `build`.
        policy: Dtype policy of the copy; "preprocess" is in float32 under any.
        with_head: Whether the last layer is the classifier, "predictions".
        is_last: Whether the last layer is the model's; then it is in float32.

    Returns:
        The copy, and its layers by the id of those that they are copies of.
    """
    copies: dict[int, Any] = {}
    numbers: dict[str, int] = {}
    pools = [layer for layer in graph.layers if isinstance(layer, layers.GlobalAveragePooling2D)]
    last = graph.layers[-1]
    names = {id(layer): "global_pool" for layer in pools[-1:]}
    if with_head:
        names[id(last)] = "predictions"

    def copy(layer: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            return keras.Sequential([copy(inner) for inner in layer.layers])
        config = layer.get_config()
        if not isinstance(layer, layers.Layer):  # an operation such as +
            return type(layer).from_config(config)
        prepares = isinstance(layer, (layers.Rescaling, layers.Normalization))
        config["dtype"] = "float32" if prepares or (is_last and layer is last) else policy
        config["name"] = names.get(id(layer)) or _steady_name(layer, numbers)
        new = type(layer).from_config(config)
        if isinstance(layer, layers.BatchNormalization):
            new.trainable = False
        copies[id(layer)] = new
        return new

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, keras.Sequential):
            return layer(*args, **kwargs)
        (x,) = args
        for inner in layer.layers:
            x = inner(x)
        return x

    return keras.models.clone_model(graph, clone_function=copy, call_function=call), copies


def _steady_name(layer: Any, numbers: dict[str, int]) -> str:
    if isinstance(layer, layers.Rescaling):
        return "preprocess"  # ours, or EfficientNet's own
    made_up = re.fullmatch(r"([a-z0-9_]+?)(_\d+)?", layer.name)
    base = made_up[1] if made_up else ""
    if base.replace("_", "") != type(layer).__name__.lower():
        return layer.name
    number = numbers[base] = numbers.get(base, 0) + 1
    return f"backbone_{base}_{number}"
