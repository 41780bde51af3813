"""`analyze`: what a step of a model costs, from its trace, before a step is run."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from bigzoo._errors import check_bool, check_choice
from bigzoo.cost._inputs import input_specs
from bigzoo.cost._memory import (
    Peak,
    States,
    analytic,
    compiled,
    constant_bytes,
    traced_inference,
    traced_training,
)
from bigzoo.cost._optimizer import Slots, slots
from bigzoo.cost._program import Program, Specs, item_bits
from bigzoo.cost._recast import own_policy, policy_name, recast, weight_dtype
from bigzoo.cost._report import CostReport, Operation, Tally
from bigzoo.cost._rules import gradients, kept_tensors, step
from bigzoo.cost._trace import named_layers, rematerialised, trace
from bigzoo.cost._update import update_operations

OUTSIDE = "(outside layers)"
_MEMORY = ("auto", "traced", "compiled", "analytic")


def analyze(
    model: keras.Model,
    batch_size: int = 1,
    input_shape: Any = None,
    optimizer: Any = "adam",
    training: bool = True,
    dtype: str | None = None,
    *,
    memory: str = "auto",
) -> CostReport:
    """What a step of `model` costs: FLOPs, memory and bytes moved, each with how it was obtained.

    The backend traces the model on abstract inputs: nothing is computed, no activation is
    allocated, the model is not changed. What is counted is the operations of that trace, so the
    inside of a layer of your own counts as well. Matrix products and convolutions count two FLOPs
    per multiply-add, padding included, and give the same number on each backend; everything else
    is counted apart, in `elementwise_flops`, which depends on the backend. The backward pass
    follows from the forward pass by rule: one product more for each side that has a gradient.

    Args:
        model: Any Keras model: functional, sequential or subclassed.
        batch_size: Samples in a step, at least 1.
        input_shape: Shape of one sample, without the batch. Needed where the model leaves
            dimensions open, such as the length of a text: `input_shape=(128,)`. For several
            inputs one shape that fits all, or a dict or list of shapes. A subclassed model
            whose input is not float32 takes a `keras.KerasTensor` here. A model without
            weights is built for it.
        optimizer: Name or optimizer whose slots, such as Adam's two, are counted; None for the
            one that the model was compiled with.
        training: Whether to count a training step; else a forward pass in inference.
        dtype: Dtype policy to count in, such as "mixed_bfloat16", in place of the model's own.
            The model is not changed: every array but the outputs is counted in that width.
        memory: How to find the peak: "traced" from the trace; "compiled" by JAX's compiler,
            its own plan but slow (seconds to minutes), needs the JAX backend; "analytic", an
            interval from the sizes of all results alone; "auto" is "traced".

    Returns:
        A `CostReport`; print it, show it in a notebook, or use its fields. All figures are for
        the whole batch.

    Raises:
        ValueError: for a model whose shapes aren't known, for a batch size below 1, for an
            optimizer or dtype that isn't known.
        TypeError: if `model` is not a Keras model.

    Example:
        >>> report = bz.cost.analyze(bz.models.mlp(8), batch_size=32)
        >>> report.forward_flops  # 2 x 32 x (8 x 500 + 500 x 250 + 250 x 100 + 100 x 1)
        9862400
        >>> report.params
        154951
    """
    training = check_bool("training", training)
    check_choice("memory", memory, _MEMORY)
    specs = input_specs(model, batch_size, input_shape)
    own, wanted = own_policy(model), policy_name(model, dtype)
    _check_compiled(memory, own == wanted)
    stored = weight_dtype(own, wanted)
    weights = model.trainable_variables
    if optimizer is None:
        optimizer = getattr(model, "optimizer", None) or "adam"
    slot = slots(optimizer, weights, stored) if training else Slots()
    program = recast(trace(model, specs, training), own, wanted)
    _warn_unknown(program, model)
    grads = gradients(program, rematerialised(model, _output_sizes(program))) if training else None
    kept = kept_tensors(program, grads) if grads else {}
    operations = step(program, grads)
    if training:
        owners = _owners(model)
        operations += update_operations(slot, weights, owners, stored)
    states = States(
        weight_bytes=_bytes(model.variables, stored),
        optimizer_bytes=slot.bytes,
        input_bytes=program.bytes_of(program.inputs),
        constant_bytes=constant_bytes(program),
        gradient_bytes=_bytes(weights, stored) if training else 0,
    )
    if memory == "analytic":
        peak = analytic(program, states)
    elif grads is None:
        peak = traced_inference(program, states)
    else:
        peak = traced_training(program, grads, kept, states)
    if memory == "compiled":
        peak = compiled(model, specs, training, optimizer, peak.activation_bytes)
    return _report(model, specs, program, operations, kept, slot, states, peak, wanted)


def _check_compiled(memory: str, own_dtype: bool) -> None:
    backend = keras.backend.backend()
    if memory == "compiled" and backend != "jax":
        raise ValueError(
            f'memory="compiled" needs the JAX backend, and this is {backend}. '
            'Set KERAS_BACKEND=jax before Keras is imported, or use memory="traced".'
        )
    if memory == "compiled" and not own_dtype:
        raise ValueError(
            'memory="compiled" compiles the model as it is. Make the model in the dtype that you '
            "want, and leave `dtype` out."
        )


def _output_sizes(program: Program) -> dict[str, int]:
    """Layer -> values in what its last operation gives."""
    return {
        node.layer: sum(program.tensors[key].size for key in node.outputs) for node in program.nodes
    }


def _bytes(variables: Iterable[Any], dtype: str | None) -> int:
    """Bytes of these weights; with `dtype`, as if those with a fraction had that one."""
    total = 0
    for variable in variables:
        own = keras.backend.standardize_dtype(variable.dtype)
        is_float = own.startswith(("float", "bfloat"))
        bits = item_bits(dtype if dtype and is_float else own)
        total += math.prod(tuple(variable.shape)) * bits // 8
    return total


def _warn_unknown(program: Program, model: keras.Model) -> None:
    if not program.unknown_ops:
        return
    names = ", ".join(f"{name} ({n}x)" for name, n in sorted(program.unknown_ops.items()))
    warnings.warn(
        f"{model.name!r} uses operations that no rule knows: {names}. They count as no FLOPs; "
        "see `unknown_ops` of the report.",
        stacklevel=3,
    )


# --- the report --------------------------------------------------------------------------------


def _report(
    model: keras.Model,
    specs: Specs,
    program: Program,
    operations: Sequence[Operation],
    kept: Mapping[int, int],
    slot: Slots,
    states: States,
    peak: Peak,
    policy: str,
) -> CostReport:
    training = bool(slot.name)
    forward = [op for op in operations if op.phase == "forward"]
    forward_flops = _sum(forward, "flops")
    moved = _sum(operations, "read_bytes") + _sum(operations, "write_bytes")
    work = _sum(operations, "flops") + _sum(operations, "elementwise_flops")
    leaves = keras.tree.flatten(specs)
    return CostReport(
        model=model.name,
        backend=program.backend,
        batch_size=leaves[0].shape[0],
        input_shapes=_input_shapes(model, specs),
        dtype=policy,
        optimizer=slot.name,
        training=training,
        params=model.count_params(),
        trainable_params=sum(math.prod(tuple(v.shape)) for v in model.trainable_variables),
        weight_bytes=states.weight_bytes,
        forward_flops=forward_flops,
        forward_macs=forward_flops // 2,
        padding_flops=sum(node.padding_flops * node.count for node in program.nodes),
        elementwise_flops=_sum(forward, "elementwise_flops"),
        training_flops=_sum(operations, "flops") if training else 0,
        gradient_bytes=states.gradient_bytes,
        optimizer_bytes=slot.bytes,
        activation_bytes=peak.activation_bytes,
        input_bytes=states.input_bytes,
        peak_bytes=peak.bytes,
        peak_low_bytes=peak.low,
        peak_high_bytes=peak.high,
        peak_method=peak.method,
        bytes_moved=moved,
        arithmetic_intensity=work / moved if moved else 0.0,
        layers=_layers(model, program, operations, kept, training),
        kinds=_kinds(operations, training),
        unknown_ops=dict(program.unknown_ops),
        operations=tuple(operations),
        how=_how(program, peak, slot, training),
    )


def _sum(operations: Iterable[Operation], name: str) -> int:
    return sum(getattr(op, name) * op.count for op in operations)


def _input_shapes(model: keras.Model, specs: Any) -> dict[str, tuple[int, ...]]:
    if isinstance(specs, dict):
        return {name: spec.shape for name, spec in specs.items()}
    leaves = keras.tree.flatten(specs)
    names = [f"input_{i}" if len(leaves) > 1 else "input" for i in range(len(leaves))]
    return {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)}


def _layers(
    model: keras.Model,
    program: Program,
    operations: Sequence[Operation],
    kept: Mapping[int, int],
    training: bool,
) -> tuple[Tally, ...]:
    """One line per layer, in the model's order; what no layer does comes last."""
    layers = named_layers(model)
    by_layer: dict[str, list[Operation]] = defaultdict(list)
    for op in operations:
        by_layer[op.layer or OUTSIDE].append(op)
    activations = _by_layer(program, kept)
    params = _params_by_layer(model)
    types = {name: type(layer).__name__ for name, layer in layers.items()}
    rows = [
        _tally(
            name,
            types.get(name, ""),
            by_layer[name],
            params.get(name, 0),
            activations[name],
            training,
        )
        for name in [*layers, OUTSIDE]
    ]
    return tuple(row for row in rows if row.name != OUTSIDE or _is_something(row))


