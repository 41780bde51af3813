"""Where in a picture a network sees what it says is there."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, message
from bigzoo._image_io import read_image
from bigzoo.plot._figure import new_figure
from bigzoo.plot._gradient import gradient
from bigzoo.plot._graph import check_graph, inputs_of, last_operation, named, output_of, part
from bigzoo.plot._images import _draw, _to_unit
from bigzoo.plot._labels import check_class_names, to_numpy

_PROBABILITIES = ("softmax", "sigmoid")
# Operations of `keras.ops` and layers that are only the activation of what comes before.
_ACTIVATIONS = ("Softmax", "Sigmoid", "Activation")


def grad_cam(
    model: keras.Model,
    image: Any,
    class_index: int | None = None,
    layer: Any = None,
    *,
    class_names: Any = None,
) -> Any:
    r"""Draw which places of an image speak for a class, beside the image itself.

    With \(A^k\) the channels of a layer's output and \(y^c\) the score of the class before its
    softmax or sigmoid, the map is \(\mathrm{ReLU}(\sum_k \alpha_k A^k)\), where \(\alpha_k\) is the
    mean over all places of \(\partial y^c / \partial A^k\). It is as coarse as the layer's output;
    the picture shows it smoothed, divided by its largest value. It says where the evidence *for*
    the class is; what speaks against it is cut off.

    Paper: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, section 3.

    Args:
        model: A functional model or a built Sequential with one image as input and one score,
            probability or number per class as output (batch, classes).
        image: One image (height, width, channels) or (1, height, width, channels) as the model
            takes it, raw pixels 0–255 for models of bigzoo; or the path of an image file.
        class_index: Class from 0 up; None takes the one that the model predicts. With one sigmoid
            unit, 1 is its class and 0 the other one.
        layer: Name of a layer with output (batch, height, width, channels); None takes the last
            one, where channels mean most.
        class_names: One name per class; None takes those that `bz.fit` left on the model, or
            numbers.

    Returns:
        A new `matplotlib.figure.Figure`. The map itself is
        `figure.axes[1].images[1].get_array()`, of the layer's height and width.

    Raises:
        TypeError, ValueError: if shapes don't fit, or the model has no such layer.
        FileNotFoundError: if there is no such file.

    Example:
        >>> x, y = bz.data.drawn_pets(1, image_size=(32, 32), seed=0)
        >>> model = bz.models.cnn((32, 32, 3), num_classes=2)
        >>> figure = bz.plot.grad_cam(model, x[0])
        >>> figure.axes[1].images[1].get_array().shape
        (2, 2)
    """
    check_graph(model)
    picture = _read(model, image)
    if class_names is None:
        class_names = getattr(model, "class_names", None)
    names = check_class_names(class_names)
    heat, chosen, probability = compute(model, picture, class_index, layer)
    peak = float(heat.max())
    figure = new_figure(8.2, 3.9)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    shown = _to_shown(picture)
    _draw(left, shown)
    left.set_title("image")
    _draw(right, shown if shown.shape[-1] == 1 else shown.mean(axis=-1, keepdims=True))
    height, width = shown.shape[:2]
    relative = heat / peak if peak > 0 else heat
    drawn = right.imshow(
        relative,
        cmap="inferno",
        vmin=0.0,
        vmax=1.0,
        alpha=0.6,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
    right.set_title(_title(chosen, probability, names, peak))
    bar = figure.colorbar(drawn, ax=right, shrink=0.85)
    bar.set_label("part of its maximum")
    bar.outline.set_visible(False)
    return figure


# From a picture and a class (None: the predicted one) to what `compute` gives.
Explainer = Callable[[np.ndarray, "int | None"], "tuple[np.ndarray, int, float | None]"]


def compute(
    model: keras.Model, picture: np.ndarray, class_index: int | None, layer: Any
) -> tuple[np.ndarray, int, float | None]:
    """The map (height, width) of a layer, the class, and its probability, if it has one."""
    return explainer(model, layer)(picture, class_index)


def explainer(
    model: keras.Model, layer: Any = None, predict: Callable[[np.ndarray], Any] | None = None
) -> Explainer:
    """`compute` for many pictures.

    Each time that Keras cuts a model in two, it notes something on the layers behind the cut: a
    program that goes on for long does it once. `predict` gives the model's outputs; where several
    threads use the model, it can't be `model.predict`, which on JAX takes the weights away
    meanwhile.
    """
    if predict is None:
        predict = functools.partial(model.predict, verbose=0)
    tensor = _feature_map(model, layer)
    body = part(model, tensor)
    if body is None:
        raise ValueError(
            f"`layer` ({layer!r}) was first used in another model; expected one that belongs to "
            "this model alone. Build the model from its own layers."
        )
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        expected = "a model whose output has the shape (batch, classes)"
        raise ValueError(message("model", [tuple(one.shape) for one in model.outputs], expected))
    scores, dense = _scores(model)
    head, around = _head(model, tensor, scores)
    has_probability = scores is not model.outputs[0]

    def explain(
        picture: np.ndarray, class_index: int | None
    ) -> tuple[np.ndarray, int, float | None]:
        output = np.asarray(predict(picture[np.newaxis]), dtype=np.float64)
        is_sigmoid = has_probability and output.shape[1] == 1
        chosen, unit, sign = _class(class_index, output[0], is_sigmoid)
        pixels = keras.ops.convert_to_tensor(picture[np.newaxis])
        features = body(pixels, training=False)
        beside = None if around is None else around(pixels, training=False)

        def score(values: Any) -> Any:
            given = values if beside is None else [values, beside]
            found = keras.ops.cast(head(given, training=False), "float32")
            if dense is not None:
                found = keras.ops.matmul(found, keras.ops.cast(dense.kernel, "float32"))
            return sign * keras.ops.sum(found[..., unit])

        slope = gradient(score, features)[0]
        channels = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(features, "float32")))[0]
        heat = np.maximum(channels @ slope.mean(axis=(0, 1)), 0.0)
        found = output[0, unit] if sign > 0 else 1 - output[0, unit]
        return heat, chosen, float(found) if has_probability else None

    return explain


def _feature_map(model: keras.Model, layer: Any) -> Any:
    """The layer's output, or the last one with places and channels."""
    expected = "a layer with output (batch, height, width, channels)"
    if layer is not None:
        operation = named(model, layer, expected)
        tensor = output_of(model, operation)
        if tensor is None or len(tensor.shape) != 4:
            shape = None if tensor is None else tuple(tensor.shape)
            raise ValueError(f"`layer` ({operation.name!r}) gives {shape}; expected {expected}.")
        return tensor
    for operation in reversed(check_graph(model)):
        if isinstance(operation, keras.layers.InputLayer):
            continue
        tensor = output_of(model, operation)
        if tensor is not None and _is_map(tensor):
            return tensor
    inside = [one.name for one in model.layers if isinstance(one, keras.Model)]
    fix = f"The layers inside the model {inside[0]!r} can't be reached." if inside else ""
    raise ValueError(message("model", model.name, f"a model that has {expected}", fix))


