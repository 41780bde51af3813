"""Follow the channels of a recorded model from its inputs to its outputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bigzoo.compress._channels import Channels, State
from bigzoo.compress._record import Call, Link, Record
from bigzoo.compress._rules import has_unknown_weights, makes_channels, rule_of, same, stop

_L = keras.layers
Given = list[tuple[Any, "State | None"]]

# Operations of `keras.ops` that treat each number by itself, by the names of their classes.
_UNARY_NAMES = """
    Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu Sigmoid HardSigmoid LogSigmoid Tanh HardTanh
    Softplus Softsign HardSilu Exp Abs Absolute Negative Square Sqrt Cast Identity
"""
_UNARY_OPS = frozenset(_UNARY_NAMES.split())
_BINARY_OPS = frozenset(
    ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum")
)
_MERGES = (_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum)
_RECURRENT = (_L.RNN, _L.Bidirectional, _L.ConvLSTM1D, _L.ConvLSTM2D, _L.ConvLSTM3D)
_ATTENTION = (_L.MultiHeadAttention, _L.GroupQueryAttention, _L.Attention, _L.AdditiveAttention)


def walk(record: Record) -> Channels:
    """Follow the channels of a model from its inputs to its outputs."""
    channels = Channels()
    states: dict[int, State] = {}
    for step in record.steps:
        if isinstance(step, Link):
            for source, target in zip(step.sources, step.targets, strict=True):
                if id(source) in states:
                    states[id(target)] = states[id(source)]
            continue
        found = _after(channels, step, states)
        if found is not None:
            states[id(step.outputs)] = found
    outputs = [states.get(id(tensor)) for tensor in keras.tree.flatten(record.outputs)]
    channels.keep_outputs([state.labels for state in outputs if state is not None])
    return channels


def _after(channels: Channels, call: Call, states: dict[int, State]) -> State | None:
    """The channels of what a call makes; None if all of them stay."""
    operation = call.operation
    kind = type(operation)
    given = [(tensor, states.get(id(tensor))) for tensor in call.tensors]
    if kind in _MERGES or (_is_op(operation) and kind.__name__ in _BINARY_OPS):
        return _merge(channels, call, given)
    if kind is _L.Concatenate:
        return _concatenate(channels, call, given)
    rule = rule_of(kind)
    if rule is None and _is_op(operation) and kind.__name__ in _UNARY_OPS:
        rule = same
    one_output = isinstance(call.outputs, keras.KerasTensor)
    if rule is None or len(given) != 1 or not one_output or has_unknown_weights(operation):
        return stop(channels, call, given, _reason(operation))
    state = given[0][1]
    # A shared layer without weights may do with each call's channels what it likes.
    if getattr(operation, "weights", None) or kind is _L.Reshape:
        channels.again(operation, state)
    if state is None and not makes_channels(kind):
        return None
    return rule(channels, call, state or State(-1, np.empty(0, np.int64)))


def _reason(operation: Any) -> str:
    kind = type(operation).__name__
    if isinstance(operation, _RECURRENT):
        return f"{operation.name!r} is recurrent"
    if isinstance(operation, _ATTENTION):
        return f"{operation.name!r} is attention"
    return f"{operation.name!r} ({kind}) may mix channels"


def _is_op(operation: Any) -> bool:
    is_layer = isinstance(operation, keras.layers.Layer)
    return not is_layer and type(operation).__module__.startswith("keras.")


# === Layers that bring channels together ===


def _merge(channels: Channels, call: Call, given: Given) -> State | None:
    """Sums, products and the like, number by number."""
    why = f"{call.operation.name!r} ties it to what can't be cut"
    tracked = [state for _, state in given if state is not None]
    if not tracked:
        return None
    ranks = {len(tensor.shape) for tensor, _ in given}
    if _is_op(call.operation) and (len(ranks) > 1 or _has_arrays(call)):
        return stop(channels, call, given, why)
    main = max(tracked, key=lambda state: len(state.labels))
    for tensor, state in given:
        place = len(tensor.shape) + main.axis  # Keras lines shapes up at their ends
        size = tensor.shape[place] if place >= 1 else 1
        if state is None:
            if size != 1:
                channels.freeze(main.labels, why)
        elif state.axis != main.axis or len(state.labels) != len(main.labels):
            channels.freeze(state.labels, why)
            if size != 1:
                channels.freeze(main.labels, why)
        elif state is not main:
            channels.join(main.labels, state.labels)
    return main


def _has_arrays(call: Call) -> bool:
    leaves = keras.tree.flatten([call.args, call.kwargs])
    return any(not isinstance(leaf, keras.KerasTensor) and np.ndim(leaf) > 0 for leaf in leaves)


def _concatenate(channels: Channels, call: Call, given: Given) -> State | None:
    layer = call.operation
    tracked = [state for _, state in given if state is not None]
    if not tracked:
        return None
    main, rank = tracked[0], len(call.outputs.shape)
    axis = layer.axis if layer.axis < 0 else layer.axis - rank
    why = f"{layer.name!r} ties it to what can't be cut"
    if any(state.axis != main.axis for state in tracked):
        return stop(channels, call, given, why)
    is_open = any(state is None and tensor.shape[axis] is None for tensor, state in given)
    if axis == main.axis and not is_open:
        parts = [
            channels.fixed(int(tensor.shape[axis]), why) if state is None else state.labels
            for tensor, state in given
        ]
        return State(axis, np.concatenate(parts))
    if len(tracked) < len(given):
        return stop(channels, call, given, why)
    for state in tracked[1:]:
        channels.join(main.labels, state.labels)
    return main