def _is_something(row: Tally) -> bool:
    return bool(row.params or row.forward_flops or row.elementwise_flops or row.bytes_moved)


def _by_layer(program: Program, kept: Mapping[int, int]) -> dict[str, int]:
    """Kept bytes by the layer that makes them."""
    layer_of = {key: node.layer for node in program.nodes for key in node.outputs}
    found: dict[str, int] = defaultdict(int)
    for key, size in kept.items():
        found[layer_of.get(key, "") or OUTSIDE] += size
    return found


def _params_by_layer(model: keras.Model) -> dict[str, int]:
    """Weights by the layer that owns them. Seeds and metrics' states are no parameters."""
    owners = _owners(model)
    found: dict[str, int] = defaultdict(int)
    for weight in model.weights:
        found[owners.get(id(weight), OUTSIDE)] += math.prod(tuple(weight.shape))
    return found


def _owners(model: keras.Model) -> dict[int, str]:
    """`id` of each weight -> the first layer that holds it, so that shared ones count once."""
    found: dict[int, str] = {}
    for name, layer in named_layers(model).items():
        for weight in layer.weights:
            found.setdefault(id(weight), name)
    return found


def _kinds(operations: Sequence[Operation], training: bool) -> tuple[Tally, ...]:
    by_kind: dict[str, list[Operation]] = defaultdict(list)
    for op in operations:
        by_kind[op.kind].append(op)
    rows = [_tally(kind, "", ops, 0, 0, training) for kind, ops in by_kind.items()]
    return tuple(sorted(rows, key=lambda row: (-row.forward_flops, -row.bytes_moved)))


