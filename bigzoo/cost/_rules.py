"""From a program to the operations of a step: forward, and backward by the rules of derivatives.

The backward pass of a product needs one more product for each side that has a gradient: none for
the model's inputs, none for frozen weights. What is rematerialised runs forward once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from bigzoo.cost._live import with_gradient
from bigzoo.cost._program import PRODUCTS, Node, Program
from bigzoo.cost._report import Operation


@dataclass(frozen=True)
class Gradients:
    """Which tensors of a program get a gradient, and which operations run again for it."""

    tensors: frozenset[int]
    again: Mapping[str, int] = field(default_factory=dict)  # layer -> times it runs again

    def has(self, key: int | None) -> bool:
        return key in self.tensors


def gradients(program: Program, again: Mapping[str, int] | None = None) -> Gradients:
    """The tensors between the trainable weights and the model's outputs."""
    weights = [key for key, v in program.variables.items() if v.trainable]
    between = with_gradient(program, weights)
    return Gradients(frozenset(between), again or {})


def step(program: Program, grads: Gradients | None) -> list[Operation]:
    """Every operation of a step; of a forward pass alone where `grads` is None."""
    found = []
    for node in program.nodes:
        if node.kind == "view":
            continue
        found.append(_forward(program, node))
    if grads is None:
        return found
    for node in reversed(program.nodes):
        if not has_backward(node, grads):
            continue
        if node.layer in grads.again and node.kind != "view":
            once = _forward(program, node)
            times = once.count * grads.again[node.layer]
            found.append(replace(once, phase="backward", count=times))
        found += _backward(program, node, grads)
    return found + list(_accumulations(program, grads))


def has_backward(node: Node, grads: Gradients) -> bool:
    """Whether a gradient goes through this operation."""
    return any(map(grads.has, node.outputs)) and any(map(grads.has, node.inputs))


# --- forward -------------------------------------------------------------------------------


def _forward(program: Program, node: Node) -> Operation:
    read = program.bytes_of(tuple(set(node.inputs)))
    write = program.bytes_of(node.outputs)
    if node.kind == "move":
        # A lookup or a slice reads only what it gives.
        read = min(read, write)
    if node.op.startswith(("TensorList", "AssignVariable")):
        read = write = max(read, write)
    return Operation(
        name=node.op,
        kind=node.kind,
        phase="forward",
        layer=node.layer,
        dtype=_dtype(program, node),
        flops=node.flops,
        elementwise_flops=node.elementwise_flops,
        read_bytes=read,
        write_bytes=write,
        count=node.count,
        dims=node.dims,
        taps=node.taps,
    )


def _dtype(program: Program, node: Node) -> str:
    """The dtype that it computes in: its first input's, for a product; else its output's."""
    first = node.left if node.left is not None else (*node.outputs, *node.inputs)[0]
    return program.tensors[first].dtype


# --- backward ------------------------------------------------------------------------------


def _backward(program: Program, node: Node, grads: Gradients) -> Iterator[Operation]:
    if node.kind in PRODUCTS:
        yield from _product_gradients(program, node, grads)
    elif node.kind == "view":
        return
    else:
        for key in dict.fromkeys(node.inputs):
            if grads.has(key):
                yield from _other_gradient(program, node, key)


def _product_gradients(program: Program, node: Node, grads: Gradients) -> Iterator[Operation]:
    groups, rows, inner, columns = node.dims
    result = program.tensors[node.outputs[0]].bytes
    forward = _forward(program, node)
    if node.left is None or node.right is None:
        return
    left, right = program.tensors[node.left].bytes, program.tensors[node.right].bytes
    sides = (
        ("left", node.left, right, left, (groups, rows, columns, inner)),
        ("right", node.right, left, right, (groups, inner, rows, columns)),
    )
    for side, key, other, own, dims in sides:
        if grads.has(key):
            yield replace(
                forward,
                name=f"{node.op} gradient of {side}",
                phase="backward",
                elementwise_flops=0,
                read_bytes=result + other,
                write_bytes=own,
                dims=dims,
            )
    if node.elementwise_flops:  # a bias added by the same operation: its gradient is a sum
        yield _plain(forward, f"{node.op} gradient of bias", "reduction", result, 0)


