"""`python -m bigzoo cost`: what a model costs, and what a step of it takes on other hardware."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import check_int, message
from bigzoo._tables import Table, paragraph
from bigzoo._units import NOTHING, percent_text, range_text, seconds_text
from bigzoo.cost._catalogue import get
from bigzoo.cost._device import Device
from bigzoo.cost._report import CostReport

# Name and input shape -> the model, and whether it was built with that shape.
Build = Callable[[str, "tuple[int, ...] | None"], "tuple[keras.Model, bool]"]

_HEADER = ("device", "step", "between", "bound by", "MFU", "memory", "largest batch")
_FITS = {"yes": "fits", "no": "too little", "close": "may not fit", "unknown": NOTHING}
# A search for the largest batch ends here: what fits a million samples fits any batch in use.
_MOST_SAMPLES = 2**20


@dataclass(frozen=True)
class Line:
    """What is said of one device.

    Attributes:
        device: It, from the catalogue.
        estimate: A `StepEstimate`; None if figures of the device are missing.
        why_not: What is missing, "" if there is an estimate.
        fits: "yes", "no", "close" or "unknown".
        largest_batch: That surely fits on one device; None if its memory isn't known.
    """

    device: Device
    estimate: Any
    why_not: str
    fits: str
    largest_batch: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("model", help="resnet50, vit-b16, bert-base, gpt, cnn, VGG16, or a .keras file")
    add(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="samples in a step, on each device [1]",
    )
    add("--on", default="", metavar="DEVICES", help="hardware, such as h100-sxm,a100-80")
    add("--devices", type=int, default=1, metavar="N", help="how many of each, data parallel [1]")
    add("--input-shape", type=_shape, metavar="SHAPE", help="without the batch: 224,224,3 or 128")
    add("--optimizer", default="adam", metavar="NAME", help="whose slots take memory [adam]")
    add("--dtype", metavar="POLICY", help="such as mixed_bfloat16 [that of the model]")
    add("--inference", action="store_true", help="a forward pass, instead of a training step")
    add("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace, build: Build) -> int:
    """Print the report of a model; the exit status."""
    # Before the model is built: names and numbers are cheap to check.
    devices = _devices(arguments.on)
    batch_size = check_int("batch_size", arguments.batch_size, 1)
    count = check_int("devices", arguments.devices, 1)
    model, shaped = build(arguments.model, arguments.input_shape)

    def analyze(size: int) -> CostReport:
        return _analyze(arguments, model, size, None if shaped else arguments.input_shape)

    report = analyze(batch_size)
    lines = _lines(report, analyze, devices, count)
    if arguments.json:
        plain = [_plain(line) for line in lines]
        print(json.dumps({"report": report.to_dict(), "estimates": plain}, indent=2))
        return 0
    print(report)
    if lines:
        print(f"\n{_text(lines, count)}")
    return 0


def _shape(text: str) -> tuple[int, ...]:
    """ "224,224,3" as (224, 224, 3)."""
    parts = [part.strip() for part in text.replace("x", ",").strip("()[] ").split(",")]
    sizes = [part for part in parts if part]
    if not sizes or not all(part.isdigit() and int(part) > 0 for part in sizes):
        expected = "sizes above 0 with commas between them, without the batch: 224,224,3"
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; expected {expected}")
    return tuple(map(int, sizes))


def _devices(text: str) -> list[Device]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if text and not names:
        raise ValueError(message("--on", text, "names with commas between them"))
    return [get(name) for name in dict.fromkeys(names)]


def _analyze(
    arguments: argparse.Namespace, model: keras.Model, batch_size: int, shape: Any
) -> CostReport:
    from bigzoo.cost._analyze import analyze

    try:
        return analyze(
            model,
            batch_size=batch_size,
            input_shape=shape,
            optimizer=arguments.optimizer,
            training=not arguments.inference,
            dtype=arguments.dtype,
        )
    except ValueError as error:
        if shape is None and "`input_shape`" in str(error):
            raise ValueError(f"{error} Here: --input-shape 64") from error
        raise


def _lines(
    report: CostReport, analyze: Callable[[int], CostReport], devices: list[Device], count: int
) -> list[Line]:
    if not devices:
        return []
    from bigzoo.cost._plan_memory import Memory

    memory = Memory(analyze, report.batch_size, report)
    return [_line(report, memory, device, count) for device in devices]


def _line(report: CostReport, memory: Any, device: Device, count: int) -> Line:
    from bigzoo.cost._predict import predict

    try:
        estimate, why_not = predict(report, on=device, devices=count), ""
    except ValueError as error:  # a figure of this device is missing: others still have theirs
        estimate, why_not = None, str(error)
    if device.memory_bytes is None:
        return Line(device, estimate, why_not, "unknown", None)
    room = device.memory_bytes.value
    largest = int(memory.largest(room, _MOST_SAMPLES).low)
    return Line(device, estimate, why_not, memory.fits(room, report.batch_size), largest)


def _text(lines: list[Line], count: int) -> str:
    many = f"{count} of each, data parallel, each with this batch" if count > 1 else "one of each"
    title = f"A step by the makers' figures, {many}: estimates"
    text = Table(_HEADER, tuple(map(_row, lines)), title, left=(0, 3, 5)).text()
    faults = [f"{line.device.name}: {line.why_not}" for line in lines if line.why_not]
    return "\n".join([text, *map(paragraph, faults)])


def _row(line: Line) -> tuple[str, ...]:
    most = line.largest_batch
    batch = NOTHING if most is None else f"{most:,}" if most < _MOST_SAMPLES else "any"
    found = line.estimate
    if found is None:
        return (line.device.name, *[NOTHING] * 4, _FITS[line.fits], batch)
    return (
        line.device.name,
        seconds_text(found.step_seconds, 2),
        range_text(found.step_low_seconds, found.step_high_seconds, seconds_text),
        found.bound,
        NOTHING if found.mfu is None else percent_text(found.mfu, 1.0),
        _FITS[line.fits],
        batch,
    )


def _plain(line: Line) -> dict[str, Any]:
    """A line as JSON can hold it."""
    found: dict[str, Any] = {
        "on": line.device.name,
        "fits": line.fits,
        "largest_batch_size": line.largest_batch,
    }
    if line.estimate is None:
        return {**found, "error": line.why_not}
    from bigzoo.cost._render import plain

    times = ("step", "step_low", "step_high", "compute", "memory", "overhead", "communication")
    names = ("devices", "batch_size", *(f"{time}_seconds" for time in times), "mfu", "bound")
    kept = {name: plain(getattr(line.estimate, name)) for name in (*names, "assumptions")}
    return {**found, **kept}
