"""A decoder that reads one token at a time, with the keys and values of those before it kept.

The model's own graph is run again over its own layers, so that all weights are shared. What
changes: each causal self-attention keeps its keys and values in variables, and every layer that
treats tokens one by one is given the new tokens alone. What depends on the whole text, such as the
position of each token, is computed for the whole text (of integers, which costs nothing) and the
new tokens' part is taken. A graph with anything else has no such decoder: `NoCache`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops


class NoCache(Exception):
    """The model has a part that can't be run token by token; the text says which."""


# Each token by itself, as long as the axis that they work along is the last one.
_BY_TOKEN = (
    layers.Embedding,
    layers.Dense,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
    layers.Dropout,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Softmax,
    layers.Rescaling,
    layers.Identity,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Concatenate,
)
# Operations of keras.ops that work on each number by itself, by their class names.
_OPERATIONS = """
    Abs Absolute Add Cast Celu Divide Elu Erf Exp Expm1 Gelu HardSigmoid HardSilu HardTanh
    LeakyRelu Log Log1p LogSigmoid Maximum Minimum Mish Multiply Negative Power Reciprocal Relu
    Relu6 Rsqrt Selu Sigmoid Silu Sin Cos Softplus Softsign Sqrt Square Subtract Tanh TrueDivide
"""
_BY_NUMBER = frozenset(_OPERATIONS.split())
# Operations that may look at the whole text, but at no token behind the one they give.
_WHOLE = frozenset(("Cumsum", "GetItem", "OnesLike", "ZerosLike"))


class Clock(layers.Layer):
    """How many tokens have been read. Called on a whole text, it gives the `steps` next tokens."""

    def __init__(self) -> None:
        super().__init__(autocast=False, dtype="float32", name="clock")
        self.start = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="start"
        )

    def call(self, x: Any, steps: int) -> Any:
        """(batch, length, …) -> (batch, steps, …)."""
        return ops.take(x, ops.convert_to_tensor(self.start) + ops.arange(steps), axis=1)

    def compute_output_spec(self, x: Any, steps: int) -> Any:
        return keras.KerasTensor((x.shape[0], steps, *x.shape[2:]), dtype=x.dtype)


