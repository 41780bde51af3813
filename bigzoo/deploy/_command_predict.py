"""`python -m bigzoo predict`: labels for photos, from a model's file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bigzoo._image_io import UnreadableImage
from bigzoo.deploy._predict_images import predict_images
from bigzoo.deploy._predictions import Prediction, Predictions

_SOME_UNREADABLE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("model", help="a .keras, .onnx or .tflite file, or a folder: SavedModel, OpenVINO")
    add("images", nargs="+", metavar="IMAGE", help="image files, and folders of them")
    add("--top", type=int, default=1, metavar="N", help="how many classes each row names [1]")
    add(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="height and width in pixels, for a model of any size [the one it was trained with]",
    )
    add("--crop", action="store_true", help="cut the sides off instead of stretching the picture")
    add("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace, build: Callable[..., Any]) -> int:
    """Print a row for each image; the exit status: 1 if some couldn't be read."""
    table = _predict(arguments)
    if arguments.json:
        rows = [asdict(row) for row in table]
        print(json.dumps({"predictions": rows, "note": table.note}, indent=2))
    else:
        print(table)
    return _SOME_UNREADABLE if any(row.error is not None for row in table) else 0


def _predict(arguments: argparse.Namespace) -> Predictions:
    images = arguments.images
    size = arguments.image_size
    try:
        return predict_images(
            arguments.model,
            images[0] if len(images) == 1 else images,
            top=arguments.top,
            image_size=None if size is None else tuple(size),
            crop_to_aspect_ratio=arguments.crop,
        )
    except UnreadableImage as error:  # the only one: a row, as it is among others
        return Predictions([Prediction(images[0], error=error.reason)])
