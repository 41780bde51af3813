"""The forward pass as JAX traces it: a jaxpr, from `jax.make_jaxpr` on abstract values."""

from __future__ import annotations

import math
import re
from typing import Any

import keras

from bigzoo.cost._live import work
from bigzoo.cost._loop_jax import literal, steps_of
from bigzoo.cost._ops_jax import RULES
from bigzoo.cost._products import Axis, convolution, matmul
from bigzoo.cost._program import Node, Program, Specs, Tensor, Variable
from bigzoo.cost._stateless import abstract, run
from bigzoo.cost._trace import layer_scopes

_SCOPE = re.compile(r"bigzoo_layer_(\d+)")


def trace_jax(
    model: keras.Model, specs: Specs, training: bool, layers: dict[str, keras.Layer]
) -> Program:
    """The program of `model(inputs, training=training)`, with its new states."""
    import jax

    names = list(layers)
    numbers = {name: i for i, name in enumerate(names)}
    inputs = keras.tree.map_structure(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), specs)
    weights = [abstract(model.trainable_variables), abstract(model.non_trainable_variables)]

    def forward(trainable: Any, others: Any, x: Any) -> Any:
        return run(model, trainable, others, x, training)

    with layer_scopes(layers, lambda name: jax.named_scope(f"bigzoo_layer_{numbers[name]}")):
        closed = jax.make_jaxpr(forward)(*weights, inputs)
    return JaxprReader(names).read(closed, model)


