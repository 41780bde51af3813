"""From a model to its `Program`, by the active backend's own trace. Nothing runs."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras

from bigzoo._errors import shorten
from bigzoo.cost._live import without_dead
from bigzoo.cost._program import Program, Specs

# Of `keras.RematScope`, which Keras keeps on each layer that was made inside one; no public name
# tells it. tests/cost/test_contracts.py pins it.
_REMAT = "_remat_mode"


# One trace at a time: it shadows methods of the model's layers, and stops the garbage collector.
_ONE_AT_A_TIME = threading.RLock()


def trace(model: keras.Model, specs: Specs, training: bool) -> Program:
    """The forward pass of `model` on inputs of these static shapes.

    Raises:
        ValueError: if the model can't run on such inputs, with the backend's own reason.
    """
    backend = keras.backend.backend()
    layers = named_layers(model)
    try:
        with _ONE_AT_A_TIME, _no_garbage_collection():
            program = _tracer(backend)(model, specs, training, layers)
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} can't be traced on {backend} for inputs of "
            f"{_describe(specs)}: {shorten(error)}. {_fix(model, backend)}"
        ) from error
    program.backend = backend
    return without_dead(program)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A trace makes so many small objects that the collector takes a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _fix(model: keras.Model, backend: str) -> str:
    if backend == "tensorflow" and rematerialised(model):
        return (
            "Layers of a keras.RematScope don't run in TensorFlow's graphs: set KERAS_BACKEND=jax."
        )
    return "Give `input_shape` as the model takes it."


def _tracer(backend: str) -> Callable[..., Program]:
    if backend == "tensorflow":
        from bigzoo.cost._trace_tensorflow import trace_tensorflow

        return trace_tensorflow
    if backend == "jax":
        from bigzoo.cost._trace_jax import trace_jax

        return trace_jax
    if backend == "torch":
        return _trace_torch
    raise ValueError(
        f"the backend {backend!r} has no tracer; set KERAS_BACKEND to tensorflow, jax or torch"
    )


def _trace_torch(
    model: keras.Model, specs: Specs, training: bool, layers: dict[str, keras.Layer]
) -> Program:
    from bigzoo.cost._trace_torch import trace as trace_torch

    running = [""]

    @contextlib.contextmanager
    def scope(name: str) -> Iterator[None]:
        running.append(name)
        try:
            yield
        finally:
            running.pop()

    with layer_scopes(layers, scope):
        return trace_torch(model, specs, training, lambda: running[-1])


def named_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Every layer of the model by name, those of nested models as "outer/inner"."""
    found: dict[str, keras.Layer] = {}
    _collect(model, "", found, set())
    return found


def _collect(model: keras.Model, prefix: str, found: dict[str, Any], seen: set[int]) -> None:
    for layer in model.layers:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        name = _free_name(f"{prefix}{layer.name}", found)
        if isinstance(layer, keras.Model):
            _collect(layer, f"{name}/", found, seen)
        else:
            found[name] = layer


def _free_name(name: str, taken: Iterable[str]) -> str:
    """The name, with a number where another layer has it: subclassed models allow that."""
    numbered, number = name, 1
    while numbered in taken:
        number += 1
        numbered = f"{name} ({number})"
    return numbered


def rematerialised(model: keras.Model, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
    """Layer -> how many times more its forward pass runs for the backward pass.

    Args:
        model: The model; one made in a scope is rematerialised itself, around its layers.
        sizes: Layer -> values in its output, for the scopes that go by these.
    """
    found: dict[str, int] = {}
    for name, layer in named_layers(model).items():
        outer = sum(_is_rematerialised(one, 0) for one in _models_around(model, layer))
        times = outer + _is_rematerialised(layer, (sizes or {}).get(name, 0))
        if times:
            found[name] = times
    return found


def _models_around(model: keras.Model, layer: keras.Layer) -> list[keras.Model]:
    """The models that hold a layer, from the outermost in."""
    if any(one is layer for one in model.layers):
        return [model]
    for one in model.layers:
        if isinstance(one, keras.Model) and (inner := _models_around(one, layer)):
            return [model, *inner]
    return []


def _is_rematerialised(layer: keras.Layer, output_size: int) -> bool:
    mode = getattr(layer, _REMAT, None)
    kind = getattr(mode, "mode", None)
    if kind == "list_of_layers":
        return layer.name in (getattr(mode, "layer_names", None) or ())
    if kind == "larger_than":
        return output_size > getattr(mode, "output_size_threshold", 0)
    return kind == "full"


@contextlib.contextmanager
def layer_scopes(
    layers: dict[str, keras.Layer], scope: Callable[[str], AbstractContextManager[Any]]
) -> Iterator[None]:
    """Inside, each layer's computation runs in `scope(name)`.

    The method is shadowed on the object, not on its class, and given back at the end.
    """
    shadowed = []
    try:
        for name, layer in layers.items():
            for method in ("call", "quantized_call"):
                original = getattr(layer, method, None)
                if original is None:
                    continue
                shadowed.append((layer, method, layer.__dict__.get(method)))
                layer.__dict__[method] = _in_scope(original, scope, name)
        yield
    finally:
        for layer, method, before in reversed(shadowed):
            if before is None:
                layer.__dict__.pop(method, None)
            else:
                layer.__dict__[method] = before


def _in_scope(
    method: Callable[..., Any], scope: Callable[[str], AbstractContextManager[Any]], name: str
) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with scope(name):
            return method(*args, **kwargs)

    return call


def _describe(specs: Any) -> str:
    if isinstance(specs, dict):
        return ", ".join(f"{name}: {_describe(spec)}" for name, spec in specs.items())
    if isinstance(specs, (list, tuple)):
        return ", ".join(map(_describe, specs))
    return f"shape {specs.shape} and dtype {specs.dtype}"
