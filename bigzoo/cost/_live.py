"""Which operations count, and which of them the gradient passes through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bigzoo.cost._program import Node, Program

# Operations that change a state: they count although nothing reads what they give.
_EFFECTS = ("Assign", "ResourceScatter")

# At the end of an operation's name: a side of its arrays is open, so its cost can't be told.
OPEN = " (open shape)"

# Where the gradient ends: it is stopped, or zero everywhere because the result is made of steps.
# As TensorFlow, JAX and torch name them.
_STOPS = frozenset(
    [
        "StopGradient",
        "Round",
        "Rint",
        "Floor",
        "Ceil",
        "Sign",
        "FloorDiv",
        "TruncateDiv",
        "stop_gradient",
        "round",
        "floor",
        "ceil",
        "sign",
        "detach",
        "trunc",
        "sgn",
        "floor_divide",
    ]
)


def without_dead(program: Program) -> Program:
    """The program without operations whose results nothing uses, as every compiler drops them.

    Such are the first step that TensorFlow's recurrent layers run to learn a shape.
    """
    roots = [*program.outputs, *program.states]
    roots += [key for node in program.nodes if _has_effect(node) for key in node.inputs]
    needed = reaching(program, roots)
    nodes = [n for n in program.nodes if _has_effect(n) or not needed.isdisjoint(n.outputs)]
    unknown = {name: n for name, n in program.unknown_ops.items() if "steps unknown" in name}
    for node in nodes:
        if node.kind == "unknown" or node.op.endswith(OPEN):
            unknown[node.op] = unknown.get(node.op, 0) + node.count
    return Program(**{**program.__dict__, "nodes": nodes, "unknown_ops": unknown})


def work(nodes: Iterable[Node]) -> int:
    """FLOPs of every kind: by which the branches of a choice are compared."""
    return sum((node.flops + node.elementwise_flops) * node.count for node in nodes)


def _has_effect(node: Node) -> bool:
    return node.op.startswith(_EFFECTS)


def reaching(program: Program, roots: Iterable[int]) -> set[int]:
    """Every tensor that one of `roots` is computed from, the roots included."""
    makers: dict[int, list[tuple[int, ...]]] = {}
    for node in program.nodes:
        for key in node.outputs:
            makers.setdefault(key, []).append(node.inputs)
    for source, target in program.links:
        makers.setdefault(target, []).append((source,))
    return _closure(makers, roots)


def with_gradient(program: Program, weights: Iterable[int]) -> set[int]:
    """Every tensor through which a gradient flows from the outputs back to one of `weights`."""
    users: dict[int, list[tuple[int, ...]]] = {}
    makers: dict[int, list[tuple[int, ...]]] = {}
    for source, targets in _gradient_edges(program):
        users.setdefault(source, []).append(targets)
        for target in targets:
            makers.setdefault(target, []).append((source,))
    ends = [key for key in program.outputs if _carries(program, key)]
    return _closure(users, weights) & _closure(makers, ends)


def _gradient_edges(program: Program) -> Iterator[tuple[int, tuple[int, ...]]]:
    for node in program.nodes:
        if node.op.removesuffix(OPEN) in _STOPS:
            continue
        outputs = tuple(key for key in node.outputs if _carries(program, key))
        yield from ((key, outputs) for key in node.inputs if _carries(program, key))
    yield from ((source, (target,)) for source, target in program.links)


def _carries(program: Program, key: int) -> bool:
    """Whether a gradient can pass: numbers with a fraction, and lists of them."""
    tensor = program.tensors[key]
    return tensor.is_float or tensor.dtype in ("variant", "resource")


def _closure(edges: dict[int, list[tuple[int, ...]]], roots: Iterable[int]) -> set[int]:
    found = set(roots)
    waiting = list(found)
    while waiting:
        for group in edges.get(waiting.pop(), ()):
            for key in group:
                if key not in found:
                    found.add(key)
                    waiting.append(key)
    return found
