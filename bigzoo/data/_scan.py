"""Which files a folder of images has, and which side of the split each of them is on."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message, suggest

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

# Other people's folders: a photo format that Pillow alone doesn't read, and what systems leave.
_OTHER_IMAGES = (".avif", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".nef", ".tif", ".tiff")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_LAYOUT = "a folder with one sub-folder of images per class, such as pets/cat and pets/dog"
_MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Listing:
    """What lies in a folder of class folders. Paths are relative to `folder`, with "/"."""

    folder: Path
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...]


def list_images(folder: Any, class_names: Sequence[str] | None = None) -> Listing:
    """All image files by class, in an order that depends on their names alone."""
    root = check_folder("folder", folder)
    found = sorted(entry.name for entry in root.iterdir() if _visible(entry) and entry.is_dir())
    chosen = _choose_classes(root, found, class_names)
    names: list[str] = []
    labels: list[int] = []
    skipped = _loose_files(root)
    for label, class_name in enumerate(chosen):
        good, bad = _walk(root, class_name)
        if not good:
            bad_text = f" ({len(bad)} other files are there)" if bad else ""
            raise ValueError(
                f"The class folder '{display(str(root / class_name))}' has no image{bad_text}; "
                f"expected files that end in {', '.join(EXTENSIONS)}. Add images, or leave the "
                "class out with `class_names=`."
            )
        names += good
        labels += [label] * len(good)
        skipped += bad
    return Listing(root, chosen, tuple(names), np.array(labels, np.int64), tuple(skipped))


def check_folder(name: str, value: Any) -> Path:
    """`value` as the path of a folder that is there."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(value, bytes) or value == "":
        raise TypeError(message(name, value, f"the path of {_LAYOUT}"))
    path = Path(value).expanduser()
    if not path.exists():
        raise FileNotFoundError(message(name, str(value), f"{_LAYOUT}; nothing is there"))
    if not path.is_dir():
        fix = "Unpack it first." if path.suffix in (".zip", ".gz", ".tgz", ".tar") else ""
        raise ValueError(message(name, str(value), f"{_LAYOUT}; this is a file", fix))
    return path


def side_of_split(
    listing_names: Sequence[str],
    labels: np.ndarray,
    digests: Sequence[bytes],
    val_fraction: float,
    seed: int,
) -> np.ndarray:
    """True where a file belongs to the validation part.

    Each file's place comes from a hash of its name and the seed, so that it depends neither on the
    order in which a disk lists files nor on the library's version, and stays when others are
    added. Files with the same content go together: a copy must not be in both parts.
    """
    if val_fraction == 0:
        return np.zeros(len(labels), bool)
    groups: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        groups.setdefault(digest, []).append(i)
    keys = [_key(name, seed) for name in listing_names]
    in_order = sorted(groups.values(), key=lambda members: min(keys[i] for i in members))
    counts = np.bincount(labels)
    # At least one of each class on each side, where a class has two images or more.
    wanted = np.clip(np.rint(counts * val_fraction), np.minimum(1, counts - 1), counts - 1)
    taken = np.zeros_like(counts)
    side = np.zeros(len(labels), bool)
    for members in in_order:
        size = np.bincount(labels[members], minlength=len(counts))
        if np.all(taken + size <= wanted):
            taken += size
            side[members] = True
    return side


def display(name: str) -> str:
    """A file name that can be printed anywhere, even if it isn't valid Unicode."""
    return os.fsencode(name).decode("utf-8", "replace")


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n".encode() + os.fsencode(name)).digest()


def _choose_classes(root: Path, found: list[str], wanted: Any) -> tuple[str, ...]:
    if wanted is None:
        _check_layout(root, found)
        return tuple(found)
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise TypeError(message("class_names", wanted, "a list of names of class folders"))
    for name in wanted:
        if name not in found:
            expected = f"names of folders in '{display(str(root))}'"
            raise ValueError(message("class_names", wanted, expected, suggest(name, found)))
    if len(set(wanted)) != len(wanted) or len(wanted) < 2:
        raise ValueError(message("class_names", wanted, "two or more different names"))
    return tuple(wanted)


def _check_layout(root: Path, found: list[str]) -> None:
    shown = display(str(root))
    if not found:
        loose = sum(entry.suffix.lower() in EXTENSIONS for entry in root.iterdir())
        got = f"{loose} images and no class folder" if loose else "no class folder"
        fix = "Make one folder per class and put the images there." if loose else ""
        raise ValueError(f"The folder '{shown}' has {got}; expected {_LAYOUT}. {fix}".strip())
    if {name.lower() for name in found} <= _SPLIT_NAMES:
        raise ValueError(
            f"The folder '{shown}' has the parts {', '.join(map(repr, found))} instead of class "
            f"folders; expected {_LAYOUT}. Read each part by itself, such as "
            f"images('{display(str(root / found[0]))}', val_fraction=0)."
        )
    if len(found) == 1:
        raise ValueError(
            f"The folder '{shown}' has one class folder, {found[0]!r}; expected two or more. "
            "A classifier needs something to tell apart."
        )


def _loose_files(root: Path) -> list[tuple[str, str]]:
    files = sorted(e.name for e in root.iterdir() if _visible(e) and not e.is_dir())
    return [
        (name, "outside the class folders")
        for name in files
        if Path(name).suffix.lower() in EXTENSIONS
    ]


def _walk(root: Path, class_name: str) -> tuple[list[str], list[tuple[str, str]]]:
    """(image files, other files with the reason) of a class folder and the folders in it."""
    good: list[str] = []
    bad: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        bad.append((str(error.filename), f"cannot be listed: {error.strerror}"))

    for folder, inner, files in os.walk(root / class_name, onerror=unreadable):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in files:
            path = Path(folder, file)
            if not _visible(path):
                continue
            name = path.relative_to(root).as_posix()
            reason = _reason_to_skip(path)
            if reason:
                bad.append((name, reason))
            else:
                good.append(name)
    return sorted(good), sorted(bad)


def _reason_to_skip(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in _OTHER_IMAGES:
        return f"{suffix} is not supported; convert it to JPEG or PNG"
    if suffix not in EXTENSIONS:
        return "not the name of an image"
    try:
        info = path.stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(info.st_mode):
        return "not a regular file"  # opening a pipe would wait for ever
    if info.st_size == 0:
        return "empty file"
    if info.st_size > _MAX_FILE_BYTES:
        return f"larger than {_MAX_FILE_BYTES // 2**20} MiB"
    return None


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _SYSTEM_FILES