class JaxprReader:
    """Walks a jaxpr and those inside it, and writes the program."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.names = names or []
        self.program = Program()
        self.numbers: dict[int, int] = {}  # key -> its value, of the whole numbers in the program
        self.flipped: set[int] = set()  # arrays read backwards
        self.turned: set[int] = set()  # kernels of a transposed convolution
        self.resizing = 0  # how many functions that resize pictures are running

    def read(self, closed: Any, model: keras.Model | None = None) -> Program:
        program, jaxpr = self.program, closed.jaxpr
        values: dict[int, int] = {}
        for variable in [*jaxpr.constvars, *jaxpr.invars]:
            self._new(values, variable)
        trainable = model.trainable_variables if model else []
        others = model.non_trainable_variables if model else []
        for i, (variable, state) in enumerate(
            zip(jaxpr.invars, [*trainable, *others], strict=False)
        ):
            program.variables[values[id(variable)]] = Variable(state.path, i < len(trainable))
        program.inputs = [values[id(v)] for v in jaxpr.invars[len(program.variables) :]]
        self._walk(jaxpr, values, 1, "")
        outputs = [self._value(values, v) for v in jaxpr.outvars]
        program.outputs = outputs[: len(outputs) - len(others)]
        program.states = outputs[len(outputs) - len(others) :]
        return program

    def _new(self, values: dict[int, int], variable: Any, base: int | None = None) -> int:
        aval = variable.aval
        key = len(self.program.tensors)
        self.program.tensors[key] = Tensor(_shape(aval), str(aval.dtype), base)
        values[id(variable)] = key
        return key

    def _value(self, values: dict[int, int], atom: Any) -> int:
        """The key of a variable; a literal gets one of its own."""
        if hasattr(atom, "val"):
            key = self._new({}, atom)
            if (number := literal(atom)) is not None:
                self.numbers[key] = number
            return key
        return values[id(atom)]

    def _walk(self, jaxpr: Any, values: dict[int, int], count: int, layer: str) -> None:
        for eqn in jaxpr.eqns:
            here = self._layer(eqn) or layer
            name = eqn.primitive.name
            if name == "scan":
                self._scan(eqn, values, count, here)
            elif name == "while":
                self._while(eqn, values, count, here)
            elif name == "cond":
                self._cond(eqn, values, count, here)
            elif (inner := _inner(eqn)) is not None:
                self._call(eqn, inner, values, count, here)
            else:
                self._operation(eqn, values, count, here)

    def _layer(self, eqn: Any) -> str:
        found = _SCOPE.findall(str(eqn.source_info.name_stack))
        return self.names[int(found[-1])] if found else ""

    def _operation(self, eqn: Any, values: dict[int, int], count: int, layer: str) -> None:
        inputs = tuple(self._value(values, atom) for atom in eqn.invars)
        name = eqn.primitive.name
        kind, keeps, per_element = RULES.get(name, ("unknown", "inputs", 0.0))
        shares = kind == "view" and inputs and name != "broadcast_in_dim"
        outputs = tuple(
            self._new(values, v, inputs[i] if shares and i < len(inputs) else None)
            for i, v in enumerate(eqn.outvars)
        )
        self._follow_kernel(name, inputs, outputs)
        if name in _PRODUCTS and self.resizing:
            # Products with a table of weights: what other backends do as a pooling.
            fields = {"kind": "pool", "elementwise_flops": _dot(eqn)["flops"]}
        elif name in _PRODUCTS:
            turned = inputs[1] in self.turned
            cost = _dot(eqn) if name == "dot_general" else _convolution(eqn, turned)
            fields = {"keeps": "operands", "left": inputs[0], "right": inputs[1], **cost}
        else:
            flops = int(per_element * _elements(eqn, kind))
            fields = {"kind": kind, "keeps": keeps, "elementwise_flops": flops}
        self.program.nodes.append(
            Node(name, inputs=inputs, outputs=outputs, count=count, layer=layer, **fields)
        )

    def _follow_kernel(self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        """`lax.conv_transpose` flips its kernel and then swaps its channels."""
        if name == "rev":
            self.flipped.update(outputs)
        elif (name == "transpose" and inputs[0] in self.flipped) or (
            name == "convert_element_type" and inputs[0] in self.turned
        ):
            self.turned.update(outputs)

    # --- jaxprs inside --------------------------------------------------------------------

    def _enter(self, jaxpr: Any, atoms: list[Any], values: dict[int, int]) -> dict[int, int]:
        inside: dict[int, int] = {}
        for variable in jaxpr.constvars:
            self._new(inside, variable)
        for variable, atom in zip(jaxpr.invars, atoms, strict=True):
            inside[id(variable)] = self._value(values, atom)
        return inside

    def _call(self, eqn: Any, jaxpr: Any, values: dict[int, int], count: int, layer: str) -> None:
        inside = self._enter(jaxpr, list(eqn.invars), values)
        resizes = eqn.params.get("name") == _RESIZE
        self.resizing += resizes
        self._walk(jaxpr, inside, count, layer)
        self.resizing -= resizes
        for variable, result in zip(eqn.outvars, jaxpr.outvars, strict=True):
            values[id(variable)] = self._value(inside, result)

    def _cond(self, eqn: Any, values: dict[int, int], count: int, layer: str) -> None:
        """Counts the branch with the most FLOPs, as one that may be taken."""
        start = len(self.program.nodes)
        kept: list[Node] = []
        ends = []
        for branch in eqn.params["branches"]:
            inside = self._enter(branch.jaxpr, list(eqn.invars)[1:], values)
            self._walk(branch.jaxpr, inside, count, layer)
            nodes = self.program.nodes[start:]
            del self.program.nodes[start:]
            if not kept or work(nodes) > work(kept):
                kept = nodes
            ends.append([self._value(inside, v) for v in branch.jaxpr.outvars])
        self.program.nodes += kept
        for i, variable in enumerate(eqn.outvars):
            key = self._new(values, variable)
            self.program.links += [(end[i], key) for end in ends]

    def _scan(self, eqn: Any, values: dict[int, int], count: int, layer: str) -> None:
        jaxpr = eqn.params["jaxpr"].jaxpr
        consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
        atoms = [self._value(values, atom) for atom in eqn.invars]
        inside: dict[int, int] = {}
        for variable in jaxpr.constvars:
            self._new(inside, variable)
        for i, (variable, source) in enumerate(zip(jaxpr.invars, atoms, strict=True)):
            if i < consts:
                inside[id(variable)] = source
            else:
                # A slice of a sequence shares its memory; a carried state is a new one each step.
                key = self._new(inside, variable, source if i >= consts + carry else None)
                self.program.links.append((source, key))
        self._walk(jaxpr, inside, count * eqn.params["length"], layer)
        ends = [self._value(inside, v) for v in jaxpr.outvars]
        for i, (variable, end) in enumerate(zip(eqn.outvars, ends, strict=True)):
            self.program.links.append((end, self._new(values, variable)))
            if i < carry:
                self.program.links.append((end, inside[id(jaxpr.invars[consts + i])]))

    def _while(self, eqn: Any, values: dict[int, int], count: int, layer: str) -> None:
        """Where only the data tell the steps of a loop, it is counted once, and that is said."""
        given = [self.numbers.get(self._value(values, atom)) for atom in eqn.invars]
        steps = steps_of(eqn, given)
        if steps is None:
            unknown = self.program.unknown_ops
            unknown["while (steps unknown)"] = unknown.get("while (steps unknown)", 0) + count
            steps = 1
        jaxpr = eqn.params["body_jaxpr"].jaxpr
        consts = eqn.params["body_nconsts"]
        skipped = eqn.params["cond_nconsts"]
        atoms = list(eqn.invars)[skipped:]
        inside = self._enter(jaxpr, atoms, values)
        for variable in jaxpr.invars[consts:]:
            source = inside[id(variable)]
            self.program.links.append((source, self._new(inside, variable)))
        self._walk(jaxpr, inside, count * steps, layer)
        for i, (variable, result) in enumerate(zip(eqn.outvars, jaxpr.outvars, strict=True)):
            end = self._value(inside, result)
            self.program.links.append((end, self._new(values, variable)))
            self.program.links.append((end, inside[id(jaxpr.invars[consts + i])]))


_PRODUCTS = ("dot_general", "conv_general_dilated")
_RESIZE = "_resize"  # the function inside `jax.image.resize`


def _inner(eqn: Any) -> Any:
    """The jaxpr that this equation calls once with its own inputs, if it does."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = eqn.params.get(name)
        jaxpr = getattr(found, "jaxpr", found)
        if hasattr(jaxpr, "eqns") and len(jaxpr.invars) == len(eqn.invars):
            return jaxpr
    return None


