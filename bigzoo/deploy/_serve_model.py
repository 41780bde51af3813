"""What is served: a model of any origin, opened once and tried before the first request."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import shorten
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._classifier import Classifier, open_classifier
from bigzoo.deploy._files import MODEL_SUFFIXES, to_path
from bigzoo.deploy._load import load
from bigzoo.deploy._runtime import open_file
from bigzoo.deploy._signature import Signature, nest_inputs, numpy_dtype, signature_of

# Size of an axis that the model leaves open, in the trial before the first request.
_TRIED = 8


@dataclass(frozen=True)
class Served:
    """A model as the server needs it.

    Attributes:
        name: Of the file or the model, for people.
        call: From inputs to outputs in the model's own form; from any thread.
        signature: What `call` takes and gives.
        classifier: For pictures; None if it is no classifier of pictures.
        why_no_images: Why not, "" if it is.
        explain: From pixels and a class to the Grad-CAM map; None if there is none.
        why_no_map: Why not, "" if there is one.
    """

    name: str
    call: Callable[[Any], Any]
    signature: Signature
    classifier: Classifier | None
    why_no_images: str
    explain: Callable[[np.ndarray, int | None], np.ndarray] | None
    why_no_map: str


def open_served(model: Any, class_names: Any, image_size: Any) -> Served:
    """Open a model or a file; try it on zeros, so that what fails later is due to the input."""
    name = ""
    if hasattr(model, "export_to"):  # a quantised model, which lives in a file
        model = model.path
    if isinstance(model, (str, os.PathLike)):
        path = to_path("model", model)
        name = path.resolve().name
        if not path.is_dir() and path.suffix.lower() in MODEL_SUFFIXES:
            model = load(path)
        elif not path.exists():
            open_file(path)  # says what is wrong
    else:
        name = check_model(model).name
    classifier, why_no_images = _classifier(model, class_names, image_size)
    call = classifier.call if classifier else _call(model)
    signature = _signature(call, model)
    for spec in signature.inputs:
        if spec.dtype == "string":
            raise ValueError(f"`model` takes text ({spec.name!r}); expected numbers to be served.")
    _try(call, signature, classifier)
    explain, why_no_map = _explainer(model, classifier)
    return Served(name, call, signature, classifier, why_no_images, explain, why_no_map)


def _classifier(model: Any, names: Any, size: Any) -> tuple[Classifier | None, str]:
    try:
        return open_classifier(model, names, size, compiled=True), ""
    except ValueError as error:
        if names is not None or size is not None:  # meant for a classifier
            raise
        return None, shorten(error)


def _call(model: Any) -> Callable[[Any], Any]:
    if isinstance(model, keras.Model):
        from bigzoo.deploy._predictor import predictor

        return predictor(model)
    return open_file(Path(model))


def _signature(call: Any, model: Any) -> Signature:
    found = getattr(call, "signature", None)
    return found if isinstance(found, Signature) else signature_of(model)


def _try(call: Callable[[Any], Any], signature: Signature, classifier: Classifier | None) -> None:
    if classifier is not None:
        classifier.probabilities(np.zeros((1, *classifier.size, classifier.channels), np.uint8))
        return
    sizes = [spec.shape[1:] for spec in signature.inputs]
    zeros = [
        np.zeros((1, *(size or _TRIED for size in shape)), numpy_dtype(spec.dtype))
        for shape, spec in zip(sizes, signature.inputs, strict=True)
    ]
    try:
        call(nest_inputs(signature, zeros))
    # Whatever the backend or the runtime raises.
    except Exception as error:
        if any(None in shape for shape in sizes):
            return  # the size that was guessed may not be one that the model takes
        raise ValueError(f"`model` can't be called on zeros: {shorten(error)}.") from error


def _explainer(
    model: Any, classifier: Classifier | None
) -> tuple[Callable[[np.ndarray, int | None], np.ndarray] | None, str]:
    """The Grad-CAM map of pixels (height, width, channels) for a class."""
    if classifier is None:
        return None, "the model is no classifier of images"
    if classifier.model is None:
        return None, "this file has no gradients; serve the .keras file"
    if classifier.kind == "sigmoid_logits":
        return None, "the model's one output has no sigmoid"
    from bigzoo.plot._grad_cam import explainer

    one_at_a_time = threading.Lock()

    def explain(pixels: np.ndarray, class_index: int | None) -> np.ndarray:
        with one_at_a_time:
            return find(pixels.astype(np.float32), class_index)[0]

    try:
        find = explainer(classifier.model, predict=classifier.call)
        explain(np.zeros((*classifier.size, classifier.channels), np.uint8), None)
    # A graph that can't be cut, a layer without a gradient: what is raised depends on the backend.
    except Exception as error:
        return None, shorten(error)
    return explain, ""
