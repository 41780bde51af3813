"""What a model computes, as a list of operations on tensors: the same for every backend.

A tracer (`_trace_tensorflow`, `_trace_jax`, `_trace_torch`) turns its backend's own trace of the
forward pass into a `Program`; everything else in this room reads only that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# What an operation asks of hardware. "matmul", "conv" and "depthwise" are the matrix-product class,
# whose FLOPs are counted as two per multiply-add; "view" costs nothing.
KINDS = (
    "matmul",
    "conv",
    "depthwise",
    "elementwise",
    "reduction",
    "pool",
    "move",
    "random",
    "view",
    "unknown",
)
PRODUCTS = ("matmul", "conv", "depthwise")

# What the backward pass needs of an operation's forward pass.
KEEPS = (
    "none",  # addition, reshape, mean: only the gradient itself
    "output",  # exp, tanh, softmax, ReLU: the output
    "inputs",  # log, square, max pooling, GELU: the inputs
    "first",  # a choice between two arrays: the condition
    "operands",  # products: each input, if another input gets a gradient
)

_BITS = {"bool": 8, "int4": 4, "uint4": 4, "float8_e4m3fn": 8, "float8_e5m2": 8, "bfloat16": 16}


def item_bits(dtype: str) -> int:
    """Bits of one element of this dtype as it lies in memory; 0 for handles and keys."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits) if digits.isdigit() else 0


@dataclass(frozen=True)
class Tensor:
    """A value in the program. `shape` is static; `base` is the tensor whose memory it shares."""

    shape: tuple[int, ...]
    dtype: str
    base: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * item_bits(self.dtype) // 8

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: Name in the backend's program, such as "MatMul" or "dot_general".
        kind: One of `KINDS`.
        inputs, outputs: Keys into `Program.tensors`.
        keeps: One of `KEEPS`.
        flops: Two per multiply-add, for the product kinds; 0 otherwise. For one execution.
        padding_flops: The part of `flops` that multiplies padding zeros.
        elementwise_flops: One per output element of arithmetic; per input element of a reduction.
        count: How often it runs in one forward pass: the steps of the loops that it stands in.
        layer: Name of the innermost known layer that it belongs to, "" for none.
        dims: (groups, m, k, n) of the product as a matrix product, for the product kinds: `m` rows
            (batch and positions), summed over `k`, to `n` columns, `groups` times.
        taps: Positions of the kernel of a convolution (9 for 3x3); 1 for matrix products.
        left, right: For the product kinds, the inputs that are multiplied with each other.
    """

    op: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    keeps: str = "none"
    flops: int = 0
    padding_flops: int = 0
    elementwise_flops: int = 0
    count: int = 1
    layer: str = ""
    dims: tuple[int, int, int, int] = (0, 0, 0, 0)
    taps: int = 1
    left: int | None = None
    right: int | None = None


@dataclass(frozen=True)
class Variable:
    """A weight or another state of the model, as the program reads it."""

    path: str
    trainable: bool


@dataclass
class Program:
    """The forward pass of a model on static shapes."""

    tensors: dict[int, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)  # new values of states, such as moving means
    variables: dict[int, Variable] = field(default_factory=dict)
    # (source, target): the target carries the source's value, as the states of a loop do.
    links: list[tuple[int, int]] = field(default_factory=list)
    # Operations that no rule knows -> how often they run; and loops whose steps can't be told.
    unknown_ops: dict[str, int] = field(default_factory=dict)
    backend: str = ""

    def bytes_of(self, keys: Sequence[int]) -> int:
        return sum(self.tensors[key].bytes for key in keys)

    def base(self, key: int) -> int:
        """The tensor that owns the memory of `key`."""
        found = self.tensors[key].base
        while found is not None:
            key, found = found, self.tensors[found].base
        return key


@dataclass(frozen=True)
class Spec:
    """Shape, with the batch, and dtype of one input of a model."""

    shape: tuple[int, ...]
    dtype: str


# The structure of a model's inputs: one spec, a list, or a dict, nested as the model wants it.
Specs = Spec | Sequence["Specs"] | Mapping[str, "Specs"]
