"""Weights in Keras' own formats: `.keras` and `.weights.h5`."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import shorten
from bigzoo._hdf5 import check_hdf5, is_legacy_model, layer_names
from bigzoo._optional import require
from bigzoo._weight_files import load_weights

_INSIDE = "model.weights.h5"
HEAD = "predictions"


def load_native(model: keras.Model, path: Path, skip: Collection[str] = ()) -> None:
    """Load `path` into `model`, but for the layers in `skip`, which keep what they have."""
    with _weights_h5(path) as file:
        if skip:
            with tempfile.TemporaryDirectory(prefix="bigzoo-") as folder:
                own = Path(folder) / "own.weights.h5"
                model.save_weights(own)
                mixed = Path(folder) / "mixed.weights.h5"
                _replace_layers(file, own, mixed, skip)
                load_weights(mixed, model, name=str(path))
        else:
            load_weights(file, model, name=str(path))


def head_units(path: Path) -> int | None:
    """Units of the layer "predictions" in the file; None if it has none."""
    with _weights_h5(path) as file:
        shapes = check_hdf5(file, file.stat().st_size, repr(str(path)))
        if is_legacy_model(file):
            fix = "Rename it to .h5 and use `bz.load(path, trust=True)`."
            raise ValueError(f"{str(path)!r} is a legacy model, not weights. {fix}")
        groups = [group for group, name in layer_names(file).items() if name == HEAD]
    biases = [shapes.get(f"{group}/1") for group in groups]
    found = [shape[0] for shape in biases if shape]
    return int(found[0]) if len(found) == 1 else None


@contextmanager
def _weights_h5(path: Path) -> Iterator[Path]:
    """`path` itself, or the weights of a `.keras` file unpacked for a moment."""
    if not path.name.lower().endswith(".keras"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bigzoo-") as folder:
        file = Path(folder) / _INSIDE
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(_INSIDE) as inside,
                file.open("wb") as out,
            ):
                shutil.copyfileobj(inside, out)
        except Exception as error:  # BadZipFile, KeyError, zlib.error, EOFError …
            fix = "It may be cut off (an interrupted download or copy)."
            text = f"{str(path)!r} is damaged or not a .keras file: {shorten(error)}. {fix}"
            raise ValueError(text) from error
        yield file


def _replace_layers(theirs: Path, ours: Path, out: Path, names: Collection[str]) -> None:
    """A copy of `theirs` in which the layers `names` are those of `ours`."""
    h5py: Any = require("h5py")
    check_hdf5(theirs, theirs.stat().st_size, "The file")
    shutil.copyfile(theirs, out)
    old, new = layer_names(theirs), layer_names(ours)
    with h5py.File(out, "r+") as target, h5py.File(ours, "r") as source:
        for group in [group for group, name in old.items() if name in names]:
            del target[group]
        for group in [group for group, name in new.items() if name in names]:
            if group in target:
                del target[group]
            source.copy(group, target, group)
