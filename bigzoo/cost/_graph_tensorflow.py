"""Reading one operation of a TensorFlow graph: shapes, products, the steps of a loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from bigzoo.cost._ops_tensorflow import RULES, Rule
from bigzoo.cost._products import Axis, convolution, einsum, matmul, same_start

_HANDLES = ("resource", "variant")


def key_of(tensor: Any) -> tuple[int, int]:
    return id(tensor.op), tensor.value_index


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The static shape; an open side counts as 1, a handle as a single thing."""
    if tensor.dtype.name in _HANDLES:
        return ()
    shape = tensor.shape
    return () if shape.rank is None else tuple(1 if n is None else n for n in shape.as_list())


def is_open(tensor: Any) -> bool:
    """Whether the graph doesn't tell how many elements there are."""
    return tensor.dtype.name not in _HANDLES and not tensor.shape.is_fully_defined()


def dtype_of(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype)).removesuffix("_ref")


def size_of(tensor: Any) -> int:
    return math.prod(shape_of(tensor))


# --- products ------------------------------------------------------------------------------


def _matmul(op: Any) -> dict[str, Any]:
    left, right = shape_of(op.inputs[0]), shape_of(op.inputs[1])
    if op.type in ("MatMul", "SparseMatMul"):
        flip_left, flip_right = op.get_attr("transpose_a"), op.get_attr("transpose_b")
    else:
        flip_left, flip_right = op.get_attr("adj_x"), op.get_attr("adj_y")
    rows, inner = (left[-1], left[-2]) if flip_left else (left[-2], left[-1])
    columns = right[-2] if flip_right else right[-1]
    return matmul(math.prod(shape_of(op.outputs[0])[:-2]), rows, inner, columns)


def _equation(op: Any) -> str:
    equation = op.get_attr("equation")
    return equation.decode() if isinstance(equation, bytes) else str(equation)


def _einsum(op: Any) -> dict[str, Any] | None:
    if len(op.inputs) != 2:
        return None
    return einsum(_equation(op), shape_of(op.inputs[0]), shape_of(op.inputs[1]))


def _spatial(op: Any, rank: int) -> tuple[list[int], int]:
    """Positions of the spatial axes, and of the channels, in this operation's arrays."""
    layout = op.get_attr("data_format").decode()
    return [layout.index(axis) for axis in "DHW"[3 - rank :]], layout.index("C")


def _convolution(op: Any) -> dict[str, Any]:
    """Conv2D, Conv3D, DepthwiseConv2dNative; and, read backwards, the transposed ones."""
    transposed = "BackpropInput" in op.type
    small = shape_of(op.inputs[2]) if transposed else shape_of(op.outputs[0])
    large = shape_of(op.outputs[0]) if transposed else shape_of(op.inputs[0])
    kernel = shape_of(op.inputs[1])
    rank = len(kernel) - 2
    where, channel = _spatial(op, rank)
    axes = [
        _axis(op, axis, large[axis], small[axis], kernel[i], transposed)
        for i, axis in enumerate(where)
    ]
    batch = small[0]
    if (around := _space_to_batch(op)) is not None:
        batch, dilated = _dilated(*around, kernel)
        axes[rank - len(dilated) :] = dilated
    if op.type.startswith("Depthwise"):
        channels = large[channel]
        return convolution(batch, channels, small[channel], channels, axes)
    groups = large[channel] // kernel[-2]
    cost = convolution(batch, large[channel], small[channel], groups, axes)
    if transposed:
        cost["sides"] = (2, 1)
    return cost


def _space_to_batch(op: Any) -> tuple[Any, Any] | None:
    """The two operations around a convolution by which TensorFlow writes a dilated one."""
    before = op.inputs[0].op
    while before.type in ("ExpandDims", "Reshape"):
        before = before.inputs[0].op
    if before.type != "SpaceToBatchND":
        return None
    after = op.outputs[0].consumers()
    while after and after[0].type in ("Squeeze", "Reshape"):
        after = after[0].outputs[0].consumers()
    return (before, after[0]) if after and after[0].type == "BatchToSpaceND" else None


def _dilated(before: Any, after: Any, kernel: tuple[int, ...]) -> tuple[int, list[Axis]]:
    """Batch and axes of the dilated convolution as it was before it was rearranged."""
    import tensorflow as tf

    inputs, outputs = shape_of(before.inputs[0]), shape_of(after.outputs[0])
    blocks = tf.get_static_value(before.inputs[1])
    paddings = tf.get_static_value(before.inputs[2])
    taps = kernel[len(kernel) - 2 - len(blocks) : -2]
    axes = [
        Axis(inputs[i + 1], outputs[i + 1], tap, 1, int(block), int(padding[0]))
        for i, (tap, block, padding) in enumerate(zip(taps, blocks, paddings, strict=True))
    ]
    return inputs[0], axes