def _is_map(tensor: Any) -> bool:
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) != (1, 1)


def _scores(model: keras.Model) -> tuple[Any, Any]:
    """The tensor before the last activation, and the Dense layer to apply to it, if any."""
    last = last_operation(model)
    inputs = inputs_of(last)
    if len(inputs) == 1 and not isinstance(last, keras.Model):
        name = getattr(getattr(last, "activation", None), "__name__", "")
        if isinstance(last, keras.layers.Dense):
            return (inputs[0], last) if name in _PROBABILITIES else (model.outputs[0], None)
        own = type(last).__name__
        if own in _ACTIVATIONS and (own != "Activation" or name in _PROBABILITIES):
            return inputs[0], None
    return model.outputs[0], None


def _head(model: keras.Model, tensor: Any, scores: Any) -> tuple[keras.Model, Any]:
    """From the layer's output to the scores, and what makes a second input of it, if it has one.

    Where a connection leads around the layer, the second input is an earlier tensor that everything
    else follows from. (The image itself can't be one: Keras would write into its tensor, and the
    model couldn't be saved any more.)
    """
    try:
        return keras.Model(tensor, scores), None
    except ValueError:
        pass
    for operation in check_graph(model):
        if isinstance(operation, keras.layers.InputLayer):
            continue
        early = output_of(model, operation)
        if early is tensor:
            break
        try:
            return keras.Model([tensor, early], scores), part(model, early)
        except (TypeError, ValueError):
            continue
    expected = "a layer that the image doesn't go around"
    raise ValueError(message("layer", tensor.name, expected, "Name a later one."))


def _class(class_index: Any, output: np.ndarray, is_sigmoid: bool) -> tuple[int, int, float]:
    """The class, the unit that stands for it, and the sign with which it does."""
    count = 2 if is_sigmoid else len(output)
    if class_index is None:
        chosen = int(output[0] >= 0.5) if is_sigmoid else int(output.argmax())
    else:
        fix = f"The model has {count} classes." if count > 1 else "The model has one output."
        chosen = check_int("class_index", class_index, 0, count - 1, fix)
    return (chosen, 0, 1.0 if chosen else -1.0) if is_sigmoid else (chosen, chosen, 1.0)


# === Pictures ===


def _read(model: keras.Model, image: Any) -> np.ndarray:
    shape = tuple(model.inputs[0].shape)
    if len(model.inputs) != 1 or len(shape) != 4:
        expected = "a model with one input of shape (batch, height, width, channels)"
        raise ValueError(message("model", [tuple(one.shape) for one in model.inputs], expected))
    if isinstance(image, (str, os.PathLike)):
        size = getattr(model, "image_size", None) if None in shape[1:3] else shape[1:3]
        array: Any = read_image(image, size, shape[3])
    else:
        array = to_numpy("image", image)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2 and shape[3] == 1:
        array = array[..., np.newaxis]
    fits = array.ndim == 3 and all(
        wanted in (None, given) for wanted, given in zip(shape[1:], array.shape, strict=True)
    )
    if not fits:
        expected = f"one image of shape {shape[1:]}, as the model takes it"
        raise ValueError(message("image", array, expected))
    if array.dtype.kind not in "biuf":
        raise TypeError(message("image", array, "pixels, numbers in 0–255"))
    return array.astype(np.float32)


def _to_shown(picture: np.ndarray) -> np.ndarray:
    """Values in 0–1 to look at; of other numbers of channels than 1, 3 or 4, their mean."""
    if picture.shape[-1] not in (1, 3, 4):
        picture = picture.mean(axis=-1, keepdims=True)
    low, high = float(picture.min()), float(picture.max())
    if low < 0 or high > 255:  # scaled in a way of their own
        return (picture - low) / max(high - low, 1e-12)
    return _to_unit(picture[np.newaxis])[0]


def _title(
    chosen: int, probability: float | None, names: tuple[str, ...] | None, peak: float
) -> str:
    text = names[chosen] if names is not None and chosen < len(names) else f"class {chosen}"
    if probability is not None:
        text = f"{text} ({probability:.0%})"
    return f"evidence for {text}" if peak > 0 else f"no evidence for {text}"
