"""A model built anew from the record of its calls, with the weights that stay."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bigzoo.compress._channels import Channels, kept_places
from bigzoo.compress._record import (
    Call,
    Link,
    Record,
    copy_of,
    has_graph,
    record,
    same_random_numbers,
    starts_of,
)
from bigzoo.train._state import sync, value_of


def weights_of(recorded: Record) -> dict[int, dict[str, np.ndarray]]:
    """Layer's id -> name of the weight -> a copy of its value, for layers with such names."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for call in recorded.calls:
        layer = call.operation
        if isinstance(layer, keras.layers.Layer) and id(layer) not in found:
            found[id(layer)] = {one.name: np.array(value_of(one)) for one in layer.weights}
    return found


def copy_with_weights(model: keras.Model) -> keras.Model:
    """A copy of `model` in its own form, nested models included, uncompiled."""
    return rebuild(model, record(model, opened=False), Channels(), set())


def note(model: keras.Model, made: keras.Model) -> None:
    """Carry over what `bigzoo.fit` has left on a model."""
    for name in ("class_names", "image_size"):
        if getattr(model, name, None) is not None:
            setattr(made, name, getattr(model, name))


def rebuild(model: keras.Model, recorded: Record, channels: Channels, cut: set[int]) -> keras.Model:
    """A copy of `model` without the channels in `cut`, uncompiled.

    Names, settings and dtype policies are those of the given layers. Where nested models were
    opened, a second layer of the same name gets a number behind it.
    """
    sync(model)
    made: dict[int, Any] = {}
    names = {layer.name for layer in recorded.input_layers}
    inputs = [_input(layer) for layer in recorded.input_layers]
    values = dict(zip(map(id, keras.tree.flatten(recorded.inputs)), inputs, strict=True))
    with same_random_numbers():
        for step in recorded.steps:
            if isinstance(step, Link):
                for source, target in zip(step.sources, step.targets, strict=True):
                    values[id(target)] = values[id(source)]
                continue
            operation = step.operation
            if id(operation) not in made:
                made[id(operation)] = _smaller(operation, channels, cut, names)
            _replay(step, made[id(operation)], values)
        if isinstance(model, keras.Sequential) and not recorded.nested:
            layers = [made[id(call.operation)] for call in recorded.calls]
            result = keras.Sequential([inputs[0], *layers], name=model.name)
        else:
            result = keras.Model(
                keras.tree.map_structure(lambda tensor: values[id(tensor)], recorded.inputs),
                keras.tree.map_structure(lambda tensor: values[id(tensor)], recorded.outputs),
                name=model.name,
            )
    for call in recorded.calls:
        _give_weights(call.operation, made[id(call.operation)], channels, cut)
    note(model, result)
    return result


def _input(layer: Any) -> Any:
    return keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name)


def _smaller(operation: Any, channels: Channels, cut: set[int], names: set[str]) -> Any:
    """A copy of a layer or an operation with fewer channels."""
    if has_graph(operation):
        names.add(operation.name)
        return copy_with_weights(operation)
    changes: dict[str, Any] = {}
    for setting, labels in channels.sizes.get(id(operation), {}).items():
        count = int(kept_places(channels, labels, cut).sum())
        changes[setting] = count
        if setting == "target_shape":
            changes[setting] = (*operation.target_shape[:-1], count)
    name, number = operation.name, 1
    while name in names:
        number += 1
        name = f"{operation.name}_{number}"
    names.add(name)
    if name != operation.name:
        changes["name"] = name
    changes.update(dict.fromkeys(_held_starts(operation), "zeros"))
    return copy_of(operation, changes or None)


def _held_starts(operation: Any) -> list[str]:
    """Of `starts_of` those that the layer itself keeps, so that they can be put back."""
    return [name for name in starts_of(operation) if name in vars(operation)]


def _replay(call: Call, operation: Any, values: dict[int, Any]) -> None:
    def new(leaf: Any) -> Any:
        return values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

    args, kwargs = keras.tree.map_structure(new, (call.args, call.kwargs))
    outputs = operation(*args, **kwargs)
    found = zip(keras.tree.flatten(call.outputs), keras.tree.flatten(outputs), strict=True)
    values.update({id(before): after for before, after in found})


def _give_weights(old: Any, new: Any, channels: Channels, cut: set[int]) -> None:
    if not isinstance(old, keras.layers.Layer) or has_graph(old):
        return  # a nested model has got them already
    slices = channels.slices.get(id(old), [])
    for source, target in zip(old.variables, new.variables, strict=True):
        value = np.array(value_of(source))
        for one in slices:
            if one.weight == source.name:
                value = np.compress(kept_places(channels, one.labels, cut), value, axis=one.axis)
        target.assign(value)
    for name in _held_starts(old):
        setattr(new, name, getattr(old, name))
