"""Weights from a `.weights.h5` file into a model: all of them, or none."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import keras

from bigzoo._errors import shorten
from bigzoo._hdf5 import check_hdf5, is_legacy_model, layer_names

_MOST_LINES = 8
# State of a training, not of the model: files have it or not, and the model can do without.
_TRAINING = "optimizer/"

Shapes = dict[str, tuple[int, ...]]


def load_weights(file: Path, model: keras.Model, name: str | None = None) -> None:
    """Load `file` into `model`, which stays as it was if they don't fit or loading fails.

    Keras fills a model layer by layer and stops at the first that doesn't fit; weights in the file
    that the model has no layer for it leaves out without a word. So both sides are compared first:
    the model's own weights, written to a temporary file, say what Keras will look for.
    `name` is what errors call the file, where it is a part of another.
    """
    what = repr(name or str(file))
    theirs = check_hdf5(file, file.stat().st_size, what)
    if is_legacy_model(file):
        fix = "Rename it to .h5 and use `bz.load(path, trust=True)`."
        raise ValueError(f"{what} is a legacy model, not weights. {fix}")
    with tempfile.TemporaryDirectory(prefix="bigzoo-") as folder:
        own = Path(folder) / "own.weights.h5"
        model.save_weights(own)
        ours = check_hdf5(own, own.stat().st_size, "The model")
        problems = _differences(_of_model(ours), _of_model(theirs), layer_names(own))
        if problems:
            counts = len(_of_model(ours)), len(_of_model(theirs))
            raise ValueError(_mismatch(model.name, what, problems, counts))
    _load_or_restore(file, model, what)


def _of_model(shapes: Shapes) -> Shapes:
    return {path: shape for path, shape in shapes.items() if not path.startswith(_TRAINING)}


def _differences(ours: Shapes, theirs: Shapes, names: dict[str, str]) -> list[str]:
    lines = []
    for path in sorted(ours.keys() | theirs.keys(), key=_natural):
        mine, other = ours.get(path), theirs.get(path)
        if mine == other:
            continue
        name = names.get(path.rpartition("/")[0])
        label = f"{path} ({name!r})" if name else path
        lines.append(f"{label}: model {_text(mine)}, file {_text(other)}")
    return lines


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort "10" after "9", as the weights of a layer are numbered."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.split("/")]


def _text(shape: tuple[int, ...] | None) -> str:
    return "has none" if shape is None else str(shape)


def _mismatch(name: str, what: str, problems: list[str], counts: tuple[int, int]) -> str:
    shown = "; ".join(problems[:_MOST_LINES])
    more = f"; and {len(problems) - _MOST_LINES} more" if len(problems) > _MOST_LINES else ""
    return (
        f"The weights in {what} don't fit the model {name!r}, which is left as it was: the "
        f"model has {counts[0]} arrays, the file {counts[1]}. {shown}{more}. Build the model "
        "with the arguments that it was saved with."
    )


def _load_or_restore(file: Path, model: keras.Model, what: str) -> None:
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    try:
        with warnings.catch_warnings():
            # A file without the state of the optimizer is no reason for a warning.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            model.load_weights(file)
    except BaseException as error:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        if not isinstance(error, Exception) or isinstance(error, MemoryError):
            raise
        text = f"Keras can't load {what}, and the model is left as it was: {shorten(error)}."
        raise ValueError(text) from error
