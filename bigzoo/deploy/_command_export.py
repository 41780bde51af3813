"""`python -m bigzoo export`: a model's file in another format, with its receipt."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bigzoo._errors import check_number
from bigzoo.deploy._export import export
from bigzoo.deploy._files import MODEL_SUFFIXES, missing_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("model", help="a .keras file, or a name such as resnet50 (its weights are random)")
    add("target", help="pets.onnx, pets.tflite, or a folder: saved_model/, openvino/")
    add(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="T",
        help="largest difference of the outputs, relative to the largest of them [1e-5]",
    )
    add("--fixed-batch", action="store_true", help="a file for one sample at a time")
    add("--no-latency", action="store_true", help="don't measure how long a call takes")
    add("--json", action="store_true", help="print the receipt as JSON")


def run(arguments: argparse.Namespace, build: Callable[..., Any]) -> int:
    """Write the file and print its receipt; the exit status."""
    # Before the model is built, which may take a while.
    tolerance = check_number("--tolerance", arguments.tolerance, 0)
    _check_source(arguments.model)
    model, _ = build(arguments.model, None)
    receipt = export(
        model,
        arguments.target,
        dynamic_batch=not arguments.fixed_batch,
        tolerance=tolerance,
        latency=not arguments.no_latency,
    )
    print(receipt.to_json() if arguments.json else receipt)
    return 0


def _check_source(name: str) -> None:
    """An error for what is meant as a file and is none: it would be taken for a name of the zoo."""
    path = Path(name)
    if path.suffix.lower() in MODEL_SUFFIXES:
        return  # whatever is wrong with it, `load` says
    # A folder may be called resnet50 by chance, but not if it holds a model.
    holds = path.is_dir() and ((path / "saved_model.pb").exists() or any(path.glob("*.xml")))
    if holds or path.is_file():
        fix = "Export the Keras model that it was made from."
        raise ValueError(f"{name!r} is no Keras model; expected a .keras file. {fix}")
    if not path.exists() and (path.suffix[1:2].isalpha() or len(path.parts) > 1):
        raise missing_file(path)
