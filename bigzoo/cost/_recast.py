"""The same program in another precision, without building the model again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras

from bigzoo._errors import check_choice
from bigzoo.cost._program import Program, Tensor

_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")


def policy_name(model: keras.Model, dtype: Any = None) -> str:
    """The dtype policy to count in: the one asked for, else the model's own."""
    if dtype is not None:
        return str(check_choice("dtype", getattr(dtype, "name", dtype), _POLICIES))
    # The first layers' policy: heads stay in float32 whatever the rest computes in.
    names = [layer.dtype_policy.name for layer in model.layers if layer.weights]
    return names[0] if names else model.dtype_policy.name


def recast(program: Program, before: str, after: str) -> Program:
    """`program` as if its layers had the dtype policy `after` in place of `before`.

    Every number with a fraction changes its width, but the model's outputs, and the weights where
    the policy is a mixed one. Layers with a dtype of their own, such as a head in float32, are not
    told from the others, so the figures are slightly low there.
    """
    if before == after:
        return program
    compute = after.removeprefix("mixed_")
    weights = "float32" if after.startswith("mixed_") else after
    stays = set(program.outputs)
    tensors: dict[int, Tensor] = {}
    for key, tensor in program.tensors.items():
        if key in program.variables:
            tensors[key] = _with(tensor, weights)
        elif key in stays:
            tensors[key] = tensor
        else:
            tensors[key] = _with(tensor, compute)
    return Program(**{**program.__dict__, "tensors": tensors})


def _with(tensor: Tensor, dtype: str) -> Tensor:
    return replace(tensor, dtype=dtype) if tensor.dtype.startswith(("float", "bfloat")) else tensor
