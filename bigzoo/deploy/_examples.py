"""Made-up inputs that a model could really be given, to compare it with its file or to time it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bigzoo.deploy._tensor_specs import TensorSpec, graph_tensors, numpy_dtype, signature_of

# For sizes that the model leaves open.
_SIDE = 96  # pixels; some networks halve an image five times, and need more than 75
_LENGTH = 8  # tokens or steps


def example_inputs(model: keras.Model, batch_size: int, seed: int = 0) -> list[np.ndarray]:
    """One array per input, flat: pixels 0-255, ids that the embeddings have, normal numbers.

    Args:
        model: A functional or Sequential model.
        batch_size: Samples, at least 1.
        seed: Of the random numbers.

    Raises:
        ValueError: for inputs of text, which can't be made up.
    """
    signature = signature_of(model)
    tensors, _ = graph_tensors(model)
    rng = np.random.default_rng(seed)
    noted = getattr(model, "image_size", None)
    return [
        _example(spec, batch_size, _vocabulary(model, tensor), noted, rng)
        for spec, tensor in zip(signature.inputs, tensors, strict=True)
    ]


def is_image(shape: tuple[int | None, ...]) -> bool:
    """Whether an input of that shape, with its batch, is taken for an image."""
    return len(shape) == 4 and shape[-1] in (1, 3, 4)


def _example(
    spec: TensorSpec, batch_size: int, ids: int | None, noted: Any, rng: np.random.Generator
) -> np.ndarray:
    if spec.dtype == "string":
        raise ValueError(f"The input {spec.name!r} takes text; expected a `sample` of yours.")
    image = is_image(spec.shape)
    open_sides = list(noted) if image and noted is not None else [_SIDE, _SIDE]
    sides = [
        (open_sides[index] if image and index < 2 else _LENGTH) if side is None else side
        for index, side in enumerate(spec.shape[1:])
    ]
    shape = (batch_size, *map(int, sides))
    dtype = numpy_dtype(spec.dtype)
    if ids is not None:
        return rng.integers(min(1, ids - 1), ids, shape).astype(dtype)  # 0 is mostly padding
    if image:
        return rng.integers(0, 256, shape).astype(dtype)
    if dtype.kind in "iub":
        return _mask(shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def _mask(shape: tuple[int, ...]) -> np.ndarray:
    """Ones, and 0 at the last place of a row: what no embedding reads is mostly a mask."""
    mask = np.ones(shape)
    if len(shape) > 1 and shape[-1] > 1:
        mask[..., -1] = 0
    return mask


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
