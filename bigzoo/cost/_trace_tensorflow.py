"""The forward pass as TensorFlow traces it: a graph, built on abstract inputs and weights.

Nothing runs. Functions that the graph calls are read through `Graph._get_function`, the one private
name here (tests/cost/test_contracts.py pins it): TensorFlow has no public way from a call to the
body that it calls.
"""

from __future__ import annotations

import re
from typing import Any

import keras

from bigzoo.cost._graph_tensorflow import (
    PRODUCTS,
    dtype_of,
    is_open,
    key_of,
    rule_of,
    shape_of,
    size_of,
    steps_of,
)
from bigzoo.cost._live import OPEN, work
from bigzoo.cost._ops_tensorflow import FREE, RULES
from bigzoo.cost._program import Node, Program, Specs, Tensor, Variable
from bigzoo.cost._stateless import run
from bigzoo.cost._trace import layer_scopes

_SCOPE = re.compile(r"^bigzoo_layer_(\d+)/")
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_LOOPS = {"While", "StatelessWhile"}
_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}


def trace_tensorflow(
    model: keras.Model, specs: Specs, training: bool, layers: dict[str, keras.Layer]
) -> Program:
    """The program of `model(inputs, training=training)`."""
    import tensorflow as tf

    names = list(layers)
    numbers = {name: i for i, name in enumerate(names)}
    inputs = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), specs)
    weights = _specs(model.trainable_variables), _specs(model.non_trainable_variables)

    def forward(trainable: Any, others: Any, x: Any) -> Any:
        return run(model, trainable, others, x, training)

    # A scope that ends with "/" is absolute: the innermost layer alone names the operation.
    with layer_scopes(layers, lambda name: tf.name_scope(f"bigzoo_layer_{numbers[name]}/")):
        # Cheaper than tf.function by a quarter: no order of side effects, since there are none.
        graph = tf.compat.v1.wrap_function(forward, [*weights, inputs]).graph
    return _Reader(names).read(graph, model)


def _specs(variables: list[Any]) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(v.shape, v.value.dtype) for v in variables]