def _axis(op: Any, axis: int, large: int, small: int, kernel: int, transposed: bool) -> Axis:
    stride, dilation = op.get_attr("strides")[axis], op.get_attr("dilations")[axis]
    padding = op.get_attr("padding").decode()
    if padding == "SAME":
        start = same_start(large, small, kernel, stride, dilation)
    elif padding == "EXPLICIT":
        start = op.get_attr("explicit_paddings")[2 * axis]
    else:
        start = 0
    near, far = (small, large) if transposed else (large, small)
    return Axis(near, far, kernel, stride, dilation, start, transposed)


def _cudnn_rnn(op: Any) -> dict[str, Any]:
    """One fused layer of LSTM or GRU: both products of every step."""
    steps, batch, width = shape_of(op.inputs[0])
    units = shape_of(op.inputs[1])[-1]
    gates = {b"lstm": 4, b"gru": 3}.get(op.get_attr("rnn_mode"), 1)
    return matmul(1, steps * batch, width + units, gates * units) | {"sides": (0, 3)}


def rule_of(op: Any) -> Rule:
    """The rule of an operation that isn't a product."""
    if op.type == "Einsum" and len(op.inputs) == 1:
        labels, _, result = _equation(op).partition("->")
        summed = not set(labels) <= set(result)
        return ("reduction", "none", 1) if summed else ("move", "none", 0)
    return RULES.get(op.type, ("unknown", "inputs", 0))


PRODUCTS: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _matmul),
    "Einsum": _einsum,
    **dict.fromkeys(
        (
            "Conv2D",
            "Conv3D",
            "DepthwiseConv2dNative",
            "Conv2DBackpropInput",
            "Conv3DBackpropInputV2",
            "DepthwiseConv2dNativeBackpropInput",
        ),
        _convolution,
    ),
    "CudnnRNNV3": _cudnn_rnn,
    "CudnnRNN": _cudnn_rnn,
}


# --- steps of a loop -------------------------------------------------------------------------


def steps_of(op: Any, condition: Any, body: Any) -> int | None:
    """How often a loop runs, from `counter < limit` with a counter that grows by a constant."""
    bounds = [
        bound
        for test in _tests(condition.outputs[0].op)
        if (bound := _bound(test, op, condition, body)) is not None
    ]
    return min(bounds) if bounds else None


def _tests(op: Any) -> Iterator[Any]:
    if op.type in ("LogicalAnd", "Identity"):
        for tensor in op.inputs:
            yield from _tests(tensor.op)
    elif op.type == "Less":
        yield op


def _bound(test: Any, op: Any, condition: Any, body: Any) -> int | None:
    counter, limit = test.inputs
    position = _position(condition.inputs, counter)
    end = _number(limit, condition.inputs, op)
    if position is None or end is None:
        return None
    start = _number(op.inputs[position], [], op)
    step = _increment(body, position)
    if start is None or not step or step < 0:
        return None
    return max(0, math.ceil((end - start) / step))


def _position(tensors: Any, wanted: Any) -> int | None:
    while wanted.op.type == "Identity":
        wanted = wanted.op.inputs[0]
    for i, tensor in enumerate(tensors):
        if key_of(tensor) == key_of(wanted):
            return i
    return None


def _number(tensor: Any, inputs: Any, op: Any) -> int | None:
    """The value of a constant, followed out of the loop where it is passed in."""
    import tensorflow as tf

    position = _position(inputs, tensor)
    if position is not None:
        return _number(op.inputs[position], [], op)
    value = tf.get_static_value(_element(tensor))
    if value is None or tensor.shape.rank != 0:
        return None
    return int(value.reshape(-1)[_index(tensor)])


def _element(tensor: Any) -> Any:
    """The vector out of which a number is taken, such as a shape; else the tensor itself."""
    return tensor.op.inputs[0] if tensor.op.type == "StridedSlice" else tensor


def _index(tensor: Any) -> int:
    import tensorflow as tf

    if tensor.op.type != "StridedSlice":
        return 0
    begin = tf.get_static_value(tensor.op.inputs[1])
    return 0 if begin is None else int(begin.reshape(-1)[0])


def _increment(body: Any, position: int) -> int | None:
    result = body.outputs[position]
    while result.op.type == "Identity":
        result = result.op.inputs[0]
    if result.op.type not in ("AddV2", "Add"):
        return None
    one, other = result.op.inputs
    if _position(body.inputs, one) != position:
        one, other = other, one
    if _position(body.inputs, one) != position:
        return None
    return _number(other, [], None)
