"""FLOPs of products and convolutions from their shapes: the definition for every backend.

A multiply-add is two FLOPs. A convolution counts each tap of each output position, padding
included, as torch's `FlopCounterMode` and published tables do; the taps that fall on padding are
also given apart, since compilers leave them out. A transposed convolution counts each tap of each
input position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution. `start` is the padding before the first input."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    start: int = 0
    transposed: bool = False

    @property
    def taps(self) -> int:
        positions = self.inputs if self.transposed else self.outputs
        return positions * self.kernel

    @property
    def inner_taps(self) -> int:
        """Taps that meet an input (transposed: that land in the output)."""
        near, far = (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
        return _inner_taps(near, far, self.kernel, self.stride, self.dilation, self.start)


@lru_cache(maxsize=4096)
def _inner_taps(near: int, far: int, kernel: int, stride: int, dilation: int, start: int) -> int:
    """Pairs (position, tap) with 0 <= position * stride + tap * dilation - start < far."""
    total = 0
    for tap in range(kernel):
        shift = tap * dilation - start
        first = max(0, math.ceil(-shift / stride))
        last = min(near - 1, (far - 1 - shift) // stride)
        total += max(0, last - first + 1)
    return total


def same_start(inputs: int, outputs: int, kernel: int, stride: int, dilation: int) -> int:
    """Zeros before the first input with padding "same", as TensorFlow and XLA place them."""
    reach = dilation * (kernel - 1) + 1
    return max((outputs - 1) * stride + reach - inputs, 0) // 2


def matmul(groups: int, rows: int, inner: int, columns: int) -> dict[str, Any]:
    """Cost of `groups` products of (rows, inner) with (inner, columns), as fields of `Node`."""
    return {
        "kind": "matmul",
        "flops": 2 * groups * rows * inner * columns,
        "dims": (groups, rows, inner, columns),
    }


def convolution(
    batch: int, in_channels: int, out_channels: int, groups: int, axes: Sequence[Axis]
) -> dict[str, Any]:
    """Cost of a convolution, as fields of `Node`. Depthwise is one input channel per group."""
    groups = max(groups, 1)
    channels = batch * (in_channels // groups) * out_channels
    flops = 2 * channels * math.prod(axis.taps for axis in axes)
    inner = 2 * channels * math.prod(axis.inner_taps for axis in axes)
    kernel = math.prod(axis.kernel for axis in axes)
    positions = math.prod(axis.inputs if axis.transposed else axis.outputs for axis in axes)
    depthwise = groups > 1 and groups == in_channels
    return {
        "kind": "depthwise" if depthwise else "conv",
        "flops": flops,
        "padding_flops": flops - inner,
        "dims": (
            groups,
            batch * positions,
            in_channels // groups * kernel,
            out_channels // groups,
        ),
        "taps": kernel,
    }


def einsum(equation: str, left: Sequence[int], right: Sequence[int]) -> dict[str, Any]:
    """Cost of a two-operand einsum: each label is a group, a row, a column or summed over.

    A label that one operand alone has, and the result doesn't, is summed before the product, as
    every backend does. An einsum of more operands is a series of these, in an order that the
    backend chooses: its count may differ between backends.
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    first, _, second = terms.partition(",")
    first, second = _spelled(first, len(left)), _spelled(second, len(right))
    sizes = dict(zip([*second, *first], [*right, *left], strict=True))
    for label, size in zip(second, right, strict=True):
        sizes[label] = max(sizes[label], size)  # broadcasting
    result = _spelled(result, None)
    both = set(first) & set(second)
    groups = [label for label in both if label in result or label.isdigit()]
    inner = [label for label in both if label not in groups]
    rows = [label for label in set(first) - both if label in result]
    columns = [label for label in set(second) - both if label in result]
    parts = (groups, rows, inner, columns)
    m, r, k, c = (math.prod(sizes[label] for label in part) for part in parts)
    kept = both.union(result)
    sums = sum(
        math.prod(shape)
        for labels, shape in ((first, left), (second, right))
        if not kept.issuperset(labels)
    )
    return matmul(m, r, k, c) | {"elementwise_flops": sums}


def _spelled(labels: str, rank: int | None) -> str:
    """An ellipsis as digits, counted from the right so that both operands agree."""
    if "..." not in labels:
        return labels
    before, _, after = labels.partition("...")
    missing = 0 if rank is None else rank - len(before) - len(after)
    return before + "".join(str(i) for i in reversed(range(missing))) + after
