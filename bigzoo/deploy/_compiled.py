"""A Keras model as one compiled function, with none of what `predict` does around it.

The weights are the model's own, read at each call: training the model further changes what the
function says, on every backend.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._runtime import PlainArray, what_failed
from bigzoo.deploy._signature import (
    Signature,
    from_flat,
    nest_inputs,
    numpy_dtype,
    signature_of,
    to_flat,
)

# From arrays in the order of the signature's inputs to arrays in that of its outputs.
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]

_IN_FIT = "`fit` has the weights; in a callback, call `model.jax_state_sync()` first"


class CompiledCall:
    """A Keras model, compiled for inference; any batch size, any thread.

    Attributes:
        signature: What goes in and comes out.
    """

    def __init__(self, model: keras.Model) -> None:
        self.signature = signature_of(model)
        _check_stateless(model)
        inference = inference_model(model)
        make = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
        self._answer = make(inference, self.signature)
        self._plain = PlainArray.of(self.signature)
        # Keras gives a list of one output as that one.
        self._one_output = self.signature.output_form in (0, [0])
        self._dtypes = [numpy_dtype(spec.dtype) for spec in self.signature.outputs]
        self._widen = any(spec.dtype == "bfloat16" for spec in self.signature.outputs)

    def __call__(self, x: Any) -> Any:
        """Outputs, as numpy arrays in the model's own form, for inputs as the model takes them."""
        plain = self._plain
        arrays = [x] if plain is not None and plain.fits(x) else to_flat(self.signature, x)
        outputs = self._run(arrays)
        if self._widen:  # numpy has no bfloat16 of its own
            outputs = [a.astype(dtype) for a, dtype in zip(outputs, self._dtypes, strict=True)]
        return outputs[0] if self._one_output else from_flat(self.signature, outputs)

    def _run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            return self._answer(arrays)
        except (ValueError, MemoryError):
            raise
        # Backends have errors of their own for what a layer can't do with these numbers.
        except Exception as error:
            said = what_failed(error)
            if "been deleted" in said:  # what JAX says of an array that `fit` has given away
                said = _IN_FIT
            raise ValueError(f"The compiled call fails: {said}.") from error


def _check_stateless(model: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _check_stateless(layer)
        elif getattr(layer, "stateful", False):
            got = f"The layer {layer.name!r} keeps its state from one batch to the next"
            fix = "Build the model with `stateful=False` and give it the same weights."
            raise ValueError(f"{got}; expected answers that depend on the input alone. {fix}")


def _tensorflow(model: keras.Model, signature: Signature) -> Run:
    import tensorflow as tf

    specs = [
        tf.TensorSpec((None, *spec.shape[1:]), _tensor_dtype(spec.dtype), name=f"input_{i}")
        for i, spec in enumerate(signature.inputs)
    ]

    # XLA would compile again for each batch size, and is slow at convolutions on a CPU.
    @tf.function(input_signature=[specs], autograph=False, jit_compile=False)
    def call(tensors: list[Any]) -> list[Any]:
        # Flat outputs have one order, that of the model's own list: the signature has it too.
        return keras.tree.flatten(model(nest_inputs(signature, tensors), training=False))

    function = call.get_concrete_function()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in function(list(map(tf.convert_to_tensor, arrays)))]

    return run


def _tensor_dtype(name: str) -> str:
    """Of the arrays that `to_flat` gives; the model casts them to its own."""
    return name if name == "string" else numpy_dtype(name).name


def _jax(model: keras.Model, signature: Signature) -> Run:
    import jax

    # In one order for good: freezing a layer moves its weights among the trainable ones and back.
    variables = list(model.variables)

    @jax.jit
    def call(values: list[Any], arrays: list[Any]) -> list[Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            found = model(nest_inputs(signature, arrays), training=False)
        return keras.tree.flatten(found)

    known: set[Any] = set()
    compiling = threading.Lock()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        # Each size of the batch is a program of its own: only powers of two are compiled.
        rows = len(arrays[0])
        padded = [_pad(array, 1 << (rows - 1).bit_length()) for array in arrays]
        # Read anew: `fit` and `predict` give their memory away and put other arrays in its place.
        values = _values(variables)
        shapes = tuple([array.shape for array in padded])
        if shapes in known:
            found = call(values, padded)
        else:
            with compiling:  # the same program need be compiled once only
                found = call(values, padded)
            known.add(shapes)
        # Copies: JAX's own memory can't be written to, and has the rows that were filled up too.
        return [np.array(np.asarray(array)[:rows]) for array in found]

    return run


def _values(variables: Sequence[Any]) -> list[Any]:
    try:
        return [variable.value for variable in variables]
    except TypeError as error:  # Keras has emptied them while `fit` runs
        raise ValueError(f"The compiled call fails: {_IN_FIT}.") from error


def _torch(model: keras.Model, signature: Signature) -> Run:
    import torch

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        # PyTorch takes no views that run backwards, such as those that turn BGR into RGB.
        plain = list(map(np.ascontiguousarray, arrays))
        with torch.no_grad():
            found = model(nest_inputs(signature, plain), training=False)
        return list(map(keras.ops.convert_to_numpy, keras.tree.flatten(found)))

    return run


def answer(model: keras.Model, x: Any) -> Any:
    """What the model gives in inference, as numpy arrays, for once: nothing is compiled for it.

    Except on JAX, where every single operation would be compiled.
    """
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch(x)
    # There, `predict_on_batch` would trace a graph for each model and warn from the fifth on.
    outputs = model(x, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    """Copies of the first row behind the others: numbers that the model surely takes."""
    missing = rows - len(array)
    return array if not missing else np.concatenate([array, array[:1].repeat(missing, 0)])
