"""Which family of networks a model belongs to, read from its layers.

The default optimizer and the speed settings follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from bigzoo.train._outputs import describe_outputs

_L = keras.layers
_CONVOLUTION = (
    _L.Conv1D,
    _L.Conv2D,
    _L.Conv3D,
    _L.Conv1DTranspose,
    _L.Conv2DTranspose,
    _L.Conv3DTranspose,
    _L.DepthwiseConv1D,
    _L.DepthwiseConv2D,
    _L.SeparableConv1D,
    _L.SeparableConv2D,
    _L.MaxPooling1D,
    _L.MaxPooling2D,
    _L.MaxPooling3D,
    _L.AveragePooling1D,
    _L.AveragePooling2D,
    _L.AveragePooling3D,
)
_RECURRENT = (_L.RNN, _L.Bidirectional, _L.ConvLSTM1D, _L.ConvLSTM2D, _L.ConvLSTM3D)
_ATTENTION = (
    _L.MultiHeadAttention,
    _L.GroupQueryAttention,
    _L.Attention,
    _L.AdditiveAttention,
    _L.EinsumDense,
)
# Layers that work on each sample's values by matrix products and elementwise operations alone.
_DENSE_LIKE = (
    _L.InputLayer,
    _L.Dense,
    _L.Activation,
    _L.ReLU,
    _L.LeakyReLU,
    _L.PReLU,
    _L.ELU,
    _L.Softmax,
    _L.Dropout,
    _L.GaussianNoise,
    _L.GaussianDropout,
    _L.AlphaDropout,
    _L.ActivityRegularization,
    _L.BatchNormalization,
    _L.LayerNormalization,
    _L.GroupNormalization,
    _L.UnitNormalization,
    _L.Normalization,
    _L.Rescaling,
    _L.Flatten,
    _L.Reshape,
    _L.Identity,
    _L.Concatenate,
    _L.Add,
    _L.Subtract,
    _L.Multiply,
    _L.Average,
    _L.Maximum,
    _L.Minimum,
)
_NORMALIZATION = (
    _L.BatchNormalization,
    _L.LayerNormalization,
    _L.GroupNormalization,
)


def all_layers(model: keras.Model) -> Iterator[Any]:
    """Every layer and operation of `model`, those inside nested models and wrappers included."""
    operations = getattr(model, "operations", None)
    for layer in operations if operations is not None else model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
            continue
        yield layer
        for attribute in ("layer", "forward_layer", "backward_layer"):
            inner = getattr(layer, attribute, None)
            if isinstance(inner, keras.Model):
                yield from all_layers(inner)
            elif isinstance(inner, keras.layers.Layer):
                yield inner


def family(model: keras.Model) -> str:
    """ "linear", "mlp", "conv", "recurrent", "attention" or "other".

    A convolution inside a layer of the user's own shows in its kernel, which has four axes or more.
    """
    layers = list(all_layers(model))
    if any(isinstance(layer, _RECURRENT) for layer in layers):
        return "recurrent"
    kernels = [weight for weight in model.weights if len(weight.shape) >= 4]
    if kernels or any(isinstance(layer, _CONVOLUTION) for layer in layers):
        return "conv"
    if any(isinstance(layer, _ATTENTION) for layer in layers):
        return "attention"
    if not layers or not all(type(layer) in _DENSE_LIKE for layer in layers):
        return "other"
    return "linear" if _is_linear(model, layers) else "mlp"


def has_normalization(model: keras.Model) -> bool:
    """Whether any layer of `model` normalises activations, which bears a higher learning rate."""
    return any(isinstance(layer, _NORMALIZATION) for layer in all_layers(model))


def on_accelerator() -> bool:
    """Whether the backend has a GPU or TPU to run on."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available() or torch.backends.mps.is_available()
    return False


def _is_linear(model: keras.Model, layers: list[Any]) -> bool:
    """One Dense layer for each output and nothing else that is learned."""
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    learned = [layer for layer in layers if getattr(layer, "trainable_weights", None)]
    made = {info.layer for info in describe_outputs(model)}
    if len(dense) == 1:
        return all(layer is dense[0] for layer in learned)
    return bool(dense) and all(layer.name in made for layer in [*dense, *learned])
