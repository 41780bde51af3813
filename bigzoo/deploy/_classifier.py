"""An image classifier of any origin: a Keras model, or a file that a runtime reads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_int, message
from bigzoo.deploy._class_names import check_model, check_names, resolve_class_names
from bigzoo.deploy._compiled import answer
from bigzoo.deploy._files import MODEL_SUFFIXES, to_path
from bigzoo.deploy._load import load
from bigzoo.deploy._runtime import Runtime, open_file
from bigzoo.deploy._save import image_size as known_size
from bigzoo.deploy._scores import output_kind, to_probabilities

_EXPECTED = "one input (batch, height, width, channels) with 1, 3 or 4 channels"
_UNNAMED = "The model has no class names; labels are its output indices. Give `class_names=`."


@dataclass(frozen=True)
class Classifier:
    """What it takes to label images, whatever computes the answer.

    Attributes:
        size: (height, width) of the images in pixels.
        channels: 1, 3 or 4.
        class_names: One per class, two for a single sigmoid unit.
        kind: What the outputs are, as `output_kind` says.
        note: What a reader of its answers must know, or "".
        model: The Keras model; None for a file of another format.
        call: From float32 pixels (n, height, width, channels) in 0–255 to the outputs.
    """

    size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    kind: str
    note: str
    model: keras.Model | None
    call: Callable[[np.ndarray], Any]

    def probabilities(self, images: Any) -> np.ndarray:
        """Probabilities (n, classes), float64, of pixels (n, height, width, channels) in 0–255."""
        pixels = np.asarray(images)
        shape = (*self.size, self.channels)
        if pixels.ndim != 4 or pixels.shape[1:] != shape:
            expected = "(images, {}, {}, {})".format(*shape)
            raise ValueError(f"`images` has the shape {pixels.shape}; expected {expected}.")
        if not len(pixels):
            return np.zeros((0, len(self.class_names)))
        # float32 whatever the model computes in: its own layers cast and scale.
        return to_probabilities(self.call(pixels.astype(np.float32)), self.kind)


def open_classifier(
    model: Any, class_names: Any = None, image_size: Any = None, *, compiled: bool = False
) -> Classifier:
    """The classifier in a Keras model or a file.

    Args:
        model: A `keras.Model`, or the path of a .keras, .onnx or .tflite file, or of a folder with
            a SavedModel or an OpenVINO model.
        class_names: One name per class; None takes those of the model or noted in the file.
        image_size: (height, width); None takes the model's own, or the one that is noted.
        compiled: Whether a Keras model is compiled for many calls from many threads; its weights
            as they are at each call. False computes without compiling.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image classifier, or the names or the size don't fit.
        TypeError: if an argument is of the wrong type.
    """
    compiled = check_bool("compiled", compiled)
    if isinstance(model, (str, os.PathLike)):
        path = to_path("model", model)
        if path.is_dir() or (path.exists() and path.suffix.lower() not in MODEL_SUFFIXES):
            return _from_file(open_file(path), class_names, image_size)
        model = load(path)
    return _from_model(check_model(model), class_names, image_size, compiled)


def _from_model(model: keras.Model, names: Any, size: Any, compiled: bool) -> Classifier:
    shape = _check_shape(getattr(model, "input_shape", None))
    size = _size(shape, known_size(model), size)
    kind = output_kind(model)
    resolved = resolve_class_names(model, names)
    units = model.output_shape[-1]
    call: Callable[[np.ndarray], Any] = functools.partial(answer, model)
    if compiled:
        from bigzoo.deploy._predictor import predictor

        call = predictor(model)
    note = "" if resolved else _UNNAMED
    return Classifier(size, shape[-1], resolved or _indices(units), kind, note, model, call)


def _from_file(runtime: Runtime, names: Any, size: Any) -> Classifier:
    what = f"{str(runtime.path)!r}"
    inputs, outputs = runtime.signature.inputs, runtime.signature.outputs
    notes = runtime.notes
    if len(inputs) != 1 or len(outputs) != 1:
        got = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise ValueError(f"{what} has {got}; expected an image classifier with one of each.")
    shape = _check_shape(inputs[0].shape, what)
    units = outputs[0].shape[-1] if len(outputs[0].shape) == 2 else None
    if units is None or (notes is not None and notes.output_kind is None):
        got = f"{what} has the output shape {outputs[0].shape}"
        raise ValueError(f"{got} and is no classifier; expected (batch, classes).")
    size = _size(shape, notes.image_size if notes else None, size)
    if names is None:
        names = notes.class_names if notes else None
    resolved = None if names is None else check_names("class_names", names, units)
    said = [] if resolved else [_UNNAMED]
    kind = notes.output_kind if notes else None
    if kind is None:
        kind = _seen_kind(runtime, (*size, shape[-1]), inputs[0].dtype)
        meaning = "logits" if kind.endswith("_logits") else "probabilities"
        said.append(f"The file doesn't say what its outputs are; they look like {meaning}.")
    found = resolved or _indices(units)
    return Classifier(size, shape[-1], found, kind, " ".join(said), None, runtime)


def _indices(units: int) -> tuple[str, ...]:
    return tuple(map(str, range(max(2, units))))


def _check_shape(shape: Any, what: str = "`model`") -> tuple[Any, ...]:
    """`shape` if it is that of images."""
    if isinstance(shape, tuple) and len(shape) == 4:
        if shape[-1] in (1, 3, 4):
            return shape
        if shape[1] in (1, 3, 4):
            got = f"{what} has the input shape {shape}, with the channels first"
            raise ValueError(f"{got}; expected {_EXPECTED}.")
    raise ValueError(f"{what} has the input shape {shape}; expected {_EXPECTED}.")


def _size(shape: tuple[Any, ...], noted: Any, given: Any) -> tuple[int, int]:
    """The size of the images: as given, the model's own, or the one that is noted."""
    wants = shape[1:3]
    if given is None:
        if None not in wants:
            return (int(wants[0]), int(wants[1]))
        if noted is None:
            fix = "Use the size it was trained with, such as `image_size=(128, 128)`."
            raise ValueError(f"`model` takes images of any size; expected `image_size`. {fix}")
        return (int(noted[0]), int(noted[1]))
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(message("image_size", given, "a pair (height, width)"))
    size = check_int("image_size[0]", given[0], 1), check_int("image_size[1]", given[1], 1)
    if any(want not in (None, side) for want, side in zip(wants, size, strict=True)):
        fix = "Leave it out: the model's own size is used."
        raise ValueError(message("image_size", given, f"{wants}, which the model takes", fix))
    return size


def _seen_kind(runtime: Runtime, shape: tuple[Any, ...], dtype: str) -> str:
    """What the outputs of a file without notes are, judged by those for noise."""
    pixels = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype(dtype)
    values = np.asarray(runtime(pixels), np.float64)
    inside = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1:
        return "sigmoid" if inside else "sigmoid_logits"
    if inside and np.allclose(values.sum(axis=1), 1.0, atol=1e-2):
        return "softmax"
    return "multilabel" if inside else "softmax_logits"
