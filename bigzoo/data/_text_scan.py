"""Which text files a folder of class folders has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message, suggest
from bigzoo.data._scan import display

EXTENSION = ".txt"
_LAYOUT = "a folder with one sub-folder of .txt files per class, such as reviews/negative"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class TextListing:
    """Files with their labels. Names are relative to `folder`, with "/"."""

    folder: Path
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    skipped: tuple[str, ...]


def list_texts(folder: Any, class_names: Sequence[str] | None, least: int) -> TextListing:
    """All .txt files by class, in an order that depends on their names alone.

    Args:
        folder: What the user gave.
        class_names: Class folders to read; None for all.
        least: Files that each class must have.
    """
    root = _check_folder(folder)
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and _visible(entry))
    chosen = _choose(root, found, class_names)
    names: list[str] = []
    labels: list[int] = []
    skipped: list[str] = []
    for label, class_name in enumerate(chosen):
        good, other = _walk(root, class_name)
        if len(good) < least:
            count = f"{len(good)} {EXTENSION} file{'' if len(good) == 1 else 's'}"
            fix = "Add texts" + (", or set val_fraction=0." if good else ".")
            raise ValueError(
                f"The class folder '{display(str(root / class_name))}' has {count}; expected at "
                f"least {least}. {fix}"
            )
        names += good
        labels += [label] * len(good)
        skipped += other
    shown = tuple(map(display, skipped))
    return TextListing(root, chosen, tuple(names), np.array(labels, np.int64), shown)


def _check_folder(folder: Any) -> Path:
    if not isinstance(folder, (str, os.PathLike)) or folder == "":
        raise TypeError(message("folder", folder, f"the path of {_LAYOUT}"))
    path = Path(folder).expanduser()
    if not path.exists():
        raise FileNotFoundError(message("folder", str(folder), f"{_LAYOUT}; nothing is there"))
    if not path.is_dir():
        fix = "For a table use bz.data.text_csv." if path.suffix in (".csv", ".tsv") else ""
        raise ValueError(message("folder", str(folder), f"{_LAYOUT}; this is a file", fix))
    return path


def _choose(root: Path, found: list[str], wanted: Any) -> tuple[str, ...]:
    shown = display(str(root))
    if wanted is None:
        if {name.lower() for name in found} <= _SPLIT_NAMES and found:
            raise ValueError(
                f"The folder '{shown}' has the parts {', '.join(map(repr, found))} instead of "
                f"class folders; expected {_LAYOUT}. Read each part by itself, such as "
                f"text_folder('{display(str(root / found[0]))}', val_fraction=0, ...)."
            )
        if len(found) < 2:
            count = "no class folder" if not found else f"one class folder, {found[0]!r}"
            raise ValueError(f"The folder '{shown}' has {count}; expected {_LAYOUT}, two or more.")
        return tuple(found)
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise TypeError(message("class_names", wanted, "a list of names of class folders"))
    for name in wanted:
        if name not in found:
            expected = f"names of folders in '{shown}'"
            raise ValueError(message("class_names", wanted, expected, suggest(name, found)))
    if len(set(wanted)) != len(wanted) or len(wanted) < 2:
        raise ValueError(message("class_names", wanted, "two or more different names"))
    return tuple(wanted)


def _walk(root: Path, class_name: str) -> tuple[list[str], list[str]]:
    """(text files, other files) of a class folder and the folders in it."""
    good: list[str] = []
    other: list[str] = []
    for folder, inner, files in os.walk(root / class_name):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in files:
            path = Path(folder, file)
            if _visible(path):
                is_text = path.suffix.lower() == EXTENSION and path.is_file()
                (good if is_text else other).append(path.relative_to(root).as_posix())
    return sorted(good), sorted(other)


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")
