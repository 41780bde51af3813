"""What a frozen body computes, stored once, so that only the head has to run in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo.data import Batches
from bigzoo.data._rows import tree_map
from bigzoo.train._blocks import Unit, below_of, inner_layers, inputs_of
from bigzoo.train._feed import Feed, InMemory
from bigzoo.train._memory import available_bytes

# Features may take this part of the memory that is left; without knowledge of it, so many bytes.
_SHARE = 0.25
_UNKNOWN_LIMIT = 2**30


class NotStorable(ValueError):
    """Why features can't be stored, in words that follow "because"."""


@dataclass
class Split:
    """A model cut in two.

    Attributes:
        body: From the model's inputs to the features; frozen, and without random layers.
        head: From the features to the model's outputs. It shares the model's layers.
    """

    body: keras.Model
    head: keras.Model


def split_model(model: keras.Model, head: Sequence[Unit]) -> Split:
    """Cut `model` below the layers that are trained.

    Raises:
        NotStorable: if what lies below is random in training, or nothing frozen does.
    """
    trained = [unit.layer for unit in head]
    features = _cut(model, trained)
    given = {id(tensor) for tensor in model.inputs}
    if all(id(tensor) in given for tensor in features):
        raise NotStorable("no frozen layer lies below the head")
    if any(id(tensor) in given for tensor in features):
        raise NotStorable("the head reads an input of the model")
    tensors: Any = features[0] if len(features) == 1 else tuple(features)
    # A Sequential has no `input` before it was called.
    given_as = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    try:
        body = keras.Model(given_as, tensors)
        made = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
        top = keras.Model(tensors, made, name=f"{model.name}_head")
    except ValueError:
        raise NotStorable("a way around the frozen layers leads from the input") from None
    below = [layer for operation in body.operations for layer in inner_layers(operation)]
    if any(one is layer for one in trained for layer in below):
        raise NotStorable("the head shares weights with the body")
    for layer in below:
        if is_random(layer):
            raise NotStorable(f"the layer {layer.name!r} below the head is random in training")
    return Split(body, top)


def is_random(layer: Any) -> bool:
    """Whether a layer, itself or by what is inside, draws random numbers in training."""
    # Random states are variables of a layer, but none of its weights.
    return len(getattr(layer, "variables", ())) > len(getattr(layer, "weights", ()))


def _cut(model: keras.Model, trained: Sequence[Any]) -> list[Any]:
    """The tensors that go into the first of the trained layers, on each way."""
    found: dict[int, Any] = {}
    for layer in trained:
        if not any(one is layer for one in model.layers):
            raise NotStorable(f"the layer {layer.name!r} lies inside a nested model")
        tensors = inputs_of(layer)
        below = _below(model, tensors)
        if any(one is other for one in below.operations for other in trained):
            continue  # another trained layer comes first
        for tensor in tensors:
            lowest = _below_random(model, tensor)
            found[id(lowest)] = lowest
    return list(found.values())


def _below(model: keras.Model, tensors: Any) -> Any:
    below = below_of(model, tensors)
    if below is None:
        raise NotStorable("a layer of the head is used in several places")
    return below


def _below_random(model: keras.Model, tensor: Any) -> Any:
    """The tensor below the dropout that often stands in front of a head."""
    lowest = tensor
    while True:
        below = _below(model, tensor)
        maker = next(one for one in below.operations if one.name == below.output_names[0])
        inputs = inputs_of(maker)
        if getattr(maker, "weights", None) or len(inputs) != 1:
            return lowest
        tensor = inputs[0]
        if is_random(maker):
            lowest = tensor


# === Features ===


class _InOrderOf(Batches):
    """Batches of features, in the order that the data they were made of would come in."""

    source: Any

    def order(self, epoch: int) -> np.ndarray:
        return self.source.order(epoch)


def store(split: Split, train: Any, validation: Any, limited: bool) -> tuple[Batches, Any]:
    """Features of both feeds as `Batches`; None for a validation that there isn't.

    Args:
        split: The body to run.
        train: The feed of the training.
        validation: The feed of the validation, or None.
        limited: Whether to give up where memory is short.

    Raises:
        NotStorable: if the data are augmented, come in batches of their own, or are too large.
    """
    check_source(train)
    sources = [train.source]
    if validation is not None:
        check_source(validation)
        sources.append(validation.source)
    limit = _limit() if limited else float("inf")
    rows = sum(source.num_samples for source in sources)
    made = []
    for source in sources:
        x, y, weight = _compute(split.body, source, rows, limit)
        batches = _InOrderOf(
            x,
            y,
            weight,
            batch_size=source.batch_size,
            shuffle=source.shuffle,
            seed=source.seed,
            class_names=source.class_names,
        )
        batches.source = source
        made.append(batches)
    return made[0], made[1] if validation is not None else None


def check_source(feed: Any) -> None:
    """An error for data of which a row isn't the same each time, or can't be told apart."""
    if not isinstance(feed, Feed):
        raise NotStorable("the data are neither arrays nor a bigzoo.data.Batches")
    source: Any = feed.source
    if getattr(source, "augment", None) is not None:
        raise NotStorable("the data are augmented, so that each epoch has other features")
    own = isinstance(source, InMemory) or type(source).batch is Batches.batch
    if not own:
        raise NotStorable(f"the rows of {type(source).__name__} come in batches of their own kind")


def _limit() -> float:
    free = available_bytes()
    return _UNKNOWN_LIMIT if free is None else _SHARE * free


def _compute(body: keras.Model, source: Any, rows: int, limit: float) -> tuple[Any, Any, Any]:
    """Features, targets and weights of all rows in stored order."""
    parts: list[Any] = []
    for batch in _batches(source):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        made = body.predict_on_batch(x)
        values = tuple(map(_as_numpy, made)) if isinstance(made, (tuple, list)) else _as_numpy(made)
        if not parts:
            leaves = keras.tree.flatten(values)
            needed = sum(leaf.nbytes // len(leaf) for leaf in leaves) * rows
            if needed > limit:
                size = f"{needed / 2**30:.1f} GiB"
                raise NotStorable(f"the features of {rows:,} rows would take {size} of memory")
        parts.append((values, y, weight))
    x, y, weight = (_join([part[place] for part in parts]) for place in range(3))
    return x, y, weight


def _batches(source: Any) -> Iterator[tuple[Any, ...]]:
    """All rows in stored order."""
    if not isinstance(source, InMemory):
        plain = source.replace(shuffle=False)
        if not np.array_equal(plain.order(0), np.arange(plain.num_samples)):
            raise NotStorable(f"{type(source).__name__} doesn't come in stored order")
        for index in range(len(plain)):
            yield plain.batch(0, index)
        return
    for start in range(0, source.num_samples, source.batch_size):
        rows = slice(start, start + source.batch_size)
        yield tree_map(lambda leaf, rows=rows: leaf[rows], source.data)


def _as_numpy(values: Any) -> np.ndarray:
    array = np.asarray(values)
    # bfloat16 isn't numpy's own; float32 has all of its values.
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _join(parts: Sequence[Any]) -> Any:
    if parts[0] is None:
        return None
    shapes = {tuple(np.shape(leaf)[1:] for leaf in keras.tree.flatten(part)) for part in parts}
    if len(shapes) > 1:
        raise NotStorable("the batches have rows of different lengths")
    return tree_map(lambda *leaves: np.concatenate(leaves), *parts)
