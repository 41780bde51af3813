"""Which layers of a model are its head, its blocks from the top down, and which are trained."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import check_int, message, suggest

# "stage1_block0_conv1" -> "stage1_block0", "block6a_expand_conv" -> "block6a", "layer0_attention"
# -> "layer0": what counts as one step of depth in our models and in keras.applications.
_BLOCK = re.compile(r"^(.*(?:block|layer|stage)_?\d+[a-z]?)(?:_|$)")
_NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)
UNFREEZE = ("head", "top", "all")
_TOP_SHARE = 1 / 3


@dataclass(frozen=True)
class Unit:
    """A layer with weights, wherever it lies.

    Attributes:
        path: Its name, after those of the models that it is nested in: "resnet/stage1_conv".
        layer: The layer.
    """

    path: str
    layer: Any


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model.

    Attributes:
        head: Layers that are trained first: those that make the outputs.
        blocks: The other layers with weights, in blocks from the output to the input.
    """

    head: tuple[Unit, ...]
    blocks: tuple[tuple[Unit, ...], ...]

    @property
    def body(self) -> list[Unit]:
        return [unit for block in self.blocks for unit in block]

    def depth_of(self, unit: Unit) -> int:
        """0 for the head, 1 for the block below it, and so on down to the input."""
        for depth, block in enumerate(self.blocks, start=1):
            if any(unit.layer is one.layer for one in block):
                return depth
        return 0


def dissect(model: keras.Model, head: Sequence[str] | None = None) -> Anatomy:
    """Head and blocks of a functional or Sequential model.

    Args:
        model: A built model.
        head: Patterns of the layers of the head; None finds them.

    Raises:
        ValueError: if the model isn't built of layers that can be listed, or no layer is left for
            one of the parts.
    """
    check_graph(model)
    units = list(units_of(model))
    if head is None:
        found = _find_head(model)
        tops = [unit for unit in units if any(unit.layer is layer for layer in found)]
    else:
        tops = matching(units, head, "head")
    if not tops:
        fix = 'Name them: `head=["dense*"]`.'
        raise ValueError(message("model", model.name, "a model whose last layers are known", fix))
    rest = [unit for unit in units if not any(unit.layer is top.layer for top in tops)]
    return Anatomy(tuple(tops), _blocks(rest))


def check_graph(model: Any) -> None:
    """An error for a model whose layers and their connections can't be seen."""
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    try:
        known = bool(model.inputs and model.outputs)
    except (AttributeError, ValueError):
        known = False
    if not known:
        fix = "Make it with keras.Model(inputs, outputs), or build the Sequential with an Input."
        expected = "a functional model or a built Sequential, whose graph of layers is known"
        raise ValueError(message("model", type(model).__name__, expected, fix))


def units_of(model: keras.Model, prefix: str = "", seen: set[int] | None = None) -> Iterator[Unit]:
    """The layers with weights from input to output, those in nested models included."""
    seen = set() if seen is None else seen
    for layer in model.layers:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model) and layer.layers:
            yield from units_of(layer, f"{prefix}{layer.name}/", seen)
        elif layer.weights:
            yield Unit(f"{prefix}{layer.name}", layer)


def matching(units: Sequence[Unit], patterns: Any, argument: str) -> list[Unit]:
    """The units whose path or name fits one of `patterns`; each of these must fit something."""
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    found: dict[int, Unit] = {}
    for pattern in given:
        if not isinstance(pattern, str):
            raise TypeError(message(argument, pattern, "a pattern of layer names, a str"))
        fits = [
            unit
            for unit in units
            if fnmatch.fnmatchcase(unit.path, pattern)
            or fnmatch.fnmatchcase(unit.layer.name, pattern)
        ]
        if not fits:
            expected = "the name of a layer with weights, or a pattern such as 'block3_*'"
            hint = suggest(pattern, [unit.path for unit in units])
            raise ValueError(message(argument, pattern, expected, hint))
        found.update({id(unit.layer): unit for unit in fits})
    return [unit for unit in units if id(unit.layer) in found]


