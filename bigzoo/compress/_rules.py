"""What each kind of layer does with channels: makes them, hands them on, or mixes them.

A kind that isn't listed here keeps all channels that go into it and come out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bigzoo.compress._channels import Channels, State
from bigzoo.compress._record import Call

_L = keras.layers
# Takes the channels of the only input, empty ones if nothing is cut there.
Rule = Callable[[Channels, Call, State], "State | None"]

# Activations that treat each number by itself; others, such as softmax, mix channels.
_ELEMENTWISE_NAMES = """
    linear relu relu6 leaky_relu elu selu celu gelu silu swish mish sigmoid hard_sigmoid
    log_sigmoid tanh hard_tanh tanh_shrink softplus softsign exponential hard_silu hard_swish
    squareplus soft_shrink hard_shrink threshold sparse_plus
"""
_ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())
_SAME = (
    _L.ReLU,
    _L.LeakyReLU,
    _L.ELU,
    _L.Identity,
    _L.ActivityRegularization,
    _L.GaussianNoise,
    _L.GaussianDropout,
    _L.AlphaDropout,
    _L.SpatialDropout1D,
    _L.SpatialDropout2D,
    _L.SpatialDropout3D,
)


def rule_of(kind: type) -> Rule | None:
    """How a kind of layer treats channels; None if that isn't known."""
    entry = _RULES.get(kind)
    return None if entry is None else entry[0]


def makes_channels(kind: type) -> bool:
    return kind in _MAKERS


def has_unknown_weights(operation: Any) -> bool:
    """Whether a layer has weights that its rule doesn't know, such as LoRA or quantised ones."""
    known = _RULES[type(operation)][1] if type(operation) in _RULES else ()
    return any(weight.name not in known for weight in getattr(operation, "weights", ()))


def same(channels: Channels, call: Call, state: State) -> State:
    """For layers that treat each number by itself."""
    return state


def stop(
    channels: Channels, call: Call, given: list[tuple[Any, State | None]], why: str
) -> State | None:
    """Keep all channels that go into a call and come out of it."""
    for _, state in given:
        if state is not None:
            channels.freeze(state.labels, why)
    if getattr(call.operation, "weights", None):
        channels.left.setdefault(call.operation.name, why)
    return None


# === Layers that make channels ===


def _along(channels: Channels, call: Call, state: State, axis: int) -> np.ndarray | None:
    """Labels of the input along `axis`; None if nothing is cut there."""
    if not len(state.labels):
        return None
    if state.axis != axis:
        channels.freeze(state.labels, f"{call.operation.name!r} works along another axis")
        return None
    return state.labels


def _channel_axis(call: Call) -> int:
    """Where a layer has its channels, from the end."""
    is_last = getattr(call.operation, "data_format", "channels_last") == "channels_last"
    return -1 if is_last else 1 - len(call.tensors[0].shape)


def _make(channels: Channels, call: Call, setting: str, axis: int) -> State:
    """New channels, as many as the layer's `setting` says."""
    layer = call.operation
    labels = channels.produce(layer, int(getattr(layer, setting)))
    channels.size(layer, setting, labels)
    if not _is_elementwise(getattr(layer, "activation", None)):
        channels.freeze(labels, f"the activation of {layer.name!r} mixes channels")
    return State(axis, labels)


def _convolution(channels: Channels, call: Call, state: State) -> State | None:
    layer, axis = call.operation, _channel_axis(call)
    if getattr(layer, "groups", 1) != 1:
        return stop(channels, call, [(None, state)], f"{layer.name!r} is a grouped convolution")
    inputs = _along(channels, call, state, axis)
    made = _make(channels, call, "filters", axis)
    turned = type(layer) in _TRANSPOSED  # their kernels have the outputs first
    channels.slice(layer, "kernel", -1 if turned else -2, inputs)
    channels.slice(layer, "kernel", -2 if turned else -1, made.labels)
    channels.slice(layer, "bias", 0, made.labels)
    return made


