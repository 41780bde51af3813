"""What tf2onnx leaves in a graph that costs bytes or keeps weights from being quantised."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigzoo._optional import require

_EXTRA = "bigzoo[onnx]"


def fold_shapes(graph: Any) -> None:
    """Turn the shapes of constants into constants, and drop what nobody reads any more.

    An einsum's weights are stored once as they are multiplied and once more for their shape alone.

    Args:
        graph: A GraphProto, changed in place.
    """
    helper = require("onnx.numpy_helper", _EXTRA)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Shape" and not node.attribute]:
        tensor = constants.get(node.input[0])
        if tensor is not None:
            shape = np.array(tensor.dims, np.int64)
            graph.initializer.append(helper.from_array(shape, node.output[0]))
            graph.node.remove(node)
    _drop_unused(graph)


def split_gemms(graph: Any) -> None:
    """Turn Gemm nodes with constant weights into MatMul and Add, in place.

    ONNX Runtime's dynamic quantisation knows MatMul alone.
    """
    onnx = require("onnx", _EXTRA)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        biased = len(node.input) > 2 and bool(node.input[2])
        plain = (
            node.op_type == "Gemm"
            and node.input[1] in constants
            and not settings.get("transA", 0)
            and settings.get("alpha", 1.0) == 1.0
            and (not biased or settings.get("beta", 1.0) == 1.0)
        )
        if not plain:
            continue
        weights = node.input[1]
        if settings.get("transB", 0):
            values = onnx.numpy_helper.to_array(constants[weights])
            weights = f"{node.name}/transposed"
            turned = np.ascontiguousarray(values.T)
            graph.initializer.append(onnx.numpy_helper.from_array(turned, weights))
        product = f"{node.name}/product" if biased else node.output[0]
        nodes = [onnx.helper.make_node("MatMul", [node.input[0], weights], [product], node.name)]
        if biased:
            inputs = [product, node.input[2]]
            nodes.append(onnx.helper.make_node("Add", inputs, [node.output[0]], f"{node.name}/add"))
        del graph.node[place]
        for one in reversed(nodes):
            graph.node.insert(place, one)
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
