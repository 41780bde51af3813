"""The forward pass as torch dispatches it, on the meta device: shapes without values.

`TorchDispatchMode` is the narrowest hook that torch has: torch.utils.flop_counter, its own counter,
stands on it too. The module that holds it has an underscore, and so has the name of an operation
(`str` of it is used here); tests/cost/test_trace_torch.py pins both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from bigzoo._errors import shorten
from bigzoo.cost._ops_torch import (
    CONVOLUTIONS,
    FREE,
    PRODUCTS,
    RULES,
    SAME,
    SHAPE_ONLY,
    convolution_cost,
    elementwise_flops,
)
from bigzoo.cost._program import Node, Program, Specs, Tensor, Variable

# A state with at most this many integers is a seed or a counter.
_FEW = 16


def trace(
    model: keras.Model, specs: Specs, training: bool, current_layer: Callable[[], str]
) -> Program:
    """The program of `model(inputs, training=training)`.

    Weights and inputs are stand-ins without memory, so the model's own are neither read nor
    changed, and nor is torch's random state: meta tensors draw no numbers.

    Raises:
        ValueError: if a layer needs the values of a tensor, which a trace doesn't have.
    """
    import torch

    recorder = _Recorder(current_layer)
    inputs = keras.tree.map_structure(
        lambda spec: torch.empty(spec.shape, dtype=_dtype(spec.dtype), device="meta"), specs
    )
    recorder.program.inputs = [recorder.key(tensor) for tensor in keras.tree.flatten(inputs)]
    mapping = recorder.variables(model)
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        # Not "meta": there Keras takes short cuts, and some of its functions fail.
        keras.device("cpu"),
        _dispatch_mode(recorder),
        keras.StatelessScope(state_mapping=mapping) as scope,
    ):
        try:
            outputs = model(inputs, training=training)
        except Exception as error:
            raise ValueError(recorder.reason(error)) from error
        # States that the pass writes, such as the running means of a normalisation.
        states = [scope.get_current_value(variable) for variable, _ in mapping]
    program = recorder.program
    program.outputs = [recorder.key(tensor) for tensor in _tensors(keras.tree.flatten(outputs))]
    program.states = [key for key in map(recorder.key, states) if key not in program.variables]
    return program


def _dtype(name: str) -> Any:
    """Keras' name of a dtype as torch's; torch has few unsigned ones, and no texts."""
    import torch

    wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
    return getattr(torch, wider.get(name, name))


def _dispatch_mode(recorder: _Recorder) -> Any:
    """A context in which each operation of torch goes through `recorder`."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return recorder.run(func, args, kwargs or {})

    return Mode()


def _tensors(value: Any) -> Iterator[Any]:
    """Every torch tensor in nested lists, tuples and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@dataclasses.dataclass
class _Window:
    """The part of a transposed convolution's output that its layer keeps, as it cuts it."""

    node: int
    args: Sequence[Any]
    output: Any
    cuts: list[tuple[int, int]]


