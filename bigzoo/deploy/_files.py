"""Paths as callers give them, and errors that help to find the right file."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from bigzoo._errors import message

# Of files that hold a whole Keras model; compare with the lower-case suffix.
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


def to_path(name: str, value: Any) -> Path:
    """`value` as a Path; only text and path objects are paths."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(message(name, value, "a path as a str or pathlib.Path"))
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(message(name, value, "a path as a str or pathlib.Path"))
    if not text or "\0" in text:
        raise ValueError(message(name, text, "the path of a file"))
    return Path(text).expanduser()


def missing_file(path: Path) -> FileNotFoundError:
    """An error that names the files nearest to `path`."""
    folder = path.parent
    if not folder.is_dir():
        return FileNotFoundError(f"There is no file {str(path)!r}: no folder {str(folder)!r}.")
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        names = []
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(path.name.lower(), lower, n=3, cutoff=0.5)
    same_kind = sorted(name for name in names if Path(name).suffix == path.suffix)[:5]
    shown = [lower[name] for name in near] or same_kind
    if not shown:
        return FileNotFoundError(f"There is no file {str(path)!r}, nor one with a similar name.")
    listed = ", ".join(repr(str(folder / name)) for name in shown)
    return FileNotFoundError(f"There is no file {str(path)!r}. Near it: {listed}.")
