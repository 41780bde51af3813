"""`python -m benchmarks.cost`: predicted against measured steps on this machine.

For each model: calibrates, predicts a training step, measures it, in one process; in each of
`--rounds` again. None of these models was used to choose the probes of the calibration. Needs an
idle machine: where the calibration refuses, it is tried again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import bigzoo as bz

BUSY = 3  # exit status
Case = tuple[Callable[[], Any], int, Any]


def perceptron() -> Any:
    """784-1000-500-250-10."""
    x = inputs = keras.Input((784,))
    for units in (1000, 500, 250):
        x = keras.layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x), name="perceptron")


def recurrent() -> Any:
    """An LSTM of 128 units over 60 steps of 32 numbers."""
    inputs = keras.Input((60, 32))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(128)(inputs)), name="lstm")


# Name -> (model, batch size, input shape).
CASES: dict[str, Case] = {
    "perceptron": (perceptron, 512, None),
    "cnn plain 128 px": (
        lambda: bz.models.cnn((128, 128, 3), 2, "plain"),
        16,
        None,
    ),
    "cnn modern 128 px": (lambda: bz.models.cnn((128, 128, 3), 2), 16, None),
    "resnet18 160 px": (lambda: bz.models.resnet("18", input_shape=(160, 160, 3)), 8, None),
    "resnet50 128 px": (lambda: bz.models.resnet("50", input_shape=(128, 128, 3)), 8, None),
    "vgg16 96 px": (
        lambda: keras.applications.VGG16(weights=None, input_shape=(96, 96, 3), classes=10),
        8,
        None,
    ),
    "mobilenetv2 160 px": (
        lambda: keras.applications.MobileNetV2(weights=None, input_shape=(160, 160, 3)),
        8,
        None,
    ),
    "efficientnetb0 128 px": (
        lambda: keras.applications.EfficientNetB0(weights=None, input_shape=(128, 128, 3)),
        8,
        None,
    ),
    "densenet121 128 px": (
        lambda: keras.applications.DenseNet121(weights=None, input_shape=(128, 128, 3)),
        4,
        None,
    ),
    "convnext tiny 96 px": (
        lambda: bz.models.convnext("tiny", input_shape=(96, 96, 3)),
        8,
        None,
    ),
    "bert mini, 128 tokens": (lambda: bz.models.bert("mini", num_classes=2), 16, (128,)),
    "vit tiny16": (lambda: bz.models.vit("tiny16"), 4, None),
    "lstm": (recurrent, 32, None),
}


def run(name: str, machine: bz.cost.Calibration, steps: int) -> dict[str, float]:
    """Predicted and measured seconds of a step, and the prediction's error."""
    build, batch_size, shape = CASES[name]
    model = build()
    report = bz.cost.analyze(model, batch_size, shape)
    estimate = bz.cost.predict(report, on=machine)
    found = bz.cost.measure(model, batch_size, shape, steps=steps)
    peak = machine.peak("float32")
    return {
        "predicted": estimate.step_seconds,
        "measured": found.step_seconds,
        "error": bz.cost.compare(estimate, found).errors["step_seconds"],
        # What FLOPs alone at the best measured rate would say.
        "flops_only": report.training_flops / (peak or 1.0) / found.step_seconds - 1,
    }


def calibrated(args: argparse.Namespace) -> bz.cost.Calibration | None:
    """This machine's rates just now; None if it stays too busy."""
    for _ in range(args.tries):
        try:
            return bz.cost.calibrate(args.seconds, max_load=args.max_load)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            time.sleep(5)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=9, help="steps that are measured")
    parser.add_argument("--seconds", type=float, default=4.0, help="of calibration")
    parser.add_argument("--max-load", type=float, default=0.2)
    parser.add_argument("--tries", type=int, default=5, help="of a calibration that refuses")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.cases}
    for number in range(args.rounds):
        for name in args.cases:
            machine = calibrated(args)
            if machine is None:
                return BUSY
            result = run(name, machine, args.steps)
            found[name].append(result)
            print(
                f"round {number + 1}: {name:22s} predicted {1e3 * result['predicted']:8.1f} ms, "
                f"measured {1e3 * result['measured']:8.1f} ms, {result['error']:+.0%} "
                f"(FLOPs alone {result['flops_only']:+.0%})",
                flush=True,
            )
    errors = {
        name: statistics.median(result["error"] for result in results)
        for name, results in found.items()
    }
    mean = statistics.mean(map(abs, errors.values()))
    worst = max(errors, key=lambda name: abs(errors[name]))
    print(f"\n{len(errors)} models: mean error {mean:.1%}, worst {worst} {errors[worst]:+.0%}")
    if args.output:
        args.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
