"""`predictor`: a model or a file as a function, for loops and services."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_choice, check_number, message
from bigzoo.deploy._class_names import check_model, resolve_class_names
from bigzoo.deploy._compiled import CompiledCall, answer
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._files import MODEL_SUFFIXES, missing_file, to_path
from bigzoo.deploy._load import load
from bigzoo.deploy._make_receipt import take_rows
from bigzoo.deploy._runtime import open_file
from bigzoo.deploy._scores import output_kind
from bigzoo.deploy._signature import Signature, example_inputs, nest_inputs, to_flat

_ENGINES = ("auto", "keras", "litert", "onnx", "openvino")
_FILES = {"litert": "model.tflite", "onnx": "model.onnx", "openvino": "model"}
_BATCHES = (1, 3)
# The same sums in another order. In half precision, a compiler leaves roundings out.
_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class Predictor:
    """A model as a function; `predictor` makes it.

    Attributes:
        engine: "keras" (a compiled call), "litert", "onnx", "openvino" or "saved_model".
        signature: What goes in and comes out.
        class_names: Names of the classes, or None.
        difference: How far it was from the model when it was made; None for a file, which has no
            model beside it.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        engine: str,
        signature: Signature,
        class_names: tuple[str, ...] | None,
    ) -> None:
        self._call = call
        self.engine = engine
        self.signature = signature
        self.class_names = class_names
        self.difference: Difference | None = None

    def __call__(self, x: Any) -> Any:
        """Predict a batch.

        Args:
            x: What the model takes: an array (batch, ...), or a list or dictionary of arrays, with
                at least one row.

        Returns:
            What the model gives, as numpy arrays.

        Raises:
            ValueError: if a shape, a number of inputs or a name is wrong.
        """
        return self._call(x)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{spec.name}{spec.shape}" for spec in self.signature.inputs)
        return f"<Predictor {self.engine}: {inputs}>"


def predictor(
    model_or_file: Any,
    engine: str = "auto",
    tolerance: float | None = None,
    sample: Any = None,
) -> Predictor:
    """Make a function that predicts, for loops and services.

    `model.predict` prepares a data pipeline each time, and `model(x)` runs layer by layer; what
    this returns is compiled once, for any batch size. It may be called from many threads, always in
    inference mode. On JAX, a batch is filled up to the next power of two, so that each size isn't
    compiled anew; but each length or image size is, where the model leaves it open. The compiled
    call uses the model's own weights and follows its further training; a file, and so every other
    engine, holds those of the moment at which it was made.

    Args:
        model_or_file: A `keras.Model`, the path of a .keras, .onnx or .tflite file, or of a folder
            with a SavedModel or an OpenVINO model.
        engine: "keras" compiles the model's call. "litert", "onnx" and "openvino" convert the model
            into a file that the `Predictor` owns, and run that. "auto" takes "keras" for a model
            and a file's own runtime.
        tolerance: Largest difference from `model(x, training=False)`, relative to the largest
            output, above 0. None takes 1e-4, and more for models in half precision.
        sample: Rows of real input, as the model takes them, on which that is looked at. None makes
            some up; a model that takes text needs them.

    Returns:
        A `Predictor`: `p(x)` gives numpy arrays in the form of the model's outputs.

    Raises:
        ValueError: if the answers differ from the model's by more than `tolerance`, the file is
            damaged or not for this engine, or the model's inputs aren't known.
        FileNotFoundError: if there is no such file.
        ImportError: if the runtime isn't installed; with the line for pip.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> model = bz.models.mlp(4, hidden_dims=(8,))
        >>> predict = bz.deploy.predictor(model)
        >>> predict(np.zeros((5, 4), "float32")).shape
        (5, 1)
    """
    check_choice("engine", engine, _ENGINES)
    if tolerance is not None:
        tolerance = check_number("tolerance", tolerance, above=0)
    model: Any = model_or_file
    if hasattr(model, "export_to"):  # a quantised model, which lives in a file
        model = model.path
    if isinstance(model, (str, os.PathLike)):
        path = to_path("model_or_file", model)
        if not path.exists():
            raise missing_file(path)
        if path.is_dir() or path.suffix.lower() not in MODEL_SUFFIXES:
            return _of_file(path, engine)
        model = load(path)
    if not isinstance(model, keras.Model):
        raise TypeError(message("model_or_file", model, "a keras.Model, or the path of a file"))
    engine = "keras" if engine == "auto" else engine
    return _of_model(check_model(model), engine, tolerance, sample)


def _of_file(path: Path, engine: str) -> Predictor:
    if engine == "keras":
        fix = 'Leave `engine` at "auto": the file has a runtime of its own.'
        raise ValueError(message("engine", engine, f"one that opens {str(path)!r}", fix))
    runtime = open_file(path, None if engine == "auto" else engine)
    names = runtime.notes.class_names if runtime.notes else None
    return Predictor(runtime, runtime.engine, runtime.signature, names)


def _of_model(model: keras.Model, engine: str, tolerance: float | None, sample: Any) -> Predictor:
    names = resolve_class_names(model, None)
    if engine == "keras":
        call = CompiledCall(model)
        made = Predictor(call, engine, call.signature, names)
    else:
        from bigzoo.deploy._convert import convert

        folder = Path(tempfile.mkdtemp(prefix="bigzoo-predictor-"))
        try:
            path = folder / _FILES[engine]
            convert(model, path, engine)
            runtime = open_file(path, engine)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        made = Predictor(runtime, engine, runtime.signature, names)
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    made.difference = _check(model, made, tolerance, sample)
    return made


def _check(model: keras.Model, made: Predictor, tolerance: float | None, sample: Any) -> Difference:
    """The larger difference of those for one row and for three; an error if it's too large."""
    kind = _kind(model)
    if sample is None:
        rows = example_inputs(model, max(_BATCHES))
    else:
        rows = to_flat(made.signature, sample)
    found, finite = [], True
    for size in _BATCHES:
        x = nest_inputs(made.signature, take_rows(rows, size))
        expected = answer(model, x)
        found.append(difference(expected, made(x), kind))
        finite = finite and _is_finite(expected)
    worst = replace(max(found, key=lambda one: one.relative), samples=sum(_BATCHES))
    if worst.agreement is not None:
        worst = replace(worst, agreement=min(one.agreement or 0.0 for one in found))
    most = _tolerance(model) if tolerance is None else tolerance
    if not worst.relative <= most and not finite:
        x = "made-up inputs" if sample is None else "`sample`"
        fix = "Its training may have diverged"
        fix += ", or it wants inputs of another kind: give `sample`." if sample is None else "."
        raise ValueError(f"The model gives NaN or infinite values for {x}. {fix}")
    if not worst.relative <= most:
        got = f"differs from the model by {worst.relative:.2g} of its largest output"
        fix = 'Use engine="keras", or allow more with `tolerance`.'
        raise ValueError(f"The engine {made.engine!r} {got}; expected at most {most:.2g}. {fix}")
    return worst


def _is_finite(outputs: Any) -> bool:
    leaves = keras.tree.flatten(outputs)
    return all(bool(np.isfinite(np.asarray(leaf, np.float64)).all()) for leaf in leaves)


def _kind(model: keras.Model) -> str | None:
    try:
        return output_kind(model)
    except ValueError:  # no classifier
        return None


def _tolerance(model: keras.Model) -> float:
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in model.layers}
    return max(_TOLERANCE.get(dtype, _TOLERANCE["float32"]) for dtype in dtypes)