def _shape(aval: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(aval, "shape", ()))


def _elements(eqn: Any, kind: str) -> int:
    if kind == "reduction":
        return math.prod(_shape(eqn.invars[0].aval))
    size = math.prod(_shape(eqn.outvars[0].aval))
    return size * math.prod(eqn.params.get("window_dimensions", ()))


def _dot(eqn: Any) -> dict[str, Any]:
    (inner, inner_right), (groups, groups_right) = eqn.params["dimension_numbers"]
    left, right = _shape(eqn.invars[0].aval), _shape(eqn.invars[1].aval)
    rows = [size for i, size in enumerate(left) if i not in (*inner, *groups)]
    columns = [size for i, size in enumerate(right) if i not in (*inner_right, *groups_right)]
    return matmul(
        math.prod(left[i] for i in groups),
        math.prod(rows),
        math.prod(left[i] for i in inner),
        math.prod(columns),
    )


def _convolution(eqn: Any, turned: bool) -> dict[str, Any]:
    """A convolution, and the ones that are gradients of it, by the definition of `_products`."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    left, right = _shape(eqn.invars[0].aval), _shape(eqn.invars[1].aval)
    result = _shape(eqn.outvars[0].aval)
    axes = []
    for i, (axis, kernel_axis, out_axis) in enumerate(
        zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    ):
        axes.append(_axis(params, i, left[axis], right[kernel_axis], result[out_axis], turned))
    return convolution(
        # Each output sums over the kernel's own input channels, however the rest is grouped.
        result[numbers.out_spec[0]],
        right[numbers.rhs_spec[1]] * params["feature_group_count"],
        result[numbers.out_spec[1]],
        params["feature_group_count"],
        axes,
    )


def _axis(params: Any, i: int, inputs: int, kernel: int, outputs: int, turned: bool) -> Axis:
    stride, spread = params["window_strides"][i], params["lhs_dilation"][i]
    dilation, start = params["rhs_dilation"][i], params["padding"][i][0]
    if spread > 1 or (stride == 1 and (turned or outputs > inputs)):
        # With spread inputs each input meets the kernel once: read it as a transposed one,
        # whose first output is where the kernel's last tap meets the first input. Without a
        # spread, only a transposed one gives more than it gets.
        crop = dilation * (kernel - 1) - start
        return Axis(inputs, outputs, kernel, spread, dilation, crop, transposed=True)
    return Axis(inputs, outputs, kernel, stride, dilation, start)