def _separable(channels: Channels, call: Call, state: State) -> State:
    layer, axis = call.operation, _channel_axis(call)
    inputs = _along(channels, call, state, axis)
    made = _make(channels, call, "filters", axis)
    if inputs is not None:
        channels.slice(layer, "depthwise_kernel", -2, inputs)
        widened = np.repeat(inputs, layer.depth_multiplier)
        channels.slice(layer, "pointwise_kernel", -2, widened)
    channels.slice(layer, "pointwise_kernel", -1, made.labels)
    channels.slice(layer, "bias", 0, made.labels)
    return made


def _dense(channels: Channels, call: Call, state: State) -> State:
    layer = call.operation
    channels.slice(layer, "kernel", 0, _along(channels, call, state, -1))
    made = _make(channels, call, "units", -1)
    channels.slice(layer, "kernel", 1, made.labels)
    channels.slice(layer, "bias", 0, made.labels)
    return made


def _embedding(channels: Channels, call: Call, state: State) -> State:
    made = _make(channels, call, "output_dim", -1)
    channels.slice(call.operation, "embeddings", 1, made.labels)
    if len(state.labels):
        channels.freeze(state.labels, f"{call.operation.name!r} takes numbers of words")
    return made


# === Layers that hand channels on ===


def _activation(channels: Channels, call: Call, state: State) -> State | None:
    if _is_elementwise(call.operation.activation):
        return state
    return stop(channels, call, [(None, state)], f"{call.operation.name!r} mixes channels")


def _is_elementwise(activation: Any) -> bool:
    if activation is None or type(activation) in _SAME:
        return True
    module = getattr(activation, "__module__", "") or ""
    return module.startswith("keras.") and getattr(activation, "__name__", "") in _ELEMENTWISE


def _dropout(channels: Channels, call: Call, state: State) -> State | None:
    shape = getattr(call.operation, "noise_shape", None)
    if shape is None or (len(shape) >= -state.axis and shape[state.axis] in (None, 1)):
        return state
    return stop(channels, call, [(None, state)], f"{call.operation.name!r} has a noise shape")


def _rescaling(channels: Channels, call: Call, state: State) -> State | None:
    layer = call.operation
    if np.ndim(layer.scale) == np.ndim(layer.offset) == 0:
        return state
    return stop(channels, call, [(None, state)], f"{layer.name!r} has a number per channel")


def _spatial(channels: Channels, call: Call, state: State) -> State | None:
    """Pooling, padding, cropping and upsampling: along all axes but that of the channels."""
    axis = _channel_axis(call)
    labels = _along(channels, call, state, axis)
    if labels is None:
        return None
    same_rank = len(call.outputs.shape) == len(call.tensors[0].shape)
    return State(axis if same_rank else -1, labels)


def _depthwise(channels: Channels, call: Call, state: State) -> State | None:
    layer, axis = call.operation, _channel_axis(call)
    labels = _along(channels, call, state, axis)
    if labels is None:
        return None
    made = np.repeat(labels, layer.depth_multiplier)
    channels.slice(layer, "kernel", -2, labels)
    channels.slice(layer, "bias", 0, made)
    if not _is_elementwise(layer.activation):
        channels.freeze(labels, f"the activation of {layer.name!r} mixes channels")
    return State(axis, made)


def _normalization(channels: Channels, call: Call, state: State) -> State | None:
    layer = call.operation
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    rank = len(call.tensors[0].shape)
    places = [axis if axis < 0 else axis - rank for axis in axes]
    labels = _along(channels, call, state, places[0] if len(places) == 1 else 0)
    if labels is None:
        return None
    for weight in layer.weights:
        channels.slice(layer, weight.name, 0, labels)
    return state


def _prelu(channels: Channels, call: Call, state: State) -> State:
    alpha = call.operation.alpha
    if alpha.shape[state.axis] == len(state.labels):
        channels.slice(call.operation, "alpha", state.axis, state.labels)
    return state


