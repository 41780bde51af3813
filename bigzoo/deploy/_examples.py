"""Made-up inputs that a model could really be given, to compare it with its file or to time it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bigzoo.deploy._tensor_specs import TensorSpec, graph_tensors, numpy_dtype, signature_of

# For sizes that the model leaves open.
_SIDE = 96  # pixels; some networks halve an image five times, and need more than 75
_PATCHES = 5  # along each side of a made-up image
_LENGTH = 8  # tokens or steps
# Less by that much where other sizes are asked for: smaller, as a table of places may be short.
_LESS_SIDE, _LESS_LENGTH = 32, 3


def example_inputs(
    model: keras.Model, batch_size: int, seed: int = 0, *, other_sizes: bool = False
) -> list[np.ndarray]:
    """One array per input, flat: pixels 0-255, ids that the embeddings have, normal numbers.

    Every second row of ids ends in zeros, as padded rows of text do.

    Args:
        model: A functional or Sequential model.
        batch_size: Samples, at least 1.
        seed: Of the random numbers.
        other_sizes: Take other values for the sizes that the model leaves open.

    Raises:
        ValueError: for inputs of text, which can't be made up.
    """
    signature = signature_of(model)
    tensors, _ = graph_tensors(model)
    rng = np.random.default_rng(seed)
    noted = getattr(model, "image_size", None)
    return [
        _example(
            spec,
            (batch_size, *_sides(spec, noted, other_sizes)),
            _vocabulary(model, tensor),
            rng,
        )
        for spec, tensor in zip(signature.inputs, tensors, strict=True)
    ]


def is_image(shape: tuple[int | None, ...]) -> bool:
    """Whether an input of that shape, with its batch, is taken for an image."""
    return len(shape) == 4 and shape[-1] in (1, 3, 4)


def _sides(spec: TensorSpec, noted: Any, other: bool) -> list[int]:
    """The shape of a row: the same for every input that leaves the same sizes open."""
    planar = len(spec.shape) == 4  # images, of any number of channels
    open_sides = [_LENGTH - _LESS_LENGTH * other] * (len(spec.shape) - 1)
    if planar:
        height, width = noted if noted is not None and is_image(spec.shape) else (_SIDE, _SIDE)
        sides = [int(side) for side in (height, width)]
        open_sides[:2] = [max(side - _LESS_SIDE, _LESS_SIDE) if other else side for side in sides]
    return [
        open_side if side is None else int(side)
        for side, open_side in zip(spec.shape[1:], open_sides, strict=True)
    ]


def _example(
    spec: TensorSpec, shape: tuple[int, ...], ids: int | None, rng: np.random.Generator
) -> np.ndarray:
    if spec.dtype == "string":
        raise ValueError(f"The input {spec.name!r} takes text; expected a `sample` of yours.")
    dtype = numpy_dtype(spec.dtype)
    if ids is not None:
        return _ids(shape, ids, rng).astype(dtype)
    if is_image(spec.shape):
        return _pixels(shape, rng).astype(dtype)
    if dtype.kind in "iub":
        return _mask(shape, rng).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def _pixels(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Smooth patches, as photos have, and in every third row noise.

    Noise alone drives trained networks to where a softmax is 0 or 1 and shows no difference.
    """
    pixels = rng.uniform(0, 255, (shape[0], _PATCHES, _PATCHES, shape[3]))
    for axis in (1, 2):
        places = np.linspace(0, _PATCHES - 1, shape[axis])
        low = np.minimum(places.astype(int), _PATCHES - 2)
        part = (places - low).reshape([-1 if i == axis else 1 for i in range(4)])
        pixels = pixels.take(low, axis) * (1 - part) + pixels.take(low + 1, axis) * part
    pixels += rng.normal(0, 5, shape)
    pixels[2::3] = rng.uniform(0, 255, pixels[2::3].shape)
    return np.clip(np.rint(pixels), 0, 255)


def _ids(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    ids = rng.integers(min(1, count - 1), count, shape)  # 0 is mostly padding
    if len(shape) > 1 and shape[-1] > 3:
        ids[1::2, ..., -(shape[-1] // 4) :] = 0
    return ids


def _mask(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Ones, and zeros from some place in a row: what no embedding reads is mostly a mask."""
    if len(shape) < 2 or shape[-1] < 2:
        return rng.integers(0, 2, shape)
    size = shape[-1]
    ends = rng.integers((size + 1) // 2, size, (*shape[:-1], 1))
    return np.arange(size) < ends


def _vocabulary(model: keras.Model, tensor: Any) -> int | None:
    """Ids below which every embedding that `tensor` reaches has a row; None if it reaches none.

    Layers with weights end the search: what comes out of them is no id.
    """
    if isinstance(model, keras.Sequential):
        layers: Any = model.layers
        for layer in layers:
            if isinstance(layer, keras.layers.Embedding):
                return int(layer.input_dim)
            if layer.weights:
                return _smallest(layer) if isinstance(layer, keras.Model) else None
        return None
    sizes, waiting, seen = [], [tensor], {id(tensor)}
    readers = _readers(model)
    while waiting:
        for operation, output in readers.get(id(waiting.pop()), ()):
            if isinstance(operation, keras.layers.Embedding):
                sizes.append(int(operation.input_dim))
            elif isinstance(operation, keras.Model):
                sizes += [size for size in (_smallest(operation),) if size]
            elif not getattr(operation, "weights", None):
                new = [t for t in keras.tree.flatten(output) if id(t) not in seen]
                seen.update(map(id, new))
                waiting += new
    return min(sizes, default=None)


def _readers(model: keras.Model) -> dict[int, list[tuple[Any, Any]]]:
    """Tensor -> the operations that read it, with what they give."""
    found: dict[int, list[tuple[Any, Any]]] = {}

    def note(operation: Any, *args: Any, **kwargs: Any) -> Any:
        output = operation(*args, **kwargs)
        for value in keras.tree.flatten((args, kwargs)):
            if keras.utils.is_keras_tensor(value):
                found.setdefault(id(value), []).append((operation, output))
        return output

    # A nested model doesn't say what it was called on; a copy of the calls does.
    inputs = model.input
    keras.models.clone_model(
        keras.Model(inputs, model.output),
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=note,
    )
    return found


def _smallest(model: keras.Model) -> int | None:
    return min(_table_sizes(model), default=None)


def _table_sizes(layer: Any) -> Iterator[int]:
    for inner in getattr(layer, "layers", ()):
        if isinstance(inner, keras.layers.Embedding):
            yield int(inner.input_dim)
        yield from _table_sizes(inner)
