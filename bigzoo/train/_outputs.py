"""What a model's outputs are: the activation that makes them, how many units, which shape.

Losses and metrics follow from this, and so do the checks before training. Only what can be read
with certainty is reported; where nothing can be known the kind is "unknown".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import message

# Names of activation functions as Keras and the backends spell them -> our kind.
_KINDS = {
    "softmax": "softmax",
    "softmax_v2": "softmax",
    "sigmoid": "sigmoid",
    "linear": "linear",
    "identity": "linear",
    "tied_logits": "linear",
}
# Products with the rows of a table of tokens, the one that the inputs are looked up in.
_TIED_LOGITS = "tied_logits"
# A softmax whose axis is not the last one of the output, so that the last axis doesn't sum to 1.
_OTHER_AXIS = "softmax_other_axis"
# Operations and layers that are an activation themselves; their class names.
_ACTIVATIONS = """
    celu elu exponential exp gelu glu hard_shrink hard_sigmoid hard_swish hard_silu hard_tanh
    leaky_relu log_sigmoid log_softmax mish p_relu relu relu6 selu sigmoid silu softmax softplus
    soft_shrink softsign sparse_plus sparsemax squareplus swish tanh tanh_shrink threshold
"""
_ACTIVATION_CLASSES = {name.replace("_", ""): name for name in _ACTIVATIONS.split()}
# These move or rename values and never change them (Dropout: not in inference), so what their
# input is, they are.
_PASS_THROUGH = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.ActivityRegularization,
)
# Their `activation` is applied inside the recurrence and not to the output as a whole.
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)


@dataclass(frozen=True)
class OutputInfo:
    """One output of a model.

    Attributes:
        name: The key that a dict of losses or targets uses for this output.
        layer: Name of the layer (or operation) that makes it, or None if not known.
        kind: "softmax" (over the last axis), "sigmoid", "linear", "other" (another activation, see
            `activation`) or "unknown".
        activation: Name of the activation, such as "relu"; "unknown" where it can't be known.
        units: Size of the last axis, or None if not known.
        shape: Shape with None for the batch and unknown sizes, or None if not known.
        logits: Whether these are surely logits of classes although no activation says so: those of
            a language model, made by the table that its tokens are looked up in.
    """

    name: str
    layer: str | None
    kind: str
    activation: str
    units: int | None
    shape: tuple[int | None, ...] | None
    logits: bool = False


def describe_outputs(model: keras.Model) -> list[OutputInfo]:
    """Describe each output of `model`, in the order of `keras.tree.flatten(model.output)`.

    A subclassed model that doesn't say what it computes gives one `OutputInfo` of kind "unknown".
    A `Sequential` that isn't built yet has a kind but may have no shape.

    Args:
        model: Any Keras model: functional, Sequential, subclassed, compiled or not.

    Returns:
        A list of `OutputInfo`, never empty.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    if isinstance(model, keras.Sequential):
        return [_describe_sequential(model)]
    operations = _operations(model)
    tensors = _outputs(model)
    names = list(getattr(model, "output_names", []))
    if not operations or not tensors or len(names) != len(tensors):
        return [OutputInfo("output", None, "unknown", "unknown", None, None)]
    makers = {operation.name: operation for operation in operations}
    keys = _output_keys(model)
    described = []
    for tensor, name in zip(tensors, names, strict=True):
        activation = _activation_of_tensor(makers.get(name), tensor, operations)
        key = keys.get(id(tensor), name)
        described.append(_info(key, name, activation, tuple(tensor.shape)))
    return described


def _describe_sequential(model: keras.Sequential) -> OutputInfo:
    tensors = _outputs(model)
    shape = tuple(tensors[0].shape) if tensors else None
    if not model.layers:
        return OutputInfo(model.name, None, "unknown", "unknown", None, shape)
    activation = _activation_of_chain(model.layers)
    last = model.layers[-1].name
    if shape is None:
        units = getattr(model.layers[-1], "units", None)
        kind = _kind(activation)
        return OutputInfo(last, last, kind, activation, units, None)
    return _info(last, last, activation, shape)


def _info(name: str, layer: str, activation: str, shape: tuple[int | None, ...]) -> OutputInfo:
    units = shape[-1] if len(shape) > 1 else None
    if activation == _TIED_LOGITS:
        return OutputInfo(name, layer, "linear", "linear", units, shape, logits=True)
    return OutputInfo(name, layer, _kind(activation), activation, units, shape)


def _kind(activation: str) -> str:
    if activation == "unknown":
        return "unknown"
    return _KINDS.get(activation, "other")


def _operations(model: keras.Model) -> list[Any]:
    """The operations of a functional model; none for one that is defined by its `call`."""
    return list(getattr(model, "operations", []))


def _outputs(model: keras.Model) -> list[Any]:
    try:
        return list(model.outputs)
    except AttributeError:  # a Sequential that isn't built, or a subclassed model
        return []


def _output_keys(model: keras.Model) -> dict[int, str]:
    """Keys of a dict of outputs: these, not the layers' names, name the losses and targets."""
    structure = model.output
    if not isinstance(structure, dict):
        return {}
    return {id(tensor): str(key) for key, tensor in structure.items()}


