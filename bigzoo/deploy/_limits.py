"""What a format can't hold, known before anything is converted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo.deploy._tensor_specs import Signature, numpy_dtype

FORMATS = ("onnx", "litert", "saved_model", "openvino")
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
MOST_BYTES = 2**31 - 1  # of a protobuf or a flatbuffer


@dataclass(frozen=True)
class Limit:
    """One thing that some formats can't hold.

    Attributes:
        what: In words, such as "inputs of text".
        formats: That can't hold it.
        reason: Why.
        route: What to do instead.
        found: From the model, its signature and `dynamic_batch`: the name of the part that has it,
            or None.
    """

    what: str
    formats: tuple[str, ...]
    reason: str
    route: str
    found: Callable[[keras.Model, Signature, bool], str | None]


def _text_input(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    return next((spec.name for spec in signature.inputs if spec.dtype == "string"), None)


def _fixed_batch(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    for spec, tensor in zip(signature.inputs, model.inputs, strict=True):
        if tensor.shape and tensor.shape[0] is not None:
            return spec.name
    return None


def _no_batch(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    return next((spec.name for spec in signature.outputs if not spec.shape), None)


def _heavy(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    size = sum(math.prod(one.shape) * numpy_dtype(one.dtype).itemsize for one in model.weights)
    return f"{size / 2**30:.1f} GiB" if size > MOST_BYTES else None


def _loop(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    return _rolled(model, signature, dynamic) if dynamic else None


def _rolled(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    for layer in every_layer(model):
        rolled = not getattr(layer, "unroll", False)
        if rolled and type(layer).__name__ in RECURRENT:
            return str(layer.name)
    return None


def _quantized(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    for layer in every_layer(model):
        if getattr(layer, "quantization_mode", None) is not None:
            return str(layer.name)
    return None


def _foreign(model: keras.Model, signature: Signature, dynamic: bool) -> str | None:
    for layer in every_layer(model):
        if type(layer).__name__ in ("TorchModuleWrapper", "JaxLayer", "FlaxLayer"):
            return str(layer.name)
    return None


# `deploy.export` looks here before it converts, and the documentation prints the same rows.
LIMITS = (
    Limit(
        "an input of text",
        FORMATS,
        "runtimes take numbers",
        "Turn text into ids in the data pipeline, and export the model behind the lookup.",
        _text_input,
    ),
    Limit(
        "an input whose batch is fixed",
        FORMATS,
        "a file must answer one row as well as several, to be compared with its model",
        "Build the model with keras.Input(shape), without the batch; dynamic_batch=False fixes the "
        "file's batch at 1.",
        _fixed_batch,
    ),
    Limit(
        "an output without a batch",
        FORMATS,
        "a file answers row by row",
        "Leave the mean or the sum over the batch out of the model.",
        _no_batch,
    ),
    Limit(
        "weights of over 2 GiB",
        ("onnx", "litert", "openvino"),
        "the file, or the .onnx file on the way to it, holds at most 2 GiB",
        "Export it as a SavedModel.",
        _heavy,
    ),
    Limit(
        "a recurrent layer (LSTM, GRU, SimpleRNN, ConvLSTM) with a dynamic batch",
        ("litert",),
        "LiteRT has no lists of tensors of open size, which the loop over the steps keeps",
        "Export with dynamic_batch=False (the runtime here still takes any batch), build the layer "
        "with unroll=True, or export to .onnx.",
        _loop,
    ),
    Limit(
        "a recurrent layer (LSTM, GRU, SimpleRNN, ConvLSTM)",
        ("openvino",),
        "OpenVINO's reader of ONNX doesn't know the loop over the steps",
        "Build the layer with unroll=True, or export to .onnx.",
        _rolled,
    ),
    Limit(
        "a layer quantised by Keras' `quantize`",
        ("litert",),
        "its converter refuses the operations on integers",
        'Quantise the float model for the file: bz.compress.quantize(model, target="litert").',
        _quantized,
    ),
    Limit(
        "a layer quantised by Keras' `quantize`",
        ("openvino",),
        "it computes wrong values with the operations on integers",
        "Export the float model, or the quantised one to .onnx.",
        _quantized,
    ),
    Limit(
        "a layer that wraps code of another framework (TorchModuleWrapper, JaxLayer, FlaxLayer)",
        FORMATS,
        "files are made by TensorFlow, which can't run that code",
        "Build that part from Keras layers.",
        _foreign,
    ),
)


def check_limits(model: keras.Model, signature: Signature, format: str, dynamic: bool) -> None:
    """Raise a ValueError for the first thing that `format` can't hold."""
    for limit in LIMITS:
        if format not in limit.formats:
            continue
        name = limit.found(model, signature, dynamic)
        if name is not None:
            what = f"`model` has {limit.what} ({name!r})"
            raise ValueError(
                f"{what}, which {TITLES[format]} can't hold: {limit.reason}. {limit.route}"
            )


TITLES = {
    "onnx": "ONNX",
    "litert": "LiteRT",
    "saved_model": "a SavedModel",
    "openvino": "OpenVINO",
}


def every_layer(layer: Any) -> Iterator[Any]:
    """The layers of a model, and those inside them, such as the one in a Bidirectional."""
    inner = list(getattr(layer, "layers", ()) or ())
    for name in ("layer", "forward_layer", "backward_layer"):
        if isinstance(getattr(layer, name, None), keras.layers.Layer):
            inner.append(getattr(layer, name))
    for each in inner:
        yield each
        yield from every_layer(each)
