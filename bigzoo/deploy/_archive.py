"""The `.keras` file as a zip archive: checked as a whole before Keras unpacks any of it."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path
from typing import Any

from bigzoo._errors import shorten
from bigzoo._hdf5 import check_hdf5
from bigzoo.deploy._config import read_config, unsafe_part

NOTES = "bigzoo.json"
_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MOST_ENTRIES = 100_000
_MOST_TEXT = 2**28
# Keras stores without compression; a file that was packed again shrinks to a fraction.
_FREE_BYTES = 2**28
_MOST_EXPANSION = 20


def check_archive(path: Path, trust: bool) -> dict[str, Any]:
    """Check everything in a `.keras` file; return what `bigzoo.save` noted in it (or nothing).

    With `trust` the code in it is let through, but never an entry that leads out of the archive, a
    bomb or a damaged file: no honest file has those.
    """
    what = repr(str(path))
    if not zipfile.is_zipfile(path):
        fix = "It may be cut off (an interrupted download or copy), or of another format."
        raise ValueError(f"{what} is not a .keras file: expected a zip archive. {fix}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _check(archive, path.stat().st_size, what, trust)
    except (ValueError, MemoryError):
        raise
    # zipfile raises BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error …
    except Exception as error:
        raise ValueError(f"{what} is damaged: {shorten(error)}.") from error


def _check(archive: zipfile.ZipFile, size: int, what: str, trust: bool) -> dict[str, Any]:
    entries = archive.infolist()
    _check_entries(entries, size, what)
    names = {entry.filename for entry in entries}
    for name in (_CONFIG, _WEIGHTS):
        if name not in names:
            got = f"it has no {name}, only {_few(names)}"
            raise ValueError(f"{what} is not a Keras model: {got}.")
    config = read_config(_read_text(archive, _CONFIG, what), what)
    if not trust and (found := unsafe_part(config)):
        raise ValueError(f"{what} is refused. {found}")
    broken = archive.testzip()  # Keras reads the weights without looking at their checksum
    if broken is not None:
        raise ValueError(f"{what} is damaged: the checksum of {broken!r} is wrong. Copy it again.")
    with archive.open(_WEIGHTS) as weights:
        check_hdf5(weights, archive.getinfo(_WEIGHTS).file_size, f"{what} ({_WEIGHTS})")
    return _read_notes(archive, what) if NOTES in names else {}


def _check_entries(entries: list[zipfile.ZipInfo], size: int, what: str) -> None:
    if len(entries) > _MOST_ENTRIES:
        raise ValueError(f"{what} is refused: it has {len(entries):,} entries.")
    names = set()
    for entry in entries:
        name = entry.filename
        # `orig_filename` has what zipfile has cleaned up already, such as backslashes and NUL.
        if _leads_out(name) or _leads_out(entry.orig_filename):
            where = shorten(ValueError(entry.orig_filename), 80)
            raise ValueError(f"{what} is refused: its entry {where!r} leads out of the archive.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{what} is refused: its entry {name!r} is a symbolic link.")
        if entry.flag_bits & 1:
            raise ValueError(f"{what} is refused: its entry {name!r} is encrypted.")
        if name in names:
            raise ValueError(f"{what} is refused: it has two entries {name!r}.")
        names.add(name)
    total = sum(entry.file_size for entry in entries)
    if total > _FREE_BYTES + _MOST_EXPANSION * size:
        got = f"{total / 2**30:,.1f} GiB in {size / 2**20:,.1f} MiB"
        raise ValueError(f"{what} is refused: it unpacks to {got}, as only a zip bomb does.")


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\\" in name or "\0" in name


def _read_text(archive: zipfile.ZipFile, name: str, what: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_TEXT:
        raise ValueError(f"{what} is refused: its {name} is over {_MOST_TEXT // 2**20} MiB.")
    return archive.read(name)


def _read_notes(archive: zipfile.ZipFile, what: str) -> dict[str, Any]:
    try:
        notes = json.loads(_read_text(archive, NOTES, what))
        names = notes.get("class_names")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{what} is damaged: its {NOTES} is not what bigzoo writes.") from error
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"{what} is damaged: `class_names` in its {NOTES} is no list of names.")
    size = notes.get("image_size")
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    ):
        raise ValueError(f"{what} is damaged: `image_size` in its {NOTES} is no pair of integers.")
    return notes


def _few(names: set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(map(repr, shown)) + (", …" if len(names) > len(shown) else "") or "no entry"
