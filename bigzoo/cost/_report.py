"""`CostReport`: what a model costs, each figure with the way it was obtained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tally:
    """One line of a table: a layer, or a kind of operation.

    `forward_flops` and `training_flops` count the matrix-product class, two per multiply-add;
    `elementwise_flops` is everything else, in the forward pass. `bytes_moved` is one step's.
    """

    name: str
    type: str = ""
    params: int = 0
    forward_flops: int = 0
    training_flops: int = 0
    elementwise_flops: int = 0
    activation_bytes: int = 0
    bytes_moved: int = 0


@dataclass(frozen=True)
class Operation:
    """One operation of a step, as a roofline needs it. All figures are for one execution.

    `phase` is "forward", "backward" or "update"; `count` is how often it runs in a step; `dims`
    and `taps` are those of `Node`.
    """

    name: str
    kind: str
    phase: str
    layer: str
    dtype: str
    flops: int
    elementwise_flops: int
    read_bytes: int
    write_bytes: int
    count: int = 1
    dims: tuple[int, int, int, int] = (0, 0, 0, 0)
    taps: int = 1


@dataclass(frozen=True)
class CostReport:
    """What one step of a model costs, for the whole batch.

    Attributes:
        model: Name of the model.
        backend: Backend whose trace was counted.
        batch_size: Samples in a step.
        input_shapes: Name of each input -> its shape, with the batch.
        dtype: Dtype policy that was counted, such as "float32" or "mixed_bfloat16".
        optimizer: Name of the optimizer whose slots are counted; "" when not training.
        training: Whether the step is a training step.
        params, trainable_params: Numbers of values in the model's weights.
        weight_bytes: Bytes of all weights, as they are stored.
        forward_flops: FLOPs of the matrix-product class in a forward pass, two per multiply-add.
        forward_macs: Multiply-adds, `forward_flops` / 2.
        padding_flops: The part of `forward_flops` that multiplies the zeros of padding.
        elementwise_flops: All other arithmetic of the forward pass; depends on the backend.
        training_flops: As `forward_flops`, for forward and backward; 0 when not training.
        gradient_bytes: One gradient for each trainable weight.
        optimizer_bytes: The optimizer's slots.
        activation_bytes: What the forward pass keeps for the backward pass; when not training,
            the most that is alive at one time.
        input_bytes: One batch of inputs.
        peak_bytes, peak_low_bytes, peak_high_bytes: Memory of a step, and its interval.
        peak_method: "compiled", "traced" or "analytic".
        bytes_moved: Read and written by the step's operations, each on its own (no fusion).
        arithmetic_intensity: All FLOPs of the step per byte moved.
        layers, kinds: The same per layer, and per kind of operation.
        unknown_ops: Operation that no rule knows -> how often it runs.
        operations: Every operation of the step.
        how: Field -> how it was obtained, in words.
    """

    model: str
    backend: str
    batch_size: int
    input_shapes: Mapping[str, tuple[int, ...]]
    dtype: str
    optimizer: str
    training: bool
    params: int
    trainable_params: int
    weight_bytes: int
    forward_flops: int
    forward_macs: int
    padding_flops: int
    elementwise_flops: int
    training_flops: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    input_bytes: int
    peak_bytes: int
    peak_low_bytes: int
    peak_high_bytes: int
    peak_method: str
    bytes_moved: int
    arithmetic_intensity: float
    layers: tuple[Tally, ...]
    kinds: tuple[Tally, ...]
    unknown_ops: Mapping[str, int]
    operations: tuple[Operation, ...] = field(repr=False)
    how: Mapping[str, str] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        from bigzoo.cost import _render

        return _render.as_text(self)

    def _repr_html_(self) -> str:
        from bigzoo.cost import _render

        return _render.as_html(self)

    def to_dict(self, operations: bool = False) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and strings, which JSON can hold.

        Args:
            operations: Whether to add the list of every operation, thousands for a large model.
        """
        from bigzoo.cost import _render

        return _render.as_dict(self, operations)

    def to_json(self, operations: bool = False, indent: int | None = 2) -> str:
        """`to_dict` as JSON text; `indent` is the spaces per level, None for a single line."""
        from bigzoo.cost import _render

        return _render.as_json(self, operations, indent)