def choose(anatomy: Anatomy, unfreeze: Any) -> list[Unit]:
    """The units of the body that `unfreeze` names; see `bigzoo.finetune`."""
    count = len(anatomy.blocks)
    if isinstance(unfreeze, str) and unfreeze in UNFREEZE:
        number = {"head": 0, "top": math.ceil(count * _TOP_SHARE), "all": count}[unfreeze]
    elif isinstance(unfreeze, (list, tuple)):
        return matching([*anatomy.body[::-1], *anatomy.head], unfreeze, "unfreeze")
    elif isinstance(unfreeze, str):
        fix = f"{suggest(unfreeze, UNFREEZE)} Patterns of layer names go in a list."
        raise ValueError(message("unfreeze", unfreeze, "'head', 'top', 'all' or a list", fix))
    else:
        fix = f"The model has {count} blocks below its head."
        number = check_int("unfreeze", unfreeze, 0, count, fix)
    return [unit for block in anatomy.blocks[:number] for unit in block]


def set_trainable(model: keras.Model, anatomy: Anatomy, chosen: Sequence[Unit]) -> None:
    """Make the head and the `chosen` units trainable, and nothing else.

    BatchNormalization in the body stays frozen, which keeps it in inference: its moving statistics
    are those of the data that the body was trained on, and a few small batches would spoil them.
    """
    model.trainable = True  # reaches the nested models; each layer's own flag follows
    for unit in anatomy.body:
        train = any(unit.layer is one.layer for one in chosen)
        unit.layer.trainable = train
        if train:
            for inner in inner_layers(unit.layer):
                if isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False


def flags(model: keras.Model) -> list[tuple[Any, bool]]:
    """Each layer with its own trainable flag, the outermost first."""
    return [(layer, layer.trainable) for layer in inner_layers(model)]


def put_back(found: Sequence[tuple[Any, bool]]) -> None:
    """Set the flags again that `flags` has read."""
    for layer, trainable in found:
        layer.trainable = trainable


def inner_layers(layer: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """`layer` itself and every layer inside: of models, wrappers and layers made of layers."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    held = [getattr(layer, "layers", None) if isinstance(layer, keras.Model) else None]
    held += [value for name, value in vars(layer).items() if not name.startswith("__")]
    for value in held:
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if isinstance(one, keras.layers.Layer):
                yield from inner_layers(one, seen)


# === Head ===


def _find_head(model: keras.Model) -> list[Any]:
    """Layers outside of a nested model and after it; else those that make the outputs."""
    nested = [
        place
        for place, layer in enumerate(model.layers)
        if isinstance(layer, keras.Model) and layer.weights
    ]
    if nested:
        after = [layer for layer in model.layers[nested[0] :] if not isinstance(layer, keras.Model)]
        outside = [layer for layer in after if layer.weights]
        if outside:
            return outside
    found: list[Any] = []
    for layer in _last_layers(model):
        found += _find_head(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _last_layers(model: keras.Model) -> list[Any]:
    """The first layer with weights on each way back from the outputs."""
    if isinstance(model, keras.Sequential):
        return [layer for layer in model.layers if layer.weights][-1:]
    by_name = {operation.name: operation for operation in model.operations}
    found: list[Any] = []
    seen: set[str] = set()
    waiting = list(model.output_names)
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        operation = by_name[name]
        if getattr(operation, "weights", None):
            found.append(operation)
            continue
        for tensor in inputs_of(operation):
            below = below_of(model, tensor)
            waiting += below.output_names if below is not None else []
    return found


def below_of(model: keras.Model, tensors: Any) -> Any:
    """The part of `model` that makes `tensors`; None where they aren't of its graph.

    Its `operations` are all that lies below, its `output_names` the names of what makes `tensors`.
    """
    try:
        return keras.Model(model.inputs, tensors)
    except (TypeError, ValueError):
        return None


def inputs_of(operation: Any) -> list[Any]:
    """The tensors that an operation took when it was first called."""
    try:
        return list(keras.tree.flatten(operation.input))
    except (AttributeError, ValueError):  # never called symbolically
        return []


# === Blocks ===


def _blocks(units: Sequence[Unit]) -> tuple[tuple[Unit, ...], ...]:
    """Units from input to output -> blocks from the output to the input."""
    names, last = [], ""
    for unit in units:
        folder, _, name = unit.path.rpartition("/")
        found = _BLOCK.match(name)
        if found:
            last = f"{folder}/{found[1]}"
        elif "embedding" in name:
            last = f"{folder}/embeddings"
        elif not isinstance(unit.layer, _NORMALIZATION):  # belongs to what it normalises
            last = unit.path
        names.append(last)
    blocks: dict[str, list[Unit]] = {}
    for name, unit in zip(reversed(names), reversed(units), strict=True):
        blocks.setdefault(name, []).append(unit)
    return tuple(tuple(block) for block in blocks.values())
