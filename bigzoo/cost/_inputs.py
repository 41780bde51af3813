"""The static shapes on which a model is counted, from what the user says and the model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bigzoo._errors import check_int, message, shorten
from bigzoo.cost._program import Spec, Specs


def input_specs(model: keras.Model, batch_size: int, input_shape: Any = None) -> Specs:
    """A `Spec` for each input of `model`, in the structure that the model takes.

    Raises:
        ValueError: for a model without shapes, and for dimensions that are still open.
        TypeError: for what is not a model.
    """
    if not isinstance(model, keras.Model):
        fix = "Give the model itself, such as bz.models.cnn(); build one from its name first."
        raise TypeError(message("model", model, "a keras.Model", fix))
    batch_size = check_int("batch_size", batch_size, minimum=1)
    known = _known_inputs(model)
    if known is None and input_shape is None:
        raise ValueError(
            f"The model {model.name!r} has no input shape yet. Give the shape of one sample, "
            "such as input_shape=(224, 224, 3), or call the model on a batch once."
        )
    wanted = _wanted(known, input_shape)
    specs = keras.tree.map_structure(lambda tensor: _spec(tensor, batch_size), wanted)
    if not _has_graph(model):
        _build(model, specs)
    return specs


def _has_graph(model: keras.Model) -> bool:
    """Whether Keras knows the model's inputs, and so has built every layer."""
    # A subclassed model has no `inputs`; Keras raises different errors for that.
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):
        return False


def _known_inputs(model: keras.Model) -> Any:
    """The model's inputs as symbolic tensors with open dimensions, or None."""
    if isinstance(model, keras.Sequential) and _has_graph(model):
        # One that was built by a call has that call's batch in its graph, and takes any other.
        return _tensors(model.inputs[0].shape, model.inputs[0].dtype)
    if _has_graph(model):
        return model.input
    if not model.built:
        return None
    config = model.get_build_config() or {}
    shape = config.get("input_shape")
    if shape is None:
        shapes = list((config.get("shapes_dict") or {}).values())
        shape = shapes[0] if len(shapes) == 1 else None
    return None if shape is None else _tensors(shape)


def _tensors(shape: Any, dtype: str = "float32") -> Any:
    """Symbolic tensors for nested shapes that include a batch, of whatever size."""
    if isinstance(shape, Mapping):
        return {name: _tensors(part) for name, part in shape.items()}
    if _is_shape(shape):
        return keras.KerasTensor((None, *tuple(shape)[1:]), dtype)
    return [_tensors(part) for part in shape]


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        size is None or hasattr(size, "__index__") for size in value
    )


# --- what the user says ------------------------------------------------------------------------


def _wanted(known: Any, input_shape: Any) -> Any:
    if input_shape is None:
        return known
    if known is None:
        return _from_user(input_shape)
    if isinstance(known, Mapping):
        return _wanted_mapping(known, input_shape)
    if isinstance(known, (list, tuple)):
        shapes = [input_shape] * len(known) if _is_shape(input_shape) else list(input_shape)
        if len(shapes) != len(known):
            expected = f"{len(known)} shapes, one for each input"
            raise ValueError(message("input_shape", input_shape, expected))
        return [_fitted(k, s) for k, s in zip(known, shapes, strict=True)]
    return _fitted(known, input_shape)


def _wanted_mapping(known: Mapping[str, Any], input_shape: Any) -> dict[str, Any]:
    if _is_shape(input_shape):  # one shape for all, such as the length of ids and mask
        return {name: _fitted(tensor, input_shape) for name, tensor in known.items()}
    if not isinstance(input_shape, Mapping) or set(input_shape) != set(known):
        names = ", ".join(map(repr, known))
        raise ValueError(
            message("input_shape", input_shape, f"one shape, or a dict with a shape for {names}")
        )
    return {name: _fitted(tensor, input_shape[name]) for name, tensor in known.items()}


def _from_user(input_shape: Any) -> Any:
    if isinstance(input_shape, Mapping):
        return {name: _from_user(part) for name, part in input_shape.items()}
    if isinstance(input_shape, keras.KerasTensor):
        return input_shape
    if _is_shape(input_shape):
        return keras.KerasTensor((None, *_sizes(input_shape)), "float32")
    if isinstance(input_shape, Sequence) and not isinstance(input_shape, str):
        return [_from_user(part) for part in input_shape]
    expected = "a shape without the batch, or a list or dict of shapes"
    raise TypeError(message("input_shape", input_shape, expected))


def _fitted(known: Any, shape: Any) -> Any:
    """`known` with its open dimensions filled from `shape`, and none contradicted."""
    if isinstance(shape, keras.KerasTensor):
        return shape
    if not _is_shape(shape):
        expected = "a shape without the batch, such as (224, 224, 3)"
        raise TypeError(message("input_shape", shape, expected))
    sizes, own = _sizes(shape), tuple(known.shape)[1:]
    agree = len(sizes) == len(own) and all(
        mine in (None, given) for mine, given in zip(own, sizes, strict=True)
    )
    if not agree:
        fix = ""
        if len(sizes) == len(own) + 1:
            fix = "Leave the batch out: it is `batch_size`."
        expected = f"a shape that fits the model's input {_named(known)}, {own} without the batch"
        raise ValueError(message("input_shape", tuple(shape), expected, fix))
    return keras.KerasTensor((None, *sizes), known.dtype, name=known.name)


def _sizes(shape: Any) -> tuple[int, ...]:
    if any(size is None or size < 1 for size in shape):
        fix = "Give every dimension of one sample, without the batch."
        raise ValueError(message("input_shape", tuple(shape), "integers of at least 1", fix))
    return tuple(map(int, shape))


def _spec(tensor: Any, batch_size: int) -> Spec:
    shape = tuple(tensor.shape)
    if shape[:1] not in ((None,), (batch_size,)):
        raise ValueError(
            message("batch_size", batch_size, f"{shape[0]}, which the model's input has fixed")
        )
    if None in shape[1:]:
        example = tuple(64 if size is None else size for size in shape[1:])
        raise ValueError(
            f"The input {_named(tensor)} has open dimensions: {shape}. Give `input_shape` without "
            f"the batch, such as input_shape={example}: the cost depends on it."
        )
    return Spec((batch_size, *shape[1:]), keras.backend.standardize_dtype(tensor.dtype))


def _named(tensor: Any) -> str:
    return repr(getattr(tensor, "name", "input"))


def _build(model: keras.Model, specs: Specs) -> None:
    """Makes the weights that a model's first call would make.

    Also for one that says it is built: layers inside may not be, and weights made in a trace would
    stay behind as abstract values.
    """
    inputs = keras.tree.map_structure(lambda s: keras.KerasTensor(s.shape, s.dtype), specs)
    try:
        model(inputs)
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} can't be built for inputs of this `input_shape`: "
            f"{shorten(error)}. A model is called with one array, or one list or dict of them."
        ) from error