class _Recorder:
    """Runs operations on meta tensors and writes them down as a program."""

    def __init__(self, current_layer: Callable[[], str]) -> None:
        self.program = Program(backend="torch")
        self.current_layer = current_layer
        self.keys: dict[int, int] = {}  # id of a torch tensor -> key in the program
        self.alive: list[Any] = []  # tensors stay alive, so that no id is used twice
        self.made: set[int] = set()  # ids of tensors that stand for a value on its device
        self.stand_ins: dict[int, Any] = {}  # id of a tensor with values -> its meta tensor
        self.padding: dict[int, tuple[str, list[tuple[int, int]]]] = {}  # key -> layer, zeros
        self.windows: dict[int, _Window] = {}
        self.running = ("", "")  # operation and layer, while torch runs it

    # --- tensors --------------------------------------------------------------------------

    def key(self, tensor: Any) -> int:
        """The key of a tensor; one not seen before is a constant."""
        found = self.keys.get(id(tensor))
        return self._new(tensor, None) if found is None else found

    def _new(self, tensor: Any, base: int | None) -> int:
        key = len(self.program.tensors)
        dtype = str(tensor.dtype).removeprefix("torch.")
        self.program.tensors[key] = Tensor(tuple(tensor.shape), dtype, base)
        self.keys[id(tensor)] = key
        self.alive.append(tensor)
        return key

    def _same(self, tensor: Any, other: Any) -> Any:
        """`tensor`, as another name of the value of `other`."""
        self.keys[id(tensor)] = self.key(other)
        self.alive.append(tensor)
        return tensor

    def variables(self, model: keras.Model) -> list[tuple[Any, Any]]:
        """(variable, its meta tensor) for each state of the model."""
        import torch

        trainable = {id(variable) for variable in model.trainable_variables}
        mapping = []
        for variable in model.variables:
            value = variable.value
            tensor = torch.empty_like(value, device="meta", requires_grad=False)
            key = self.key(tensor)
            self.program.variables[key] = Variable(variable.path, id(variable) in trainable)
            self._stand_in(value, tensor)
            if not value.is_floating_point() and value.numel() <= _FEW:
                # Seeds and counters, whose values Python reads: a copy, so that the model's stay.
                tensor = value.detach().to("cpu", copy=True)
                self.keys[id(tensor)] = key
                self.alive.append(tensor)
            mapping.append((variable, tensor))
        return mapping

    def _stand_in(self, real: Any, tensor: Any) -> None:
        self.stand_ins[id(real)] = tensor
        self.alive += [real, tensor]

    def _without_values(self, value: Any) -> Any:
        """The arguments with every real tensor replaced by one without values."""
        import torch

        if isinstance(value, torch.Tensor):
            if value.is_meta:
                return value
            if id(value) not in self.stand_ins:
                self._stand_in(value, torch.empty_like(value, device="meta"))
                self.keys[id(self.stand_ins[id(value)])] = self.key(value)
            return self.stand_ins[id(value)]
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._without_values, value))
        if isinstance(value, dict):
            return {name: self._without_values(item) for name, item in value.items()}
        return value

    # --- operations -----------------------------------------------------------------------

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one operation of torch without values and write it down.

        Operations on constants alone, such as Python's numbers, keep their values.
        """
        # str(func) is "aten.add_.Tensor": name space, name, overload.
        space, name = str(func).split(".")[:2]
        in_place = name.endswith("_") and not name.endswith("__")
        name = name[:-1] if in_place else name
        name = name if space == "aten" else f"{space}.{name}"
        known = list(_tensors([args, kwargs]))
        if name == "empty_like" and known[0].is_meta and "device" in kwargs:
            # How Keras brings a meta tensor to its device: it is the same value here. Torch then
            # detaches what it made, which stops no gradient, unlike a detach by the model.
            made = func(*args, **{**kwargs, "device": "meta"})
            self.made.add(id(made))
            return self._same(made, known[0])
        symbolic = not known or any(t.is_meta or id(t) in self.stand_ins for t in known)
        # What the model holds must not be overwritten.
        symbolic = symbolic or (in_place and id(known[0]) not in self.keys)
        if symbolic:
            args, kwargs = self._without_values(args), self._without_values(kwargs)
            known = list(_tensors([args, kwargs]))
        if "device" in kwargs:
            kwargs = {**kwargs, "device": "meta" if symbolic else "cpu"}
        self.running = (name, self.current_layer())
        result = func(*args, **kwargs)
        self.running = ("", "")
        outputs = list(_tensors(result))
        if name in SAME or (name == "detach" and id(known[0]) in self.made):
            self._same(result, known[0])
        elif outputs and name not in FREE:
            self._record(name, [*args, *kwargs.values()], known, outputs, in_place)
        return result

    def _record(
        self, name: str, args: list[Any], known: list[Any], outputs: list[Any], in_place: bool
    ) -> None:
        keys = tuple(map(self.key, known))
        rule = RULES.get(name)
        view = rule is not None and rule[0] == "view"
        base = keys[0] if keys and (view or in_place) else None
        if name in SHAPE_ONLY:
            keys = ()
        results = tuple(self._new(tensor, base) for tensor in outputs)
        fields: dict[str, Any] = {"kind": "unknown", "keeps": "inputs"}
        if name in CONVOLUTIONS:
            fields = self._product(self._convolution(args, outputs[0], results[0]))
        elif name in PRODUCTS:
            fields = self._product(PRODUCTS[name](args))
        elif rule is not None:
            flops = elementwise_flops(name, args, known, outputs)
            fields = {"kind": rule[0], "keeps": rule[1], "elementwise_flops": flops}
        if name == "constant_pad_nd":
            self._pad(args, results[0], outputs[0].ndim)
        elif name == "slice":
            self._cut(args, keys[0], results[0])
        elif name == "_to_copy" and known[0].dtype != outputs[0].dtype:
            fields["kind"] = "elementwise"
        if in_place and base is not None:
            # Who reads the memory later, under any name, reads what is written here.
            self.program.links.append((results[0], self.program.base(base)))
        layer = self.current_layer()
        self.program.nodes.append(Node(name, inputs=keys, outputs=results, layer=layer, **fields))

    def _product(self, cost: dict[str, Any]) -> dict[str, Any]:
        sides = {side: self.key(cost[side]) for side in ("left", "right")}
        return {**cost, **sides, "keeps": "operands"}

    # --- padding of convolutions ------------------------------------------------------------

    def _pad(self, args: list[Any], result: int, rank: int) -> None:
        """Remember the zeros around a tensor: Keras pads unevenly before the convolution."""
        pads = list(args[1])  # before and after, from the last axis on
        value = args[2] if len(args) > 2 else 0
        if value == 0 and min(pads) >= 0 and len(pads) == 2 * (rank - 2):
            pairs = list(zip(pads[::2], pads[1::2], strict=True))
            self.padding[result] = (self.current_layer(), pairs[::-1])

    def _convolution(self, args: list[Any], output: Any, result: int) -> dict[str, Any]:
        layer, zeros = self.padding.get(self.key(args[0]), ("", []))
        transposed = args[6]
        if transposed or layer != self.current_layer():
            zeros = []  # zeros of another layer are that layer's output
        if transposed:
            cuts = [(0, 0)] * (output.ndim - 2)
            self.windows[result] = _Window(len(self.program.nodes), args, output, cuts)
        return convolution_cost(args, output, zeros)

    def _cut(self, args: list[Any], source: int, result: int) -> None:
        """Count as padding what Keras cuts off the output of a transposed convolution."""
        window = self.windows.get(source)
        if window is None:
            return
        node = self.program.nodes[window.node]
        given: list[Any] = [*args[1:], *[0, None, None, 1][len(args) - 1 :]]
        axis, start, end, step = given
        size = self.program.tensors[source].shape[axis]
        if axis < 2 or step != 1 or node.layer != self.current_layer():
            return
        start = 0 if start is None else start % size if start < 0 else start
        end = size if end is None else min(end + size if end < 0 else end, size)
        before, after = window.cuts[axis - 2]
        cuts = list(window.cuts)
        cuts[axis - 2] = (before + start, after + size - end)
        self.windows[result] = dataclasses.replace(window, cuts=cuts)
        cost = convolution_cost(window.args, window.output, cuts)
        self.program.nodes[window.node] = dataclasses.replace(
            node, padding_flops=cost["padding_flops"]
        )

    def reason(self, error: Exception) -> str:
        """Why a trace failed, and what to do about it."""
        name, layer = self.running
        name = "item" if name == "_local_scalar_dense" else name
        where = f"the layer {layer!r} stops at torch's operation {name!r}" if name else "it stops"
        text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
        return (
            f"{where} on tensors without values ({shorten(ValueError(text), 120)}). "
            "If it depends on values, count with KERAS_BACKEND=tensorflow or jax"
        )