class CachedAttention(layers.Layer):
    """A causal self-attention whose keys and values are kept, on the layers of another."""

    def __init__(
        self, attention: layers.MultiHeadAttention, clock: Clock, batch: int, length: int, name: str
    ) -> None:
        super().__init__(dtype=attention.dtype_policy, name=name)
        self.attention = attention
        self.clock = clock
        self.keys = self._memory("keys", batch, length, attention.key_dim)
        self.values = self._memory("values", batch, length, attention.value_dim)

    def _memory(self, name: str, batch: int, length: int, dim: int) -> Any:
        return self.add_weight(
            shape=(batch, length, self.attention.num_heads, dim),
            dtype=self.compute_dtype,
            initializer="zeros",
            trainable=False,
            name=name,
        )

    def call(self, x: Any) -> Any:
        """(batch, steps, dim) -> the same shape, attending to all tokens read so far."""
        query = self.attention.query_dense(x)
        start = ops.convert_to_tensor(self.clock.start)
        keys = self._remember(self.keys, start, self.attention.key_dense(x))
        values = self._remember(self.values, start, self.attention.value_dense(x))
        place = start + ops.expand_dims(ops.arange(x.shape[1]), -1)
        mask = ops.expand_dims(ops.arange(keys.shape[1]), 0) <= place  # (steps, length)
        scale = 1 / math.sqrt(self.attention.key_dim)
        y = ops.dot_product_attention(query, keys, values, mask=mask[None, None], scale=scale)
        return self.attention.output_dense(y)

    def compute_output_spec(self, x: Any) -> Any:
        shape = self.attention.compute_output_shape(x.shape, x.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def _remember(self, memory: Any, start: Any, new: Any) -> Any:
        place = start * ops.convert_to_tensor([0, 1, 0, 0], dtype="int32")
        whole = ops.slice_update(ops.convert_to_tensor(memory), place, new)
        memory.assign(whole)
        return whole


class StepModels:
    """Models that read some tokens of a text of at most `length`, and share what they remember.

    Args:
        model: A functional model from token ids (batch, length) to logits.
        batch: Number of texts.
        length: Most tokens of a text.

    Raises:
        NoCache: if the model can't be run token by token.
    """

    def __init__(self, model: keras.Model, batch: int, length: int) -> None:
        self.batch, self.length = batch, length
        self.clock = Clock()
        self.attentions: list[CachedAttention] = []
        # Without the optimizer and the loss of a compiled model, which would be copied too.
        self._plain = keras.Model(model.input, model.output)

    def build(self, steps: int) -> tuple[keras.Model, list[Any]]:
        """The model from the whole text's ids to what `steps` tokens give, and the attentions'."""
        return _Rewrite(self, steps).run(self._plain)


class _Rewrite:
    """One run of a model's graph for `steps` tokens."""

    def __init__(self, parts: StepModels, steps: int) -> None:
        self.parts, self.steps = parts, steps
        self.whole: dict[int, Any] = {}  # tensors of the whole text, by id
        self.made: list[Any] = []  # outputs of the attentions

    def run(self, model: keras.Model) -> tuple[keras.Model, list[Any]]:
        shape = (self.parts.batch, self.parts.length)
        dtype = model.inputs[0].dtype
        ids = keras.Input(batch_shape=shape, dtype=dtype, name=model.inputs[0].name)
        self.whole[id(ids)] = ids
        inputs = keras.tree.map_structure(lambda _: ids, model.input)
        step = keras.models.clone_model(
            model,
            input_tensors=inputs,
            clone_function=lambda layer: layer,
            call_function=self._call,
        )
        if not self.made:
            raise NoCache("it has no causal self-attention")
        if any(tensor.shape[1] != self.steps for tensor in step.outputs):
            raise NoCache("its output isn't one row for each token")
        return step, self.made

    def _call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(x)]
        all_whole = all(id(tensor) in self.whole for tensor in tensors)
        if isinstance(operation, layers.MultiHeadAttention):
            return self._attend(operation, args, kwargs)
        name = type(operation).__name__
        is_operation = not isinstance(operation, layers.Layer)
        if is_operation and all_whole and name in (_BY_NUMBER | _WHOLE):
            return self._on_whole(operation, args, kwargs)
        if (is_operation and name in _BY_NUMBER) or (not is_operation and _is_by_token(operation)):
            args, kwargs = keras.tree.map_structure(self._new_part, (args, kwargs))
            return self._checked(operation, _run(operation, args, kwargs))
        raise NoCache(f"{operation.name!r} ({name}) may mix tokens")

    def _attend(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _check_attention(attention, args, kwargs)
        index = len(self.made)
        if index == len(self.parts.attentions):
            memory = CachedAttention(
                attention, self.parts.clock, self.parts.batch, self.parts.length, f"memory{index}"
            )
            self.parts.attentions.append(memory)
        output = self.parts.attentions[index](self._new_part(args[0]))
        self.made.append(output)
        return output

    def _on_whole(self, operation: Any, args: Any, kwargs: Any) -> Any:
        if type(operation).__name__ == "GetItem" and not _keeps_order(args[1]):
            raise NoCache(f"{operation.name!r} may change the order of the text")
        output = _run(operation, args, kwargs)
        if len(output.shape) < 2 or output.shape[1] != self.parts.length:
            raise NoCache(f"{operation.name!r} changes the length of the text")
        self.whole[id(output)] = output
        return output

    def _new_part(self, value: Any) -> Any:
        """Of a tensor for the whole text, the part of the new tokens."""
        if keras.utils.is_keras_tensor(value) and id(value) in self.whole:
            return self.parts.clock(value, steps=self.steps)
        return value

    def _checked(self, operation: Any, output: Any) -> Any:
        for tensor in keras.tree.flatten(output):
            if len(tensor.shape) < 2 or tensor.shape[1] != self.steps:
                raise NoCache(f"{operation.name!r} changes the length of the text")
        return output


def _run(operation: Any, args: Any, kwargs: Any) -> Any:
    try:
        return operation(*args, **kwargs)
    except (TypeError, ValueError) as error:  # such as a part that was built for one length
        raise NoCache(f"{operation.name!r} takes no single tokens") from error


def _keeps_order(key: Any) -> bool:
    """Whether x[key] has the tokens (the second axis) as they were."""
    parts = key if isinstance(key, tuple) else (key,)
    return len(parts) < 2 or (isinstance(parts[0], slice) and parts[1] == slice(None))


def _check_attention(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    config = attention.get_config()
    given = {name: value for name, value in kwargs.items() if value is not None}
    # (query, value, key), by place or by name; only self-attention has one tensor for all.
    sources = [*args, *(given.pop(name) for name in ("query", "value", "key") if name in given)]
    plain = (
        type(attention) is layers.MultiHeadAttention
        and not config.get("use_gate")
        and config.get("sliding_window") is None
        and tuple(config.get("attention_axes") or (1,)) == (1,)
        and len(args) >= 1
        and all(source is None or source is args[0] for source in sources)
        and given.pop("use_causal_mask", False) is True
        and not given.pop("training", False)
        and not any(given.values())
    )
    if not plain:
        raise NoCache(f"{attention.name!r} is no plain causal self-attention")


def _is_by_token(layer: Any) -> bool:
    if isinstance(layer, keras.Model):
        operations = getattr(layer, "operations", None) or layer.layers
        return all(
            isinstance(inner, layers.InputLayer)
            or _is_by_token(inner)
            or (not isinstance(inner, layers.Layer) and type(inner).__name__ in _BY_NUMBER)
            for inner in operations
        )
    if getattr(layer, "mask_zero", False):
        return False  # the attention would leave out padding, by a mask that isn't passed here
    if isinstance(layer, layers.EinsumDense):
        given, _, made = layer.equation.partition("->")
        text, _, kernel = given.partition(",")
        kept = "..." if text.startswith("...") else text[:2]
        return made.startswith(kept) and not set(kept.strip(".")) & set(kernel)
    if not isinstance(layer, _BY_TOKEN):
        return False
    axis = getattr(layer, "axis", -1)
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return all(one == -1 or one == 2 for one in axes)
