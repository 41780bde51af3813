"""The model as it infers: without what only training needs."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._tensor_specs import graph_tensors

# Layers that hand on what they get, as it is, unless the model is trained.
_TRAINING_ONLY = """
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise
    AlphaDropout ActivityRegularization AugMix CutMix MixUp RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing
    RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom
"""
# RandomCrop isn't among them: when it infers, it cuts the middle out.
TRAINING_ONLY = tuple(
    getattr(keras.layers, name) for name in _TRAINING_ONLY.split() if hasattr(keras.layers, name)
)


def inference_model(model: keras.Model) -> keras.Model:
    """The model as it infers: dropout, noise and augmentation are gone, the weights are shared.

    A `RandomFlip` or the like inside a model puts what follows it into training mode whenever the
    model is called without `training=False`: outputs are random, and the statistics of
    BatchNormalization change. Here such layers are left out, in models inside the model too, and
    every other layer is called with `training=False`. What the model gives is exactly the same.

    Args:
        model: A functional or Sequential model, built; any backend.

    Returns:
        A functional, uncompiled `keras.Model` with the inputs, outputs and layers of `model`. It
        has the same weights: training `model` changes both. `class_names` and `image_size` that
        `bz.fit` has noted are carried along.

    Raises:
        ValueError: if the model isn't built, or is subclassed and so has no graph.
        TypeError: if `model` isn't one.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.RandomFlip()(image)
        >>> model = keras.Model(image, keras.layers.Dropout(0.5)(keras.layers.Flatten()(x)))
        >>> [type(layer).__name__ for layer in bz.deploy.inference_model(model).layers]
        ['InputLayer', 'Flatten']
    """
    graph_tensors(model)
    return _Rebuild().model(check_model(model))


class _Rebuild:
    """One run over a model and those inside it; a model that is used twice stays one."""

    def __init__(self) -> None:
        self.done: dict[int, keras.Model] = {}

    def model(self, model: keras.Model) -> keras.Model:
        if id(model) in self.done:
            return self.done[id(model)]
        if type(model).call not in _own_calls():
            made = self._opaque(model)
        elif isinstance(model, keras.Sequential):
            made = self._sequential(model)
        else:
            made = self._functional(model)
        for name in ("class_names", "image_size"):
            if getattr(model, name, None) is not None:
                setattr(made, name, getattr(model, name))
        self.done[id(model)] = made
        return made

    def _functional(self, model: keras.Model) -> keras.Model:
        inputs = keras.tree.map_structure(_new_input, model.input)
        # Without the optimizer and the loss of a compiled model, which would be copied too.
        plain = keras.Model(model.input, model.output, name=model.name)
        made = keras.models.clone_model(
            plain,
            input_tensors=inputs,
            clone_function=lambda layer: layer,
            call_function=self._call,
        )
        # The inputs once more: Keras gives those of a clone as a list, whatever they were.
        return keras.Model(inputs, made.output, name=model.name)

    def _sequential(self, model: keras.Sequential) -> keras.Model:
        tensor = inputs = _sequential_input(model)
        for layer in model.layers:
            tensor = self._call(layer, tensor)
        return keras.Model(inputs, tensor, name=model.name)

    def _opaque(self, model: keras.Model) -> keras.Model:
        """A model with a `call` of its own, which stays as it is."""
        if isinstance(model, keras.Sequential):
            inputs: Any = _sequential_input(model)
        else:
            inputs = keras.tree.map_structure(_new_input, model.input)
        return keras.Model(inputs, model(inputs, training=False), name=model.name)

    def _call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if type(operation) in TRAINING_ONLY:
            return args[0] if args else next(iter(kwargs.values()))
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        if isinstance(operation, keras.Model) and _has_graph(operation):
            operation = self.model(operation)
        if _takes_training(operation):
            kwargs = {**kwargs, "training": False}
        return operation(*args, **kwargs)


def _new_input(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _sequential_input(model: keras.Sequential) -> Any:
    # One that was built by a call has that call's batch in its graph, and takes any other.
    known = model.inputs[0]
    shape = known.shape if _keeps_state(model) else (None, *known.shape[1:])
    return keras.Input(batch_shape=shape, dtype=known.dtype, name=known.name)


@functools.cache
def _own_calls() -> tuple[Any, ...]:
    """The `call` of a functional model and of a Sequential: they run the graph, as a subclass with
    a `call` of its own may not."""
    tensor = keras.Input((1,))
    return type(keras.Model(tensor, tensor)).call, keras.Sequential.call


def _has_graph(model: keras.Model) -> bool:
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):
        return False


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _keeps_state(model: keras.Model) -> bool:
    return any(getattr(layer, "stateful", False) for layer in model.layers)
