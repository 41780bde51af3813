"""Where an exported file goes: its format by its name, and how it takes the place of another."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigzoo._errors import check_choice, message, suggest
from bigzoo.deploy._files import to_path
from bigzoo.deploy._limits import FORMATS
from bigzoo.deploy._notes import file_format, read_notes

_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
# What the folders of an export hold; anything else in them belongs to somebody.
_PARTS = {
    "saved_model": {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"},
    "openvino": {"model.xml", "model.bin"},
}


@dataclass(frozen=True)
class Target:
    """A file or folder that is to be written.

    Attributes:
        given: As the caller wrote it, for messages.
        final: Where it goes; links are followed.
        format: One of `FORMATS`.
    """

    given: Path
    final: Path
    format: str

    @property
    def is_folder(self) -> bool:
        return self.format in _PARTS


def resolve_target(path: Any, format: str | None = None) -> Target:
    """The target of an export, checked before any work is done.

    Raises:
        ValueError: if the name and the format don't fit together, or something else is there.
        FileNotFoundError, PermissionError: if the folder above doesn't exist or can't be written.
    """
    given = to_path("path", path)
    if format is None:
        format = _format_by_name(given)
    else:
        check_choice("format", format, FORMATS)
        _check_suffix(given, format)
    target = Target(given, Path(os.path.realpath(given)), format)
    parent = target.final.parent
    if not parent.is_dir():
        fix = f"Make it: `os.makedirs({str(parent)!r})`."
        raise FileNotFoundError(f"There is no folder {str(parent)!r} to export into. {fix}")
    if not os.access(parent, os.W_OK):
        text = f"{str(given)!r} can't be written: no permission in {str(parent)!r}."
        raise PermissionError(text)
    _check_replaceable(target)
    return target


def _format_by_name(path: Path) -> str:
    suffix = path.suffix.lower()
    for format, own in _SUFFIXES.items():
        if suffix == own:
            return format
    if not suffix:
        return "openvino" if "openvino" in path.name.lower() else "saved_model"
    if suffix == ".keras":
        fix = "A .keras file is written by `bz.save(model, path)`."
    else:
        near = suggest(suffix, _SUFFIXES.values())
        fix = f"{near} For a folder of another name, give format='saved_model' or 'openvino'."
    raise ValueError(
        message("path", str(path), "a name that ends in .onnx or .tflite, or a folder", fix)
    )


def _check_suffix(path: Path, format: str) -> None:
    wanted = _SUFFIXES.get(format, "")
    suffix = path.suffix.lower()
    if wanted and suffix != wanted:
        fix = f"Write {str(path.with_suffix(wanted))!r}."
        raise ValueError(message("path", str(path), f"a name that ends in {wanted}", fix))
    if not wanted and suffix in _SUFFIXES.values():
        fix = f"Write {str(path.with_suffix(''))!r}, or leave `format` out."
        raise ValueError(message("path", str(path), f"a folder, for the format {format!r}", fix))


def _check_replaceable(target: Target) -> None:
    final = target.final
    if not target.is_folder:
        if final.is_dir():
            fix = f"Name a file in it, such as {str(final / 'model') + _SUFFIXES[target.format]!r}."
            raise ValueError(message("path", str(target.given), "a file, not a folder", fix))
        return
    if not final.exists():
        return
    fix = "Name a folder that doesn't exist yet."
    if not final.is_dir():
        raise ValueError(message("path", str(target.given), "a folder; a file is there", fix))
    inside = {entry.name for entry in final.iterdir()}
    strange = sorted(inside - _PARTS[target.format])
    if inside and (strange or not _is_ours(final, target.format)):
        what = f"it holds {strange[0]!r}" if strange else "it is no earlier export of that kind"
        raise ValueError(f"The folder {str(target.given)!r} isn't replaced: {what}. {fix}")


def _is_ours(folder: Path, format: str) -> bool:
    try:
        return file_format(folder) == format and read_notes(folder) is not None
    except ValueError:
        return False


@contextmanager
def written(target: Target) -> Iterator[Path]:
    """A path beside the target to write to; it becomes the target when the block ends well.

    On any error it is gone, and what was there before is as it was. A folder that is replaced steps
    aside for a moment: a process that is killed right then leaves it under a hidden name.
    """
    tag = uuid.uuid4().hex[:8]
    partial = target.final.with_name(f".{target.final.stem}-{tag}.partial{target.final.suffix}")
    try:
        yield partial
        _check_replaceable(target)  # once more: since the first time, minutes may have gone by
        _put(partial, target)
    except OSError as error:
        if error.errno is None:
            raise
        # OSError makes a PermissionError and the like of the number.
        text = f"{str(target.given)!r} can't be written: {error.strerror}. Nothing is left of it."
        raise OSError(error.errno, text) from error
    finally:
        _remove(partial)


def _put(partial: Path, target: Target) -> None:
    if not target.final.is_dir():
        partial.replace(target.final)
        return
    # A folder with files in it can't be replaced in one step: the old one steps aside.
    old = partial.with_name(f"{partial.name}.old")
    try:
        target.final.rename(old)
        partial.rename(target.final)
    except BaseException:
        if old.exists() and not target.final.exists():
            old.rename(target.final)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