class _Reader:
    """Walks a graph and the functions that it calls, and writes the program."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.program = Program()

    def read(self, graph: Any, model: keras.Model) -> Program:
        program = self.program
        values: dict[Any, int] = {}
        captured = {key_of(inside) for _, inside in graph.captures}
        given = [self._new(values, x) for x in graph.inputs if key_of(x) not in captured]
        trainable, others = model.trainable_variables, model.non_trainable_variables
        for i, (key, variable) in enumerate(zip(given, [*trainable, *others], strict=False)):
            program.variables[key] = Variable(variable.path, i < len(trainable))
        program.inputs = given[len(program.variables) :]
        for _, inside in graph.captures:
            self._new(values, inside)
        self._walk(graph, values, 1, "")
        ends = [values[key_of(tensor)] for tensor in graph.outputs]
        program.outputs = ends[: len(ends) - len(others)]
        program.states = ends[len(ends) - len(others) :]
        return program

    def _new(self, values: dict[Any, int], tensor: Any, base: int | None = None) -> int:
        key = len(self.program.tensors)
        self.program.tensors[key] = Tensor(shape_of(tensor), dtype_of(tensor.dtype), base)
        values[key_of(tensor)] = key
        return key

    # --- walking --------------------------------------------------------------------------

    def _walk(self, graph: Any, values: dict[Any, int], count: int, layer: str) -> None:
        for op in graph.get_operations():
            kind = op.type
            if kind == "Placeholder" and op.outputs and key_of(op.outputs[0]) in values:
                continue
            here = self._layer(op.name) or layer
            if kind in _CALLS:
                self._call(graph, op, values, count, here)
            elif kind in _LOOPS:
                self._loop(graph, op, values, count, here)
            elif kind in _BRANCHES:
                self._branch(graph, op, values, count, here)
            elif kind in FREE:
                self._free(op, values)
            else:
                self._operation(op, values, count, here)

    def _layer(self, name: str) -> str:
        found = _SCOPE.match(name)
        return self.names[int(found.group(1))] if found else ""

    def _free(self, op: Any, values: dict[Any, int]) -> None:
        """A constant or a shape: there without work."""
        for tensor in op.outputs:
            self._new(values, tensor)

    def _operation(self, op: Any, values: dict[Any, int], count: int, layer: str) -> None:
        inputs = tuple(values[key_of(tensor)] for tensor in op.inputs)
        special = PRODUCTS.get(op.type)
        view = RULES.get(op.type, ("",))[0] == "view"
        outputs = tuple(
            self._new(values, tensor, inputs[i] if view and i < len(inputs) else None)
            for i, tensor in enumerate(op.outputs)
        )
        if special is not None:
            cost = special(op)
            if cost is not None:
                left, right = cost.pop("sides", (0, 1))
                cost["left"], cost["right"] = inputs[left], inputs[right]
                node = Node(op.type, inputs=inputs, outputs=outputs, keeps="operands", **cost)
                self._add(op, node, count, layer)
                return
        self._add(op, _ruled(op, inputs, outputs), count, layer)

    def _add(self, op: Any, node: Node, count: int, layer: str) -> None:
        is_counted_wrong = node.kind != "view" and any(map(is_open, [*op.inputs, *op.outputs]))
        name = node.op + (OPEN if is_counted_wrong else "")
        fields = {**node.__dict__, "op": name, "count": count, "layer": layer}
        self.program.nodes.append(Node(**fields))

    # --- functions, branches, loops -------------------------------------------------------

    def _body(self, graph: Any, name: str) -> Any:
        return graph._get_function(name).graph

    def _enter(self, body: Any, op_inputs: list[Any], values: dict[Any, int]) -> dict[Any, int]:
        """The values inside a body whose inputs are the call's own tensors."""
        inside: dict[Any, int] = {}
        for tensor, outer in zip(body.inputs, op_inputs, strict=True):
            inside[key_of(tensor)] = values[key_of(outer)]
        return inside

    def _call(self, graph: Any, op: Any, values: dict[Any, int], count: int, layer: str) -> None:
        body = self._body(graph, op.get_attr("f").name)
        inside = self._enter(body, list(op.inputs), values)
        self._walk(body, inside, count, layer)
        for tensor, result in zip(op.outputs, body.outputs, strict=True):
            values[key_of(tensor)] = inside[key_of(result)]

    def _branch(self, graph: Any, op: Any, values: dict[Any, int], count: int, layer: str) -> None:
        """Counts the branch with the most FLOPs, as one that may be taken."""
        if op.type.endswith("If"):
            names = [op.get_attr("then_branch").name, op.get_attr("else_branch").name]
        else:
            names = [branch.name for branch in op.get_attr("branches")]
        start = len(self.program.nodes)
        kept: list[Node] = []
        ends: list[list[int]] = []
        for name in names:
            body = self._body(graph, name)
            inside = self._enter(body, list(op.inputs)[1:], values)
            self._walk(body, inside, count, layer)
            nodes = self.program.nodes[start:]
            del self.program.nodes[start:]
            if not kept or work(nodes) > work(kept):
                kept = nodes
            ends.append([inside[key_of(result)] for result in body.outputs])
        self.program.nodes += kept
        for i, tensor in enumerate(op.outputs):
            key = self._new(values, tensor)
            self.program.links += [(end[i], key) for end in ends]

    def _loop(self, graph: Any, op: Any, values: dict[Any, int], count: int, layer: str) -> None:
        condition = self._body(graph, op.get_attr("cond").name)
        body = self._body(graph, op.get_attr("body").name)
        steps = steps_of(op, condition, body)
        if steps is None:
            unknown = self.program.unknown_ops
            unknown["While (steps unknown)"] = unknown.get("While (steps unknown)", 0) + count
            steps = 1
        inside: dict[Any, int] = {}
        for tensor, outer in zip(body.inputs, op.inputs, strict=True):
            source = values[key_of(outer)]
            if source in self.program.variables:
                inside[key_of(tensor)] = source
                continue
            key = self._new(inside, tensor)
            self.program.links.append((source, key))
        self._walk(body, inside, count * steps, layer)
        for start, tensor, result in zip(body.inputs, op.outputs, body.outputs, strict=True):
            end = inside[key_of(result)]
            self.program.links.append((end, inside[key_of(start)]))
            key = self._new(values, tensor)
            self.program.links.append((end, key))


def _ruled(op: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Node:
    kind, keeps, flops = rule_of(op)
    measured = op.inputs[0] if kind == "reduction" and op.inputs else None
    sizes = [measured] if measured is not None else op.outputs[:1]
    size = sum(size_of(tensor) for tensor in sizes)
    if kind == "pool" and "ksize" in op.node_def.attr:
        for side in op.get_attr("ksize"):
            size *= side
    if op.type == "AddN":
        size *= len(op.inputs) - 1
    return Node(op.type, kind, inputs, outputs, keeps, elementwise_flops=int(flops * size))
