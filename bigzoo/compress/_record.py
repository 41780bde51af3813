"""The calls that a functional model consists of, in order, nested models opened."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from bigzoo._errors import shorten
from bigzoo.train._blocks import check_graph


@dataclass(frozen=True)
class Call:
    """One call of an operation on symbolic tensors.

    Attributes:
        operation: The layer or the operation of `keras.ops`, as the given model has it.
        args, kwargs: What it is called with.
        outputs: What comes out.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    @property
    def tensors(self) -> list[Any]:
        """The symbolic tensors that it takes, masks left out."""
        return _tensors(self.args, self.kwargs)


@dataclass(frozen=True)
class Link:
    """The same tensors inside and outside of a nested model."""

    sources: list[Any]
    targets: list[Any]


@dataclass(frozen=True)
class Record:
    """What a model computes.

    Attributes:
        inputs, outputs: Symbolic tensors in the form that the model takes and gives.
        input_layers: The layers that make the inputs, in order.
        steps: Calls from inputs to outputs, and links where a nested model begins and ends.
        nested: Names of the models that were opened.
    """

    inputs: Any
    outputs: Any
    input_layers: list[Any]
    steps: list[Call | Link]
    nested: list[str] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        return [step for step in self.steps if isinstance(step, Call)]


def record(model: keras.Model, training: bool | None = None, *, opened: bool = True) -> Record:
    """The calls of `model`, from a copy of it: the model itself is left as it is.

    Args:
        model: A functional model or a built Sequential.
        opened: Whether to go into nested models; else they count as one call.
        training: What a surrounding model calls this one with.

    Raises:
        TypeError, ValueError: if the graph of layers isn't known, or a layer can't be copied.
    """
    check_graph(model)
    if _has_own_call(model):
        fix = "Make it with keras.Model(inputs, outputs) from the layers alone."
        expected = "a model that computes what its graph of layers says"
        got = f"{type(model).__name__}, which has a `call` of its own"
        raise ValueError(f"`model` is a {got}; expected {expected}. {fix}")
    functional = _bare(model)
    originals: dict[int, Any] = {}
    copies: list[Any] = []  # kept, so that no address is given out twice
    steps: list[Call | Link] = []
    nested: list[str] = []

    def copy(operation: Any) -> Any:
        made = _template(operation)
        copies.append(made)
        originals[id(made)] = operation
        return made

    def call(made: Any, *args: Any, **kwargs: Any) -> Any:
        operation = originals[id(made)]
        if training is not None and takes_training(operation):
            kwargs["training"] = training
        outputs = made(*args, **kwargs)
        inside = _inside(operation, args, kwargs) if opened else None
        if inside is None:
            steps.append(Call(operation, args, kwargs, outputs))
        else:
            nested.extend([operation.name, *inside.nested])
            steps.append(Link(_tensors(args, kwargs), keras.tree.flatten(inside.inputs)))
            steps.extend(inside.steps)
            steps.append(Link(keras.tree.flatten(inside.outputs), keras.tree.flatten(outputs)))
        return outputs

    with same_random_numbers():
        twin = keras.models.clone_model(functional, clone_function=copy, call_function=call)
    by_output = {id(operation.output): operation for operation in _input_layers(functional)}
    layers = [by_output[id(tensor)] for tensor in functional.inputs]
    return Record(twin.input, twin.output, layers, steps, nested)


def has_graph(operation: Any) -> bool:
    """Whether this is a model whose calls can be recorded."""
    if not isinstance(operation, keras.Model) or _has_own_call(operation):
        return False
    try:
        check_graph(operation)
    except ValueError:
        return False
    return True


def _has_own_call(model: keras.Model) -> bool:
    """Whether a subclass computes something else than its graph."""
    tensor = keras.Input((1,))
    plain = (keras.Sequential.call, type(keras.Model(tensor, tensor)).call)
    return type(model).call not in plain


def _bare(model: keras.Model) -> keras.Model:
    """The same layers as a functional model that isn't compiled.

    Keras compiles what it clones as the original is, and fails at a loss that isn't registered.
    """
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def _template(operation: Any) -> Any:
    """Something of the same kind to call in place of `operation`."""
    if has_graph(operation):
        bare = _bare(operation)
        return keras.models.clone_model(bare, clone_function=_template, recursive=True)
    return copy_of(operation, dict.fromkeys(starts_of(operation), "zeros") or None)


def starts_of(operation: Any) -> list[str]:
    """The settings of a layer of Keras that say how its weights begin.

    Random weights that nobody sees would cost most of the time, above all on JAX.
    """
    is_layer = isinstance(operation, keras.layers.Layer)
    if not is_layer or not type(operation).__module__.startswith("keras."):
        return []
    config = operation.get_config()
    return [name for name, value in config.items() if name.endswith("_initializer") and value]


def copy_of(operation: Any, changes: dict[str, Any] | None = None) -> Any:
    """A new operation of the same settings, but for `changes`."""
    try:
        config = operation.get_config()
        return type(operation).from_config({**config, **(changes or {})})
    except (NotImplementedError, TypeError, ValueError) as error:
        if changes is None and not getattr(operation, "variables", None):
            return operation  # without weights, as a Lambda, it may itself stand in two models
        fix = "Give it a `get_config` that its own `from_config` takes."
        reason = shorten(error)
        raise ValueError(
            f"The layer {operation.name!r} can't be copied: {reason}. {fix}"
        ) from error


def takes_training(operation: Any) -> bool:
    """Whether a layer's call differs between training and inference."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return isinstance(operation, keras.Model) or _has(operation.call, "training")


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Put Python's random numbers back: initializers without a seed draw one from them."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


def _has(function: Callable[..., Any], argument: str) -> bool:
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _inside(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record | None:
    """The calls inside a nested model; None for anything else, and where it isn't to be seen."""
    if not has_graph(operation):
        return None
    tensors = _tensors(args, kwargs)
    shapes = [tuple(tensor.shape) for tensor in operation.inputs]
    if len(tensors) != len(shapes) or any(
        len(tensor.shape) != len(shape) for tensor, shape in zip(tensors, shapes, strict=True)
    ):
        return None
    training = kwargs.get("training")
    return record(operation, training if isinstance(training, bool) else None)


def _tensors(args: Any, kwargs: dict[str, Any]) -> list[Any]:
    leaves = keras.tree.flatten([args, {**kwargs, "mask": None}])
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def _input_layers(model: keras.Model) -> list[Any]:
    return [one for one in model.operations if isinstance(one, keras.layers.InputLayer)]
