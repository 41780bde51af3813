"""Memory of a step: from the trace, as an interval; or from JAX's compiler."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo.cost._kernels import mean_square
from bigzoo.cost._optimizer import get_optimizer
from bigzoo.cost._program import Program, Specs
from bigzoo.cost._rules import Gradients, has_backward, kept_by
from bigzoo.cost._stateless import abstract, run


@dataclass(frozen=True)
class States:
    """What is in memory before a step begins, in bytes."""

    weight_bytes: int
    optimizer_bytes: int
    input_bytes: int
    constant_bytes: int = 0
    gradient_bytes: int = 0  # of all weights; not in `total`, as they come within the step

    @property
    def total(self) -> int:
        return self.weight_bytes + self.optimizer_bytes + self.input_bytes + self.constant_bytes


@dataclass(frozen=True)
class Peak:
    """Memory of a step in bytes, its interval, and what the activations take of it."""

    bytes: int
    low: int
    high: int
    activation_bytes: int
    method: str


def constant_bytes(program: Program) -> int:
    """Arrays that the program brings along: neither inputs, nor weights, nor made by it."""
    made = {key for node in program.nodes for key in node.outputs}
    made |= {target for _, target in program.links} | {*program.variables, *program.inputs}
    used = {program.base(key) for node in program.nodes for key in node.inputs}
    return program.bytes_of(tuple(used - made))


def alive(program: Program) -> int:
    """The most bytes of activations that a forward pass alone has alive at one time."""
    uses: Counter[int] = Counter(program.base(key) for n in program.nodes for key in set(n.inputs))
    ends = {program.base(key) for key in program.outputs}
    sizes: dict[int, int] = {}
    now = most = 0
    for node in program.nodes:
        for key in node.outputs:
            if node.kind != "view" and program.base(key) == key and key not in sizes:
                sizes[key] = program.tensors[key].bytes
                now += sizes[key]
        most = max(most, now)
        for key in map(program.base, set(node.inputs)):
            uses[key] -= 1
            if not uses[key] and key not in ends:
                now -= sizes.pop(key, 0)
    return most


def analytic(program: Program, states: States) -> Peak:
    """What can be said without derivatives: states, gradients, and every result once.

    At least the states alone; at most each result twice, as itself and as its gradient.
    """
    made = [key for node in program.nodes if node.kind != "view" for key in node.outputs]
    results = sum(program.tensors[key].bytes for key in made if program.base(key) == key)
    total = states.total + states.gradient_bytes
    return Peak(total + results, states.total, total + 2 * results, results, "analytic")


def traced_inference(program: Program, states: States) -> Peak:
    """Weights, inputs, and the most activations that are alive at one time."""
    most = alive(program)
    return _peak(states, most, largest=0, activation_bytes=most)


def traced_training(
    program: Program, grads: Gradients, kept: dict[int, int], states: States
) -> Peak:
    """States, and the most of activations and gradients that is there at one time.

    Forward, what the backward pass needs piles up; backward, it is let go as gradients of the
    weights come. Elementwise results that nothing keeps are taken as fused away.
    """
    made = [key for node in program.nodes if node.kind != "view" for key in node.outputs]
    largest = max((program.tensors[key].bytes for key in made), default=0)
    return _peak(states, _over_time(program, grads, kept), largest, sum(kept.values()))


def _peak(states: States, working: int, largest: int, activation_bytes: int) -> Peak:
    """The interval: half to twice of what isn't a state, and two workspaces of the largest array.

    A compiler that fuses more keeps less, one that copies more keeps more:
    tests/cost/test_memory.py holds the interval against JAX's.
    """
    total = states.total
    high = total + 2 * working + 2 * largest
    return Peak(total + working, total + working // 2, high, activation_bytes, "traced")


def _over_time(program: Program, grads: Gradients, kept: dict[int, int]) -> int:
    """The most bytes at one time, in a run of the program forward and then backward."""
    after_forward, most = _forward_peak(program, kept)
    freed: dict[int, list[int]] = {}
    for key, first in _first_uses(program, grads, kept).items():
        freed.setdefault(first, []).append(kept[key])
    gradients: dict[int, int] = {}
    now = after_forward
    for i in range(len(program.nodes) - 1, -1, -1):
        node = program.nodes[i]
        if not has_backward(node, grads):
            continue
        for key in map(program.base, set(node.inputs)):
            if grads.has(key) and key not in gradients:
                gradients[key] = program.tensors[key].bytes
                now += gradients[key]
        most = max(most, now)
        for key in node.outputs:
            if key in gradients and key not in program.variables:
                now -= gradients.pop(key)
        now -= sum(freed.get(i, ()))
    return most


def _forward_peak(program: Program, kept: dict[int, int]) -> tuple[int, int]:
    """Bytes at the end of the forward pass, and the most on the way."""
    uses: Counter[int] = Counter(program.base(key) for n in program.nodes for key in set(n.inputs))
    sizes: dict[int, int] = {}
    now = most = 0
    for node in program.nodes:
        for key in node.outputs:
            if program.base(key) != key:
                continue
            if key in kept:
                sizes[key] = kept[key]
            elif node.kind not in ("view", "elementwise", "random"):
                sizes[key] = program.tensors[key].bytes
            now += sizes.get(key, 0)
        most = max(most, now)
        for key in map(program.base, set(node.inputs)):
            uses[key] -= 1
            if not uses[key] and key not in kept:
                now -= sizes.pop(key, 0)
    return now, most


def _first_uses(program: Program, grads: Gradients, kept: dict[int, int]) -> dict[int, int]:
    """Kept tensor -> the first operation that needs it, whose backward pass is the last to."""
    found: dict[int, int] = {}
    for i, node in enumerate(program.nodes):
        if has_backward(node, grads):
            for key in map(program.base, kept_by(node, grads)):
                if key in kept:
                    found.setdefault(key, i)
    return found


def compiled(
    model: keras.Model, specs: Specs, training: bool, optimizer: Any, activation_bytes: int
) -> Peak:
    """JAX's compiler's own plan: arguments + results - what shares their memory + temporaries.

    The whole step is compiled, with the mean of the squared outputs as the loss; nothing runs.
    """
    import jax

    inputs = keras.tree.map_structure(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), specs)
    if training:
        function, variables = training_step(model, optimizer)
        state: Any = tuple(map(abstract, variables))
        plan = jax.jit(function, donate_argnums=0).lower(state, inputs).compile()
    else:
        function, state = _inference_step(model)
        plan = jax.jit(function).lower(state, inputs).compile()
    found = plan.memory_analysis()
    total = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
    return Peak(total, total, total, activation_bytes, "compiled")


def _inference_step(model: keras.Model) -> tuple[Any, Any]:
    def step(state: Any, x: Any) -> Any:
        trainable, others = state
        return run(model, trainable, others, x, False)[0]

    return step, [abstract(model.trainable_variables), abstract(model.non_trainable_variables)]


def training_step(model: keras.Model, optimizer: Any) -> tuple[Any, Any]:
    """A pure function of (state, inputs) on JAX, and the variables that the state is made of."""
    import jax

    fresh = get_optimizer(optimizer)
    fresh.build(model.trainable_variables)

    def loss(trainable: Any, others: Any, x: Any) -> Any:
        outputs, others = run(model, trainable, others, x, True)
        return mean_square(outputs), others

    def step(state: Any, x: Any) -> Any:
        trainable, others, slots = state
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, others), found = gradient(trainable, others, x)
        trainable, slots = fresh.stateless_apply(slots, found, trainable)
        return (trainable, others, slots), value

    return step, (model.trainable_variables, model.non_trainable_variables, fresh.variables)
