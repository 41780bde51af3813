"""Layers and tensors inside a functional model, found by name or by what they are."""

from __future__ import annotations

from typing import Any

import keras

from bigzoo._errors import message, suggest


def check_graph(model: Any) -> list[Any]:
    """The operations of a functional model or a built Sequential, from input to output."""
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    try:
        known = bool(model.inputs and model.outputs)
    except (AttributeError, ValueError):
        known = False
    if not known:
        expected = "a functional model or a built Sequential, whose layers are known"
        raise ValueError(message("model", type(model).__name__, expected))
    return list(getattr(model, "operations", None) or model.layers)


def inputs_of(operation: Any) -> list[Any]:
    """The tensors that an operation took when it was first called."""
    try:
        return list(keras.tree.flatten(operation.input))
    except (AttributeError, ValueError):
        return []


def output_of(model: keras.Model, operation: Any) -> Any:
    """The tensor that an operation of `model` makes; None if it makes several."""
    if isinstance(operation, keras.Model):
        # Its own `output` belongs to its own graph; in this one the next layer has it as input.
        for other in check_graph(model):
            for tensor in inputs_of(other):
                below = part(model, tensor)
                if below is not None and below.output_names == [operation.name]:
                    return tensor
        return model.outputs[0] if last_operation(model) is operation else None
    try:
        tensors = list(keras.tree.flatten(operation.output))
    except (AttributeError, ValueError):
        return None
    return tensors[0] if len(tensors) == 1 else None


def part(model: keras.Model, tensors: Any) -> Any:
    """The part of `model` from its inputs to `tensors`; None where they aren't of its graph."""
    # A Sequential has no `input` before it was called.
    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    try:
        return keras.Model(given, tensors)
    except (TypeError, ValueError):
        return None


def last_operation(model: keras.Model) -> Any:
    """What makes the first output of `model`."""
    if isinstance(model, keras.Sequential):
        return model.layers[-1]
    name = model.output_names[0]
    return next(operation for operation in model.operations if operation.name == name)


def named(model: keras.Model, layer: Any, wanted: str) -> Any:
    """The operation of this name (or the layer itself); an error names the nearest ones."""
    operations = check_graph(model)
    for operation in operations:
        if operation is layer or operation.name == layer:
            return operation
    if not isinstance(layer, str) and not isinstance(layer, keras.layers.Layer):
        raise TypeError(message("layer", layer, f"the name of {wanted}, or None"))
    names = [operation.name for operation in operations]
    name = layer if isinstance(layer, str) else layer.name
    raise ValueError(message("layer", name, f"the name of {wanted}", suggest(name, names)))
