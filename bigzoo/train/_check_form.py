"""Data of the wrong kind, told apart by what was probably meant: the fix differs for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bigzoo.train import _arrays
from bigzoo.train._report import Finding, error

PATH_FIX = 'train, val = bz.data.images("pets/", image_size=...); bz.fit(model, train)'


def is_path(value: Any) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def from_lists(value: Any) -> Any:
    """Lists of numbers as arrays, as `fit` reads them; everything else as it is."""
    if isinstance(value, Mapping):
        return {key: from_lists(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    if _arrays.is_numbers(value):
        try:
            return _arrays.to_float_type(np.asarray(value))
        except ValueError:  # rows of different lengths
            return value
    items = [from_lists(item) for item in value]
    return items if isinstance(value, list) else tuple(items)


def not_an_array(structure: Any, leaf: Any, where: str) -> Finding:
    """The finding about `leaf` of `structure`, which can't be read as an array."""
    name = where.split()[-1]
    got = f"a {type(structure).__name__}"
    if leaf is not structure:
        got += f" of {type(leaf).__name__}"
    expected = "a numpy array (or dict of them)"
    fix = f"{name} = np.asarray({name})"
    if hasattr(leaf, "toarray"):
        fix = f"{name} = {name}.toarray()"
    elif isinstance(structure, (list, tuple)) and _is_dataset(leaf):
        expected = "one data set"
        fix = "train, val = data; bz.fit(model, train, validation_data=val)"
    elif name == "y" and isinstance(leaf, (str, bytes)):
        expected = "numbers"
        fix = "names, y = np.unique(y, return_inverse=True)"
    elif is_path(leaf):
        expected = "the data themselves, not text or the name of a file"
        fix = PATH_FIX if is_path(structure) else "read the files: " + PATH_FIX
    elif isinstance(structure, (list, tuple)) and _arrays.is_numbers(structure):
        got += ", in rows of different lengths"
        fix = f"{name} = keras.utils.pad_sequences({name})  # or leave out the short rows"
    return error("not-an-array", where, got, expected, fix)


def _is_dataset(value: Any) -> bool:
    tensorflow_like = hasattr(value, "element_spec")
    return tensorflow_like or isinstance(value, keras.utils.PyDataset)


def samples_in_list(x: Any, shape: tuple[int | None, ...], where: str) -> list[Finding]:
    """A list of single samples, which Keras takes for as many inputs of the model.

    Args:
        x: What is given as features.
        shape: What the model's only input takes, with the axis of the rows.
        where: "x" or "validation x".
    """
    if not isinstance(x, (list, tuple)) or len(x) < 2:
        return []
    shapes = [tuple(getattr(item, "shape", ())) for item in x]
    if any(len(one) != len(shape) - 1 or not one for one in shapes):
        return []
    got = f"a {type(x).__name__} of {len(x)} samples"
    name = where.split()[-1]
    fix = f"{name} = np.stack({name})"
    if len(set(shapes)) > 1:
        got += f" of different sizes, such as {shapes[0]} and "
        got += str(next(one for one in shapes if one != shapes[0]))
        fix = f"resize all to one size first, then {fix}"
    return [error("num-inputs", where, got, "one array with a row per sample", fix)]