def _permute(channels: Channels, call: Call, state: State) -> State:
    place = len(call.tensors[0].shape) + state.axis  # from 1, as `dims` counts
    dims = list(call.operation.dims)
    return State(dims.index(place) - len(dims), state.labels)


def _flatten(channels: Channels, call: Call, state: State) -> State | None:
    shape = call.tensors[0].shape[1:]
    if None in shape:
        return stop(channels, call, [(None, state)], f"{call.operation.name!r} has an open shape")
    labels = _spread(state, shape)
    if call.operation.data_format == "channels_first" and len(shape) > 1:
        labels = np.moveaxis(labels, 0, -1)  # Keras turns it around first
    return State(-1, labels.ravel())


def _reshape(channels: Channels, call: Call, state: State) -> State | None:
    """Channels end up along the last axis; those that then share a place are tied."""
    layer, before, after = call.operation, call.tensors[0].shape[1:], call.outputs.shape[1:]
    if None in before or None in after:
        if state.axis == -1 and after[-1] == len(state.labels):
            labels = state.labels
        else:
            return stop(channels, call, [(None, state)], f"{layer.name!r} has an open shape")
    else:
        table = _spread(state, before).reshape(-1, after[-1])
        labels = table[0]
        for row in table[1:]:
            if not np.array_equal(row, labels):
                channels.join(labels, row)
    if layer.target_shape[-1] != -1:
        channels.size(layer, "target_shape", labels)
    return State(-1, labels)


def _spread(state: State, shape: tuple[int, ...]) -> np.ndarray:
    """The label of each number in a tensor of this shape."""
    sides = [1] * len(shape)
    sides[state.axis] = len(state.labels)
    return np.broadcast_to(state.labels.reshape(sides), shape)


# === Table ===


def _each(*names: str) -> list[Any]:
    """Layers for 1, 2 and 3 dimensions, as far as there are some."""
    full = [name.replace("#", f"{rank}D") for name in names for rank in (1, 2, 3)]
    return [getattr(_L, name) for name in full if hasattr(_L, name)]


_TRANSPOSED = frozenset(_each("Conv#Transpose"))
_POOLS = ("MaxPooling#", "AveragePooling#", "GlobalMaxPooling#", "GlobalAveragePooling#")
# Rule, the names of the weights that it knows, the kinds of layers that it is for.
_ENTRIES: tuple[tuple[Rule, tuple[str, ...], list[Any]], ...] = (
    (_convolution, ("kernel", "bias"), _each("Conv#", "Conv#Transpose")),
    (_separable, ("depthwise_kernel", "pointwise_kernel", "bias"), _each("SeparableConv#")),
    (_dense, ("kernel", "bias"), [_L.Dense]),
    (_embedding, ("embeddings",), [_L.Embedding]),
    (_depthwise, ("kernel", "bias"), _each("DepthwiseConv#")),
    (
        _normalization,
        ("gamma", "beta", "moving_mean", "moving_variance"),
        [_L.BatchNormalization, _L.LayerNormalization],
    ),
    (_prelu, ("alpha",), [_L.PReLU]),
    (_spatial, (), _each(*_POOLS, "ZeroPadding#", "Cropping#", "UpSampling#")),
    (same, (), [*_SAME, _L.RepeatVector]),
    (_activation, (), [_L.Activation]),
    (_dropout, (), [_L.Dropout]),
    (_rescaling, (), [_L.Rescaling]),
    (_permute, (), [_L.Permute]),
    (_flatten, (), [_L.Flatten]),
    (_reshape, (), [_L.Reshape]),
)
_RULES = {kind: (rule, weights) for rule, weights, kinds in _ENTRIES for kind in kinds}
_MAKERS = frozenset(
    kind
    for kind, (rule, _) in _RULES.items()
    if rule in (_convolution, _separable, _dense, _embedding)
)
