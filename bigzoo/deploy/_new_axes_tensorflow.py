"""`x[:, None]` in a TensorFlow graph, written so that LiteRT can read it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def expand_new_axes(graph: Any) -> None:
    """Turn slices that only add axes into ExpandDims, in place.

    TensorFlow writes `mask[:, None, :]` as a StridedSlice, which LiteRT's converter refuses where a
    size is open.

    Args:
        graph: A frozen GraphDef; what its slices read their bounds from are constants.
    """
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    for node in [node for node in graph.node if node.op == "StridedSlice"]:
        count = _entries(node, constants)
        axes = None if count is None else _new_axes(node, count)
        if axes:
            _replace(graph, node, axes)


def _entries(node: Any, constants: dict[str, Any]) -> int | None:
    """How many entries the slice has in its brackets; None if that or its steps aren't plain."""
    strides = constants.get(node.input[3].partition(":")[0])
    if strides is None:
        return None
    values = tf.make_ndarray(strides.attr["value"].tensor)
    return len(values) if (values == 1).all() else None


def _new_axes(node: Any, count: int) -> list[int] | None:
    """Where the slice puts new axes, in the order to add them; None if it does more than that."""
    masks = {
        name: int(node.attr[f"{name}_mask"].i)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if masks["shrink_axis"] or not masks["new_axis"]:
        return None
    front: list[int] = []
    back: list[int] = []
    behind = False  # an ellipsis: from there on, places count from the end
    for index in range(count):
        bit = 1 << index
        if masks["ellipsis"] & bit:
            behind = True
        elif masks["new_axis"] & bit:
            (back if behind else front).append(index - count if behind else index)
        elif not (masks["begin"] & bit and masks["end"] & bit):
            return None
    return front + back[::-1]


def _replace(graph: Any, node: Any, axes: list[int]) -> None:
    """A chain of ExpandDims, the last of which has the name of the slice: readers stay as are."""
    dtype, source, name = node.attr["T"].type, node.input[0], node.name
    graph.node.remove(node)
    for step, axis in enumerate(axes):
        last = step == len(axes) - 1
        own = name if last else f"{name}/axis{step}"
        constant = graph.node.add(name=f"{own}/place", op="Const")
        constant.attr["dtype"].type = tf.int32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(axis, tf.int32))
        expand = graph.node.add(name=own, op="ExpandDims", input=[source, constant.name])
        expand.attr["T"].type, expand.attr["Tdim"].type = dtype, tf.int32.as_datatype_enum
        source = own