def _other_gradient(program: Program, node: Node, key: int) -> Iterator[Operation]:
    forward = _forward(program, node)
    own = program.tensors[key].bytes
    result = program.bytes_of(node.outputs)
    name = f"{node.op} gradient"
    broadcast = own < result and node.kind == "elementwise"
    if node.kind == "elementwise" and node.keeps == "none":
        if node.op.lower() in ("sub", "neg", "cast", "convert_element_type"):
            yield _plain(forward, name, "elementwise", result, own if not broadcast else result)
        if broadcast:
            yield _plain(forward, name, "reduction", result, own)
        return
    if node.kind == "elementwise":
        kept = result if node.keeps == "output" else program.bytes_of(tuple(set(node.inputs)))
        yield _plain(forward, name, "elementwise", result + kept, max(own, result))
        if broadcast:
            yield _plain(forward, name, "reduction", result, own)
        return
    if node.kind == "pool":
        kept = own + result if node.keeps == "inputs" else 0
        yield _plain(forward, name, "pool", result + kept, own)
        return
    kind = "move" if node.kind in ("move", "random", "unknown") else "elementwise"
    yield _plain(forward, name, kind, result, own)


def _plain(forward: Operation, name: str, kind: str, read: int, write: int) -> Operation:
    """An operation of the backward pass without a product, on arrays of these sizes."""
    item = 2 if forward.dtype in ("float16", "bfloat16") else 4
    flops = 0 if kind == "move" else max(read, write) // item
    return replace(
        forward,
        name=name,
        kind=kind,
        phase="backward",
        flops=0,
        elementwise_flops=flops,
        read_bytes=read,
        write_bytes=write,
        dims=(0, 0, 0, 0),
        taps=1,
    )


def _accumulations(program: Program, grads: Gradients) -> Iterator[Operation]:
    """Where a tensor is used twice, its gradients are added."""
    uses: Counter[int] = Counter()
    counts: dict[int, tuple[int, str]] = {}
    for node in program.nodes:
        if has_backward(node, grads):
            for key in dict.fromkeys(node.inputs):
                if grads.has(key):
                    base = program.base(key) if node.kind == "view" else key
                    uses[base] += 1
                    counts[base] = (node.count, node.layer)
    for key, times in uses.items():
        tensor = program.tensors[key]
        if times > 1 and tensor.is_float:
            count, layer = counts[key]
            yield Operation(
                "sum of gradients",
                "elementwise",
                "backward",
                layer,
                tensor.dtype,
                0,
                tensor.size * (times - 1),
                tensor.bytes * times,
                tensor.bytes,
                count,
            )


# --- what is kept --------------------------------------------------------------------------


def kept_tensors(program: Program, grads: Gradients) -> dict[int, int]:
    """Tensors that the forward pass keeps for the backward pass -> their bytes, over all steps.

    Weights and the model's inputs are there anyway; a view is counted as what it looks at; inside
    a rematerialised layer only what enters it is kept.
    """
    makers = {key: node for node in program.nodes for key in node.outputs}
    given = {*program.variables, *program.inputs}
    carried = {target for _, target in program.links} - set(makers)
    kept: dict[int, int] = {}
    for node in program.nodes:
        if not has_backward(node, grads):
            continue
        for key in kept_by(node, grads):
            key = program.base(key)
            if key in carried:  # a loop's state: one for each step
                kept[key] = program.tensors[key].bytes * node.count
                continue
            maker = makers.get(key)
            inside = node.layer in grads.again and maker is not None and maker.layer == node.layer
            if key in given or maker is None or inside:
                continue
            kept[key] = program.tensors[key].bytes * maker.count
    return kept


def kept_by(node: Node, grads: Gradients) -> list[int]:
    """The tensors that this operation's derivative needs of the forward pass."""
    if node.keeps == "output":
        return list(node.outputs)
    if node.keeps == "inputs":
        return list(node.inputs)
    if node.keeps == "first":
        return list(node.inputs[:1])
    if node.keeps == "operands":
        sides = [key for key in (node.left, node.right) if key is not None] or list(node.inputs)
        return [
            key
            for i, key in enumerate(sides)
            if any(grads.has(other) for j, other in enumerate(sides) if j != i)
        ]
    return []
