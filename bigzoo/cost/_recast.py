"""The same program in another precision, without building the model again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras

from bigzoo._errors import message, suggest
from bigzoo.cost._program import PRODUCTS, Node, Program, Tensor
from bigzoo.cost._trace import named_layers

_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
_CASTS = ("Cast", "convert_element_type", "_to_copy")


def own_policy(model: keras.Model) -> str:
    """The dtype policy of the model's first layer with weights.

    Heads stay in float32 whatever the rest computes in.
    """
    for layer in named_layers(model).values():
        if layer.weights:
            return str(layer.dtype_policy.name)
    return str(model.dtype_policy.name)


def policy_name(model: keras.Model, dtype: Any = None) -> str:
    """The dtype policy to count in: the one asked for, else the model's own."""
    own = own_policy(model)
    if dtype is None:
        return own
    name = getattr(dtype, "name", getattr(dtype, "__name__", dtype))
    if name not in (*_POLICIES, own):
        raise ValueError(message("dtype", dtype, "a dtype policy", suggest(str(name), _POLICIES)))
    return str(name)


def weight_dtype(own: str, wanted: str) -> str | None:
    """The dtype that weights have in the policy `wanted`; None where they keep theirs."""
    if own == wanted:
        return None
    return "float32" if wanted.startswith("mixed_") else wanted


def recast(program: Program, own: str, wanted: str) -> Program:
    """`program` as if its layers had the dtype policy `wanted` in place of `own`.

    Every number with a fraction changes its width, but the model's inputs and outputs. A mixed
    policy makes a narrow copy of each weight that is multiplied; leaving one drops these. Layers
    with a dtype of their own, such as a head in float32, are not told from the others.
    """
    if own == wanted:
        return program
    weights, compute = weight_dtype(own, wanted) or own, wanted.removeprefix("mixed_")
    stays = {*program.inputs, *program.outputs}
    tensors = {}
    for key, tensor in program.tensors.items():
        dtype = weights if key in program.variables else compute
        tensors[key] = tensor if key in stays else _with(tensor, dtype)
    changed = Program(**{**program.__dict__, "tensors": tensors})
    changed.nodes = [_without_cast(changed, node) for node in program.nodes]
    changed.nodes = list(_with_copies(changed, compute))
    return changed


def _with(tensor: Tensor, dtype: str) -> Tensor:
    return replace(tensor, dtype=dtype) if tensor.dtype.startswith(("float", "bfloat")) else tensor


def _without_cast(program: Program, node: Node) -> Node:
    """A cast to the dtype that the array has already is no work and no array."""
    if node.op not in _CASTS:
        return node
    source, target = node.inputs[0], node.outputs[0]
    tensor = program.tensors[target]
    if program.tensors[source].dtype != tensor.dtype:
        return node
    program.tensors[target] = replace(tensor, base=source)
    return replace(node, kind="view", elementwise_flops=0)


def _with_copies(program: Program, compute: str) -> Iterator[Node]:
    """The nodes, and before the first product with a weight or an input the cast of it."""
    copies: dict[int, int] = {}
    given = {*program.variables, *program.inputs}
    for node in program.nodes:
        if node.kind not in PRODUCTS:
            yield node
            continue
        for key in node.inputs:
            source = program.base(key)
            tensor = program.tensors[source]
            if source in given and source not in copies and tensor.is_float:
                if tensor.dtype == compute:
                    continue
                copies[source] = len(program.tensors)
                program.tensors[copies[source]] = Tensor(tensor.shape, compute)
                yield Node("Cast", "elementwise", (source,), (copies[source],), layer=node.layer)
        swap = {key: copies.get(program.base(key), key) for key in node.inputs}
        yield replace(
            node,
            inputs=tuple(swap[key] for key in node.inputs),
            left=swap.get(node.left, node.left) if node.left is not None else None,
            right=swap.get(node.right, node.right) if node.right is not None else None,
        )