def _activation_of_chain(layers: list[Any]) -> str:
    """Activation at the end of a chain of layers."""
    sizes = {out.shape[-1] for out in _tensors_of(layers[-1], "output")}
    for layer in reversed(layers):
        found = activation_of(layer)
        outputs = _tensors_of(layer, "output")
        if found == "softmax" and sizes and {out.shape[-1] for out in outputs} != sizes:
            return _OTHER_AXIS
        if found is not None:
            return found
    return "unknown"


def _activation_of_tensor(maker: Any, tensor: Any, operations: Iterable[Any]) -> str:
    """Activation that made `tensor`, walking back over reshapes and their like."""
    makers = {id(out): op for op in operations for out in _tensors_of(op, "output")}
    maker = maker or makers.get(id(tensor))
    size = tensor.shape[-1]
    for _ in range(len(makers) + 1):  # a graph can't be deeper than it has operations
        if _is_tied(tensor, makers, operations):
            return _TIED_LOGITS
        if maker is None:
            return "unknown"
        if type(maker).__name__ == "Add":  # with a bias, logits stay logits
            parts = [_is_tied(one, makers, operations) for one in _tensors_of(maker, "input")]
            return _TIED_LOGITS if any(parts) else "unknown"
        found = _activation_of_nested(maker, tensor)
        if found == "softmax" and tensor.shape[-1] != size:
            return _OTHER_AXIS
        if found is not None:
            return found
        inputs = _tensors_of(maker, "input")
        if len(inputs) != 1:
            return "unknown"
        tensor = inputs[0]
        maker = makers.get(id(tensor))
    return "unknown"


def _is_tied(tensor: Any, makers: dict[int, Any], operations: Iterable[Any]) -> bool:
    """Whether `tensor` is the result of a second, reversed call of a table of tokens.

    What a layer gave when it was called again isn't among its outputs, so no maker is known.
    """
    sizes = [
        operation.input_dim
        for operation in operations
        if isinstance(operation, keras.layers.ReversibleEmbedding)
    ]
    return id(tensor) not in makers and len(tensor.shape) == 3 and tensor.shape[-1] in sizes


def _activation_of_nested(maker: Any, tensor: Any) -> str | None:
    """`activation_of`, with the right output of a model that is used as a layer."""
    if not isinstance(maker, keras.Model):
        return activation_of(maker)
    inner = describe_outputs(maker)
    positions = [i for i, out in enumerate(_tensors_of(maker, "output")) if out is tensor]
    if len(inner) == 1:
        return inner[0].activation
    return inner[positions[0]].activation if positions else "unknown"


def _tensors_of(operation: Any, which: str) -> list[Any]:
    """Flat inputs or outputs of an operation; empty where it was never called symbolically."""
    try:
        return list(keras.tree.flatten(getattr(operation, which)))
    except (AttributeError, ValueError):
        return []


def activation_of(layer: Any) -> str | None:
    """Name of the activation that `layer` ends with; None where it passes its input through.

    "linear" means that any real number can come out. "unknown" means that it can't be known.
    """
    if isinstance(layer, keras.Model):
        return describe_outputs(layer)[0].activation
    if isinstance(layer, _PASS_THROUGH):
        return None
    if isinstance(layer, keras.layers.TimeDistributed):
        return activation_of(layer.layer)
    if isinstance(layer, _RECURRENT):
        return _recurrent_activation(layer)
    if isinstance(layer, keras.layers.Activation):
        name = _name_of(layer.activation)
        return None if name == "linear" else name
    if isinstance(layer, keras.layers.Softmax):
        axis = layer.axis if isinstance(layer.axis, int) else None
        rank = _rank_of(layer)
        return "softmax" if axis == -1 or (rank and axis == rank - 1) else _OTHER_AXIS
    own = _ACTIVATION_CLASSES.get(type(layer).__name__.lower())
    if own is not None:
        return own
    if callable(getattr(layer, "activation", None)):
        return _name_of(layer.activation)
    return "unknown"


def _recurrent_activation(layer: Any) -> str:
    """tanh for a standard LSTM or GRU: bounded by it, so neither a probability nor a logit."""
    if isinstance(layer, keras.layers.Bidirectional):
        layer = layer.forward_layer
    function = getattr(layer, "activation", None)
    name = _name_of(function) if callable(function) else "unknown"
    return name if name not in _KINDS else "unknown"


def _rank_of(layer: Any) -> int:
    outputs = _tensors_of(layer, "output")
    return len(outputs[0].shape) if outputs else 0


def _name_of(function: Any) -> str:
    """Name of an activation given as a function, or as a layer such as `keras.layers.ReLU()`."""
    if isinstance(function, keras.layers.Layer):
        return activation_of(function) or "linear"
    name = getattr(function, "__name__", "")
    if not name.isidentifier():  # "<lambda>", or an object without a name
        return "unknown"
    known = _ACTIVATION_CLASSES.get(name.replace("_", "").lower())
    if known is not None:
        return known
    return name if name in _KINDS else "unknown"
