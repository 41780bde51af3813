"""Keras' own int8 for Dense, EinsumDense and Embedding layers, proven to load again."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message, shorten
from bigzoo.compress._data import outputs_of
from bigzoo.compress._judge import Judge, receipt_of, trial_of, verdict_on
from bigzoo.compress._rebuild import copy_with_weights
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._difference import difference
from bigzoo.deploy._limits import every_layer
from bigzoo.deploy._make_receipt import Subject
from bigzoo.deploy._receipt import trials_text

_KINDS = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)


def check_layers(model: keras.Model, mode: str) -> None:
    """An error if Keras' int8 would change nothing, or the mode isn't Keras' own."""
    if mode not in ("auto", "int8"):
        fix = 'Give target="litert" for the others.'
        raise ValueError(message("mode", mode, "'auto' or 'int8' for the target 'keras'", fix))
    layers = [layer for layer in every_layer(model) if isinstance(layer, _KINDS)]
    if not layers:
        raise ValueError(
            f"`model` {model.name!r} has no Dense, EinsumDense or Embedding layer; expected one, "
            "since Keras quantises no others, convolutions among them. Give "
            'target="litert" or target="onnx".'
        )
    done = [layer.name for layer in layers if getattr(layer, "quantization_mode", None)]
    if done:
        raise ValueError(f"`model` is quantised already ({done[0]!r}); expected the float model.")


def quantize_keras(judge: Judge) -> keras.Model:
    """A quantised copy of the model, compared, timed, saved and loaded again."""
    made = copy_with_weights(judge.plain)
    covered = _quantize(made)
    call = CompiledCall(made)
    verdict = verdict_on(judge, call)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _check_reload(made, path, judge.data.x, verdict.outputs)
        trial = trial_of(judge, "int8", path.stat().st_size, verdict)
    if not verdict.agrees:
        raise ValueError(
            f"Keras' int8 doesn't agree enough with the model.\n{trials_text((trial,))}\nYou may "
            f'lower `min_agreement` ({judge.min_agreement:g}), or try target="litert".'
        )
    receipt = receipt_of(judge, verdict, Subject("Keras, int8", call, made, exact=False), ())
    made.receipt = replace(receipt, notes=(*receipt.notes, _coverage(judge.plain, covered)))
    return made


def _quantize(model: keras.Model) -> list[str]:
    """Quantise in place; the names of the layers that were.

    Layers inside others, such as the projections of a MultiHeadAttention, are left as they are:
    Keras writes their 8-bit weights to a file but can't read them back.
    """
    chosen = {id(layer): layer.name for layer in every_layer(model) if isinstance(layer, _KINDS)}
    with warnings.catch_warnings():
        # One for each layer that Keras has no int8 for, those without weights included.
        warnings.filterwarnings("ignore", message=".*does not have a `quantize` method.*")
        model.quantize("int8", filters=lambda layer: id(layer) in chosen)
    return list(chosen.values())


def _check_reload(model: keras.Model, path: Path, x: Any, expected: Any) -> None:
    """An error unless the model comes back from a file as it is."""
    try:
        model.save(path)
        again = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"The quantised model doesn't load again from a .keras file: {shorten(error, 200)}. "
            'Give target="litert" or target="onnx".'
        ) from error
    found = difference(expected, outputs_of(CompiledCall(again), x))
    if found.relative > 1e-5:
        raise ValueError(
            f"The quantised model gives other answers after loading (by {found.relative:.1e}); "
            'expected the same. Give target="litert" or target="onnx".'
        )


def _coverage(model: keras.Model, covered: list[str]) -> str:
    """Which part of the weights is in 8 bits now."""
    total = sum(int(np.prod(weight.shape)) for weight in model.weights)
    inside = {
        id(weight)
        for layer in every_layer(model)
        if layer.name in covered and isinstance(layer, _KINDS)
        for weight in layer.weights
        if len(weight.shape) > 1
    }
    share = sum(int(np.prod(w.shape)) for w in model.weights if id(w) in inside) / max(1, total)
    return (
        f"{share:.0%} of the weights are in 8 bits: those of Dense, EinsumDense and Embedding "
        "layers. Convolutions and the insides of attention keep their size."
    )
