"""A Keras model to ONNX, by way of TensorFlow's frozen graph and tf2onnx; and its quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import shorten
from bigzoo._optional import require
from bigzoo.deploy._limits import MOST_BYTES
from bigzoo.deploy._onnx_graph import fold_shapes, split_gemms
from bigzoo.deploy._signature import Signature

_OPSET = 17
_EXTRA = "bigzoo[onnx]"


def write_onnx(model: keras.Model, signature: Signature, path: Path) -> None:
    """A float32 .onnx file. For the TensorFlow backend."""
    from bigzoo.deploy._convert_tensorflow import alone, freeze, trace

    check_installed()
    with alone():
        frozen = freeze(trace(model, signature))
        proto = _to_proto(frozen, signature)
    proto.graph.name = model.name
    fold_shapes(proto.graph)
    if proto.ByteSize() > MOST_BYTES:
        size = f"{proto.ByteSize() / 2**30:.1f} GiB"
        raise ValueError(f"An .onnx file holds at most 2 GiB; got {size}. Export a SavedModel.")
    path.write_bytes(proto.SerializeToString())


def check_installed() -> None:
    """Before any work is done: the packages without which there is no .onnx file."""
    for package in ("onnx", "tf2onnx"):
        # Found, not imported: tf2onnx would load TensorFlow, also where Keras runs on JAX.
        if find_spec(package) is None:
            require(package, _EXTRA, "Export to ONNX")


def _to_proto(frozen: Any, signature: Signature) -> Any:
    tf2onnx = require("tf2onnx", _EXTRA, "Export to ONNX")
    inputs = {tensor.name: _match(tensor.name, signature.inputs) for tensor in frozen.inputs}
    names = sorted(spec.name for spec in signature.outputs)  # TensorFlow's order of a dict
    outputs = {tensor.name: name for tensor, name in zip(frozen.outputs, names, strict=True)}
    try:
        proto, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=list(inputs),
            output_names=list(outputs),
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
            tensors_to_rename={**inputs, **outputs},
        )
    # tf2onnx raises what it meets: ValueError, KeyError, AttributeError …
    except Exception as error:
        fix = "Export it as a SavedModel or to .tflite."
        text = f"ONNX can't hold this model: {shorten(error, 160)}. {fix}"
        raise ValueError(text) from error
    return proto


def _match(tensor: str, specs: Sequence[Any]) -> str:
    name = tensor.partition(":")[0]
    return next((spec.name for spec in specs if spec.name == name), name)


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """1 - Erf(x): the exact GELU asks TensorFlow for Erfc, which ONNX doesn't have."""
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    value, output = node.input[0], node.output[0]
    numpy_type = np.float64 if dtype == 11 else np.float32  # 11: ONNX's code of float64
    one = context.make_const(f"{name}_one", np.array(1.0, numpy_type)).output[0]
    context.remove_node(name)
    erf = context.make_node("Erf", [value], shapes=[shape], dtypes=[dtype]).output[0]
    context.make_node(
        "Sub", [one, erf], name=name, outputs=[output], shapes=[shape], dtypes=[dtype]
    )


# --- quantisation ----------------------------------------------------------------------------


def quantize_onnx(
    path: Path, mode: str, signature: Signature, calibration: Sequence[np.ndarray] | None
) -> None:
    """Make the float32 file at `path` one of 8 bits: "dynamic" or "int8"."""
    tools = require("onnxruntime.quantization", _EXTRA, "Quantisation for ONNX")
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = f"{folder}/prepared.onnx", f"{folder}/made.onnx"
        try:
            _quantize(tools, str(path), prepared, made, mode, signature, calibration)
        # ONNX Runtime's tools have no errors of their own.
        except Exception as error:
            raise ValueError(f"ONNX Runtime can't quantise this: {shorten(error)}.") from error
        path.write_bytes(Path(made).read_bytes())


def _quantize(
    tools: Any, source: str, prepared: str, made: str, mode: str, signature: Signature, rows: Any
) -> None:
    # The symbolic shapes need sympy, and add nothing for graphs as tf2onnx writes them.
    tools.shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    if mode == "dynamic":
        onnx = require("onnx", _EXTRA, "Quantisation for ONNX")
        proto = onnx.load(prepared)
        split_gemms(proto.graph)
        onnx.save(proto, prepared)
        tools.quantize_dynamic(prepared, made, weight_type=tools.QuantType.QInt8)
        return
    tools.quantize_static(
        prepared,
        made,
        _reader(tools, signature, rows),
        quant_format=tools.QuantFormat.QDQ,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        per_channel=True,
    )


def _reader(tools: Any, signature: Signature, arrays: Sequence[np.ndarray]) -> Any:
    """One row at a time, as ONNX Runtime asks for them."""
    feeds = iter(
        [
            {
                spec.name: array[row : row + 1]
                for spec, array in zip(signature.inputs, arrays, strict=True)
            }
            for row in range(len(arrays[0]))
        ]
    )

    class Reader(tools.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    return Reader()
