"""A Keras model to TensorFlow's own formats: a traced function, a SavedModel, LiteRT.

For the TensorFlow backend; `_convert` imports this inside a function.
"""

from __future__ import annotations

import errno
import logging
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigzoo._errors import shorten
from bigzoo._optional import require
from bigzoo.deploy._signature import Signature, nest_inputs

SERVE = "serving_default"
_LOGGERS = ("tensorflow", "absl", "tf2onnx")
# What is set for a conversion is set for the whole process: with two at once, the one that ends
# last would leave behind what the other had set.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """One conversion at a time, and without the warnings with which converters tell of each step;
    errors still come through."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        before = {name: logging.getLogger(name).level for name in _LOGGERS}
        try:
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def trace(model: keras.Model, signature: Signature) -> Any:
    """The model's concrete function, from keyword arguments to a dict, by the names in files."""

    def serve(**inputs: Any) -> dict[str, Any]:
        values = [inputs[spec.name] for spec in signature.inputs]
        outputs = keras.tree.flatten(model(nest_inputs(signature, values), training=False))
        return {
            spec.name: tf.identity(tf.cast(tensor, spec.dtype), name=spec.name)
            for spec, tensor in zip(signature.outputs, outputs, strict=True)
        }

    with _inlined():
        return _concrete(serve, signature)


def _concrete(function: Callable[..., Any], signature: Signature) -> Any:
    named = {
        spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name)
        for spec in signature.inputs
    }
    return tf.function(function, autograph=False).get_concrete_function(**named)


@contextmanager
def _inlined() -> Iterator[None]:
    """Functions inside the model become part of its graph: converters can't read calls.

    Keras wraps grouped convolutions in a compiled function, which no file format knows. TensorFlow
    has this setting for the whole process only: functions that other threads run just then give the
    same answers, more slowly.
    """
    with _ONE_AT_A_TIME:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


def freeze(function: Any) -> Any:
    """The function with all that it captures as constants.

    Without it, arrays that a layer keeps outside of variables, such as the mean of a Normalization,
    become inputs of an .onnx file, and LiteRT reads variables that nobody has filled.
    """
    convert = require("tensorflow.python.framework.convert_to_constants")
    return convert.convert_variables_to_constants_v2(function, lower_control_flow=False)


def _callable(frozen: Any, signature: Signature) -> Any:
    """A frozen function as one that can be saved, with the names in files, which freezing loses."""
    from bigzoo.deploy._new_axes_tensorflow import expand_new_axes

    graph = frozen.graph.as_graph_def()
    expand_new_axes(graph)
    outputs = [tensor.name for tensor in frozen.outputs]
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(graph, name=""), signature=[]
    )
    elements = wrapped.graph.as_graph_element
    pruned = wrapped.prune(
        [elements(tensor.name) for tensor in frozen.inputs], [elements(name) for name in outputs]
    )
    order = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    names = sorted(spec.name for spec in signature.outputs)  # TensorFlow's order of a dict

    def serve(**inputs: Any) -> dict[str, Any]:
        return dict(zip(names, pruned(*(inputs[name] for name in order)), strict=True))

    return _concrete(serve, signature)


def write_saved_model(model: keras.Model, signature: Signature, path: Path) -> None:
    """A folder that TensorFlow opens, with the signature "serving_default"."""
    module = tf.Module()
    module.model = model  # its variables and tables must be reachable from what is saved
    with alone():
        _save(module, path, trace(model, signature))


def _save(module: Any, path: Path, function: Any) -> None:
    # Gradients of one's own, such as silu has, aren't for a file that only infers.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(path), {SERVE: function}, options)
    except tf.errors.OpError as error:  # TensorFlow's words for a full disk and the like
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        said = error.message.rpartition("; ")[2] or type(error).__name__
        raise OSError(errno.ENOSPC if full else errno.EIO, said) from error


def write_litert(
    model: keras.Model,
    signature: Signature,
    path: Path,
    mode: str = "float32",
    calibration: Sequence[np.ndarray] | None = None,
) -> None:
    """A .tflite file, by way of a SavedModel: the direct way gives NaN for attention."""
    with tempfile.TemporaryDirectory() as folder, alone():
        function = _callable(freeze(trace(model, signature)), signature)
        _save(tf.Module(), Path(folder) / "model", function)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            f"{folder}/model", signature_keys=[SERVE]
        )
        if mode != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if mode == "int8":
            converter.representative_dataset = _samples(signature, calibration or ())
        try:
            content = converter.convert()
        # TensorFlow has several exceptions for it, in private modules.
        except Exception as error:
            raise ValueError(_litert_fault(error)) from error
    path.write_bytes(content)


def _samples(
    signature: Signature, arrays: Sequence[np.ndarray]
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """One row at a time: that is the batch for which a file is laid out."""

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for row in range(len(arrays[0])):
            yield {
                spec.name: array[row : row + 1]
                for spec, array in zip(signature.inputs, arrays, strict=True)
            }

    return rows


def _litert_fault(error: Exception) -> str:
    """What of the model LiteRT lacks, out of the converter's pages of text."""
    found = re.search(r"needed by[^\n]*:\s*([\w, ]+)", str(error)) or re.search(
        r"(?:Flex ops|TF Select ops|Custom ops): ([\w, ]+)", str(error)
    )
    lacks = found.group(1).strip() if found else shorten(error, 160)
    return f"LiteRT can't hold this model: {lacks}. Export it to .onnx or as a SavedModel."
