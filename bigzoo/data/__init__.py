"""Data in: arrays, tables, HDF5 files, images and texts become `Batches`; splits and scaling."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public name -> the module that has it; loaded at first use, so that a table needs no image code.
_NAMES = {
    "Augment": "_augment",
    "Batches": "_batches",
    "ImageBatches": "_images",
    "ImageFolderWarning": "_image_report",
    "ImageReport": "_image_report",
    "Normalizer": "_normalize",
    "PET_NAMES": "_pets",
    "REVIEW_NAMES": "_reviews",
    "TableEncoder": "_encoder",
    "TextBatches": "_text_batches",
    "arrays": "_arrays",
    "cats_vs_dogs": "_download",
    "csv": "_csv",
    "drawn_pets": "_pets",
    "drawn_reviews": "_reviews",
    "h5": "_h5",
    "images": "_images",
    "linear": "_linear",
    "normalize": "_normalize",
    "split": "_split",
    "text_csv": "_text_sources",
    "text_folder": "_text_sources",
    "text_windows": "_text_windows",
}

if TYPE_CHECKING:
    from bigzoo.data._arrays import arrays
    from bigzoo.data._augment import Augment
    from bigzoo.data._batches import Batches
    from bigzoo.data._csv import csv
    from bigzoo.data._download import cats_vs_dogs
    from bigzoo.data._encoder import TableEncoder
    from bigzoo.data._h5 import h5
    from bigzoo.data._image_report import ImageFolderWarning, ImageReport
    from bigzoo.data._images import ImageBatches, images
    from bigzoo.data._linear import linear
    from bigzoo.data._normalize import Normalizer, normalize
    from bigzoo.data._pets import PET_NAMES, drawn_pets
    from bigzoo.data._reviews import REVIEW_NAMES, drawn_reviews
    from bigzoo.data._split import split
    from bigzoo.data._text_batches import TextBatches
    from bigzoo.data._text_sources import text_csv, text_folder
    from bigzoo.data._text_windows import text_windows

__all__ = [
    "PET_NAMES",
    "REVIEW_NAMES",
    "Augment",
    "Batches",
    "ImageBatches",
    "ImageFolderWarning",
    "ImageReport",
    "Normalizer",
    "TableEncoder",
    "TextBatches",
    "arrays",
    "cats_vs_dogs",
    "csv",
    "drawn_pets",
    "drawn_reviews",
    "h5",
    "images",
    "linear",
    "normalize",
    "split",
    "text",
    "text_csv",
    "text_folder",
    "text_windows",
]


def __getattr__(name: str) -> Any:
    if name == "text":
        return importlib.import_module("bigzoo.data.text")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"bigzoo.data.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    from bigzoo._errors import no_attribute

    raise no_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
