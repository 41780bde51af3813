"""The small computations that `calibrate` times, one for each kind of work in a model's step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bigzoo.cost._kernels import compiled, gradient, random
from bigzoo.cost._program import item_bits

# (groups, rows, inner, columns): a dense layer on few and on many rows, transformer blocks, wide
# and narrow ones.
_MATMULS = (
    (1, 32, 512, 512),
    (1, 512, 512, 512),
    (1, 2048, 512, 2048),
    (1, 4096, 64, 256),
    (1, 512, 4096, 128),
)
_BATCHED = ((96, 128, 64, 128), (96, 128, 128, 64), (16, 256, 64, 256))
# (batch, side, in channels, out channels, kernel): first layers, early wide ones, late deep ones.
_CONVOLUTIONS = (
    (8, 128, 3, 32, 3),
    (8, 56, 64, 64, 3),
    (8, 14, 256, 256, 3),
    (8, 56, 64, 256, 1),
    (8, 14, 512, 256, 1),
)
# (batch, side, channels, kernel)
_DEPTHWISE = ((8, 56, 96, 3), (8, 14, 384, 3), (8, 28, 192, 7))
_SIZES = (2**14, 2**18, 2**21, 2**24)  # bytes of an array: in each cache, and in none


@dataclass(frozen=True)
class Probe:
    """A computation to time, and what it stands for.

    `make` gives the function and its arguments; `repeats` is how often the work is in it.
    `forward` is true of gradients: on torch the last probe that isn't one, the forward pass, runs
    within it, and its time has to come off.
    """

    kind: str
    make: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
    dims: tuple[int, int, int, int] = (0, 0, 0, 0)
    bytes: int = 0
    flops: int = 0
    repeats: int = 1
    forward: bool = False


def probes(dtype: str) -> Iterator[Probe]:
    """All probes in `dtype`, in the order in which they are run."""
    for dims in _MATMULS:
        yield _matmul("matmul", dims, dtype)
    for dims in _BATCHED:
        yield _matmul("batched matmul", dims, dtype)
    for shape in _CONVOLUTIONS:
        yield from _convolution(shape, dtype)
    for channels in _DEPTHWISE:
        yield from _depthwise(channels, dtype)
    for size in _SIZES:
        yield _chain("elementwise", lambda x, y: x * y, size, 3, dtype)
        yield _chain("function", lambda x, y: ops.tanh(ops.exp(-x)), size, 4, dtype)
    yield from _reductions(dtype)
    yield from _pools(dtype)
    yield from _moves(dtype)
    yield _update(2**8, 16)
    yield _update(2**16, 4)
    yield _update(2**21, 1)


def _bytes(dtype: str, *shapes: tuple[int, ...]) -> int:
    return sum(math.prod(shape) for shape in shapes) * item_bits(dtype) // 8


def _matmul(kind: str, dims: tuple[int, int, int, int], dtype: str) -> Probe:
    groups, rows, inner, columns = dims
    lead = (groups,) if groups > 1 else ()

    def make() -> Any:
        left = random((*lead, rows, inner), dtype)
        return compiled(ops.matmul), (left, random((*lead, inner, columns), dtype))

    return Probe(kind, make, dims, flops=2 * math.prod(dims))


def _convolution(shape: tuple[int, ...], dtype: str) -> Iterator[Probe]:
    batch, side, inputs, outputs, kernel = shape
    x, w, y = (
        (batch, side, side, inputs),
        (kernel, kernel, inputs, outputs),
        (batch, side, side, outputs),
    )

    def conv(image: Any, weights: Any) -> Any:
        return ops.conv(image, weights, padding="same")

    rows, inner = batch * side * side, inputs * kernel * kernel
    yield from _three("conv", conv, (x, w, y), (1, rows, inner, outputs), dtype)


def _depthwise(shape: tuple[int, ...], dtype: str) -> Iterator[Probe]:
    batch, side, channels, kernel = shape
    x = (batch, side, side, channels)
    w = (kernel, kernel, channels, 1)

    def conv(image: Any, weights: Any) -> Any:
        return ops.depthwise_conv(image, weights, padding="same")

    dims = (channels, batch * side * side, kernel * kernel, 1)
    yield from _three("depthwise", conv, (x, w, x), dims, dtype)


def _three(
    kind: str,
    function: Callable[..., Any],
    shapes: tuple[tuple[int, ...], ...],
    dims: tuple[int, int, int, int],
    dtype: str,
) -> Iterator[Probe]:
    """A convolution and its two gradients."""
    x, w, y = shapes
    groups, rows, inner, columns = dims
    flops = 2 * math.prod(dims)

    def arguments() -> tuple[Any, ...]:
        return random(x, dtype), random(w, dtype, 1)

    def backward(index: int) -> Callable[[], Any]:
        return lambda: (gradient(function, index), (random(y, dtype, 2), *arguments()))

    yield Probe(kind, lambda: (compiled(function), arguments()), dims, flops=flops)
    yield Probe(
        f"{kind} input gradient",
        backward(0),
        (groups, rows, columns, inner),
        flops=flops,
        forward=True,
    )
    yield Probe(
        f"{kind} weight gradient",
        backward(1),
        (groups, inner, rows, columns),
        flops=flops,
        forward=True,
    )


def _chain(kind: str, function: Callable[..., Any], size: int, arrays: int, dtype: str) -> Probe:
    """`function` many times over in one program: one alone would only show how it starts."""
    repeats = max(4, min(32, 2**22 // size))

    def run(x: Any, y: Any) -> Any:
        for _ in range(repeats):
            x = function(x, y)
        return x

    def make() -> Any:
        count = size * 8 // item_bits(dtype)
        # Close to one, so that no product of 32 becomes a denormal number.
        y = 0.9 + 0.1 * random((count,), dtype, 1)
        return compiled(run), (random((count,), dtype), y)

    return Probe(kind, make, bytes=arrays * size, repeats=repeats)


def _reductions(dtype: str) -> Iterator[Probe]:
    for shape, axes in (
        ((8, 28, 28, 128), (0, 1, 2)),
        ((16, 56, 56, 64), (0, 1, 2)),
        ((8, 128, 384), -1),
        ((64, 128, 512), -1),
    ):

        def make(shape: Any = shape, axes: Any = axes) -> Any:
            return compiled(lambda x: ops.mean(x, axis=axes)), (random(shape, dtype),)

        yield Probe("reduction", make, bytes=_bytes(dtype, shape))


def _pools(dtype: str) -> Iterator[Probe]:
    x, y = (8, 56, 56, 64), (8, 28, 28, 64)

    def pool(image: Any) -> Any:
        return ops.max_pool(image, 2, 2)

    yield Probe("pool", lambda: (compiled(pool), (random(x, dtype),)), bytes=_bytes(dtype, x, y))


def _moves(dtype: str) -> Iterator[Probe]:
    for shape in ((2, 64, 6, 64), (16, 128, 12, 64)):

        def make(shape: Any = shape) -> Any:
            return compiled(lambda x: ops.transpose(x, (0, 2, 1, 3))), (random(shape, dtype),)

        yield Probe("move", make, bytes=_bytes(dtype, shape, shape))
    count = 2**20

    def draw() -> Any:
        return compiled(lambda x: keras.random.uniform((count,), seed=1) + x), (random((1,)),)

    yield Probe("random", draw, bytes=4 * count)


def _update(size: int, count: int) -> Probe:
    """Adam on weights of this many values: reads 4 arrays, writes 3, in float32."""

    def make() -> Any:
        weights = [keras.Variable(random((size,))) for _ in range(count)]
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(weights)
        return _updating(optimizer, weights), ([random((size,), seed=1)] * count,)

    return Probe("update", make, bytes=7 * 4 * size, repeats=count)


def _updating(optimizer: Any, weights: list[Any]) -> Callable[[Any], Any]:
    if keras.backend.backend() == "jax":
        step = compiled(
            lambda slots, slopes, values: optimizer.stateless_apply(slots, slopes, values)
        )
        slots = [variable.value for variable in optimizer.variables]
        return lambda slopes: step(slots, slopes, [weight.value for weight in weights])

    def apply(slopes: Any) -> Any:
        optimizer.apply(slopes, weights)
        return slopes[0]

    return compiled(apply)
