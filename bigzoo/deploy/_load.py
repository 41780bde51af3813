"""Load models and weights without letting a file do more than that."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_bool, shorten
from bigzoo._hdf5 import check_hdf5, is_legacy_model
from bigzoo._weight_files import load_weights
from bigzoo.deploy._archive import check_archive
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._config import TRUST
from bigzoo.deploy._files import MODEL_SUFFIXES, missing_file, to_path
from bigzoo.deploy._save import image_size


def load(path: Any, model: keras.Model | None = None, trust: bool = False) -> keras.Model:
    """Load a model from a `.keras` file, or weights from a `.weights.h5` file into `model`.

    The file is checked before Keras sees it: damaged files, entries that lead out of the archive,
    bombs, links into other files, code, and classes that neither Keras nor bigzoo nor you have
    registered are refused. `class_names` that `bz.save` has noted are set on the model again.

    Args:
        path: A `.keras` file, a `.weights.h5` file, or a legacy `.h5` file of a whole model.
        model: The model that takes the weights of a `.weights.h5` file; it must have the same
            layers. It keeps its own weights if anything fails. None for the other formats.
        trust: True lets code in the file run: Lambda layers, and the legacy `.h5` format, which
            knows no safe mode (CVE-2025-9905). Only for files from people you know.

    Returns:
        The model: a new one, compiled as it was saved, or `model` itself.

    Raises:
        FileNotFoundError: if there is no such file; names the nearest ones.
        ValueError: if the file is refused, or doesn't fit `model`; lists both sides.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pets.keras"
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> _ = bz.save(model, path, class_names=["cat", "dog"])
        >>> bz.load(path).class_names
        ('cat', 'dog')
    """
    trust = check_bool("trust", trust)
    file = to_path("path", path)
    if model is not None:
        check_model(model)
    if file.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; expected a .keras or .weights.h5 file.")
    if not file.is_file():
        raise missing_file(file)
    name = file.name.lower()
    if name.endswith(".weights.h5"):
        return _load_weights(file, model)
    if not name.endswith(MODEL_SUFFIXES):
        suffix = file.suffix or "no suffix"
        raise ValueError(f"{str(file)!r} has {suffix}; expected .keras, .weights.h5 or .h5.")
    if model is not None:
        fix = "Leave `model` out: the file holds a whole model."
        raise ValueError(f"`model` goes with a .weights.h5 file, not with {str(file)!r}. {fix}")
    return _load_keras(file, trust) if name.endswith(".keras") else _load_legacy(file, trust)


def _load_keras(file: Path, trust: bool) -> keras.Model:
    notes = check_archive(file, trust)
    loaded = _load_model(file, trust)
    if notes.get("class_names") is not None:
        loaded.class_names = tuple(notes["class_names"])
    if notes.get("image_size") is not None and image_size(loaded) is None:
        loaded.image_size = tuple(notes["image_size"])
    return loaded


def _load_legacy(file: Path, trust: bool) -> keras.Model:
    what = repr(str(file))
    check_hdf5(file, file.stat().st_size, what)
    if not is_legacy_model(file):
        fix = "Build the model, then `model.load_weights(path)`; `.weights.h5` files load here."
        raise ValueError(f"{what} holds no model, only weights in an old format. {fix}")
    if not trust:
        why = "The format can hide code from every check (CVE-2025-9905)"
        raise ValueError(f"{what} is a legacy .h5 model. {why}. {TRUST} Then save it as .keras.")
    return _load_model(file, trust)


def _load_model(file: Path, trust: bool) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # The optimizer of a model that was compiled but never trained has no state to load.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            loaded = keras.saving.load_model(str(file), safe_mode=not trust)
    except MemoryError:
        raise
    # What Keras raises here depends on the layer that meets the broken part of the file.
    except Exception as error:
        raise ValueError(f"Keras can't load {str(file)!r}: {shorten(error)}.") from error
    if not isinstance(loaded, keras.Model):
        kind = type(loaded).__name__
        raise ValueError(f"{str(file)!r} holds a {kind}; expected a keras.Model.")
    return loaded


def _load_weights(file: Path, model: keras.Model | None) -> keras.Model:
    if model is None:
        fix = "Build the model that they belong to and call `bz.load(path, model)`."
        raise ValueError(f"{str(file)!r} holds weights only; expected a `model` for them. {fix}")
    load_weights(file, model)
    return model