def _tally(
    name: str, type_: str, ops: Sequence[Operation], params: int, kept: int, training: bool
) -> Tally:
    forward = [op for op in ops if op.phase == "forward"]
    return Tally(
        name=name,
        type=type_,
        params=params,
        forward_flops=_sum(forward, "flops"),
        training_flops=_sum(ops, "flops") if training else 0,
        elementwise_flops=_sum(forward, "elementwise_flops"),
        activation_bytes=kept,
        bytes_moved=_sum(ops, "read_bytes") + _sum(ops, "write_bytes"),
    )


def _how(program: Program, peak: Peak, slot: Slots, training: bool) -> dict[str, str]:
    """Field -> how it was obtained."""
    trace_of = {
        "tensorflow": "the TensorFlow graph",
        "jax": "the jaxpr",
        "torch": "the operators on meta tensors",
    }[program.backend]
    how = {
        "params": "counted by Keras",
        "weight_bytes": "sizes and dtypes of the weights",
        "forward_flops": f"products and convolutions in {trace_of}, 2 per multiply-add",
        "elementwise_flops": f"all other arithmetic in {trace_of}; differs between backends",
        "padding_flops": "taps of convolutions that fall on the zeros around their input",
        "input_bytes": "sizes and dtypes of the inputs",
        "arithmetic_intensity": "all FLOPs of the step per byte moved",
        "bytes_moved": "every operation reads its inputs and writes its outputs once, unfused",
        "peak_bytes": {
            "compiled": "JAX's compiler: arguments + results - aliases + temporaries",
            "analytic": "states, gradients, and every result of the trace once",
            "traced": "states and the arrays of the trace; no allocator, no workspaces",
        }[peak.method],
    }
    if training:
        how |= {
            "training_flops": "forward, and a product for each side that has a gradient",
            "gradient_bytes": "one gradient for each trainable weight",
            "optimizer_bytes": f"slots of {slot.name!r}, learned on tiny weights",
            "activation_bytes": "arrays of the trace that the derivatives need",
        }
    else:
        how["activation_bytes"] = "the most that is alive at one time, in the order of the trace"
    return how
