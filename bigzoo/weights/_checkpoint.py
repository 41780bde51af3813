"""One checkpoint, wherever it lies: its tensors by name, and what its config.json says."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message, suggest
from bigzoo.weights._family import check_family
from bigzoo.weights._hub import PREFIX, fetch_hub
from bigzoo.weights._list import ROWS, fetch_row
from bigzoo.weights._native import head_units
from bigzoo.weights._readers import Reader, read_safetensors, read_torch

_NATIVE = (".keras", ".weights.h5")
_TORCH = (".bin", ".pt", ".pth")
_INDEX = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint. Its tensors are read when they are asked for.

    Attributes:
        source: What the user gave, for messages.
        path: The file with the weights, or the folder of several.
        config: What config.json says; {} where there is none.
        tensors: Shape of each tensor by its name; {} for Keras' own formats.
        native: Whether it is in Keras' own format, which needs no map of names.
    """

    source: str
    path: Path
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tensors: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    native: bool = False
    _read: Callable[[str], np.ndarray] | None = dataclasses.field(default=None, repr=False)

    def read(self, name: str) -> np.ndarray:
        """One tensor; 16-bit floats are widened to float32."""
        if self._read is None or name not in self.tensors:
            raise KeyError(f"{self.source!r} has no tensor {name!r}. {suggest(name, self.tensors)}")
        array = self._read(name)
        return array.astype("float32") if array.dtype.itemsize == 2 else array

    def renamed(self, function: Callable[[str], str]) -> Checkpoint:
        """The same tensors under other names, such as without a prefix."""
        old = {function(name): name for name in self.tensors}
        if len(old) != len(self.tensors):
            raise ValueError(f"{self.source!r} has two tensors for one weight after renaming.")
        shapes = {new: self.tensors[name] for new, name in old.items()}
        return dataclasses.replace(self, tensors=shapes, _read=lambda name: self.read(old[name]))

    def classes(self, tensor: str) -> int | None:
        """Units of the classifier whose weight or bias is `tensor`; None if there is no such.

        In Keras' own formats it is the layer "predictions" that is looked at.
        """
        if self.native:
            return head_units(self.path)
        shape = self.tensors.get(tensor)
        return int(shape[0]) if shape else None


def open_checkpoint(weights: Any, family: str | None = None) -> Checkpoint | None:
    """Find a checkpoint and read what it holds, without its numbers.

    Args:
        weights: None, for none; a `.keras`, `.weights.h5`, `.safetensors` or PyTorch (`.pth`,
            `.pt`, `.bin`) file; a folder with such a file and a `config.json`; "hf://org/name" or
            "hf://org/name@revision" on the Hugging Face hub; or a name from `list_weights`.
        family: Name of the model that it is for, such as "resnet"; a checkpoint whose
            config.json is of another one is refused.

    Returns:
        A `Checkpoint`, or None.

    Raises:
        FileNotFoundError: if there is no such file, folder or name.
        ValueError: if it is damaged, of an unknown format, or for another model.
        ConnectionError: if it must be downloaded and can't be.

    Example:
        >>> bz.weights.open_checkpoint(None) is None
        True
    """
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(message("weights", weights, "None, a path, hf://org/name or a name"))
    text = os.fspath(weights)
    path = _locate(text)
    checkpoint = _open(path, text)
    if text in ROWS and not checkpoint.config:
        checkpoint = dataclasses.replace(checkpoint, config=ROWS[text].config)
    if family is not None:
        check_family(checkpoint.config, family, text)
    return checkpoint


def _locate(text: str) -> Path:
    if text.startswith(PREFIX):
        return fetch_hub(text)
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text in ROWS:
        return fetch_row(ROWS[text])
    fix = f"There is no such file or folder, and no such name. {suggest(text, ROWS)}"
    expected = "a file, a folder, hf://org/name, or a name from bz.weights.list_weights()"
    raise FileNotFoundError(message("weights", text, expected, fix))


def _open(path: Path, source: str) -> Checkpoint:
    folder = path if path.is_dir() else path.parent
    file = _weights_file(path, source) if path.is_dir() else path
    name = file.name.lower()
    if name.endswith(_NATIVE):
        return Checkpoint(source, file, native=True)
    config = _read_config(folder / "config.json") if path.is_dir() else {}
    if name == _INDEX:
        reader = _read_parts(file, source)
    elif name.endswith(".safetensors"):
        reader = read_safetensors(file, source)
    elif name.endswith(_TORCH):
        reader = read_torch(file, source)
    else:
        expected = "a .keras, .weights.h5, .safetensors, .pth, .pt or .bin file"
        legacy = "Legacy .h5 models are loaded by `bz.load(path, trust=True)`."
        fix = legacy if name.endswith((".h5", ".hdf5")) else ""
        raise ValueError(message("weights", source, expected, fix))
    return Checkpoint(source, file, config, reader.shapes, _read=reader.read)


def _weights_file(folder: Path, source: str) -> Path:
    """The one file of weights in a folder; safetensors are preferred, since they hold no code."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    names = {file.name: file for file in files}
    for name in ("model.safetensors", _INDEX):
        if name in names:
            return names[name]
    for suffixes in ((".safetensors",), _NATIVE, _TORCH):
        fitting = [file for file in files if file.name.lower().endswith(suffixes)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            few = ", ".join(repr(file.name) for file in fitting[:5])
            fix = f"Name one of them: {few}."
            raise ValueError(message("weights", source, "a folder with one file of weights", fix))
    few = ", ".join(map(repr, list(names)[:5])) or "nothing"
    fix = f"It has {few}, and no model.safetensors."
    raise FileNotFoundError(message("weights", source, "a folder with a file of weights", fix))


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is damaged: it is not JSON ({error}).") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(file)!r} is damaged: expected a JSON object.")
    return config


def _read_parts(index: Path, source: str) -> Reader:
    """A checkpoint in several safetensors files, with an index of which tensor lies where."""
    files = _read_config(index).get("weight_map")
    if not isinstance(files, dict) or not all(map(_is_plain_name, files.values())):
        raise ValueError(f"{str(index)!r} is damaged: it has no `weight_map` of file names.")
    missing = sorted({name for name in files.values() if not (index.parent / name).is_file()})
    if missing:
        raise FileNotFoundError(f"{source!r} is not complete: {missing[0]!r} is missing.")
    parts = {name: read_safetensors(index.parent / name, source) for name in set(files.values())}
    absent = [name for name, file in files.items() if name not in parts[file].shapes]
    if absent:
        raise ValueError(f"{source!r} is damaged: {files[absent[0]]!r} has no {absent[0]!r}.")
    shapes = {name: parts[file].shapes[name] for name, file in files.items()}
    return Reader(shapes, lambda name: parts[files[name]].read(name))


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name
