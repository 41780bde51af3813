"""Size, agreement and latency of quantised models, and what distillation gains.

    python -m benchmarks.compress_quantize [--cases cnn mlp text slim distill] [--output FILE.json]

Each case trains its model on data drawn on the spot, quantises it, and prints the receipt: bytes,
held-out accuracy, agreement, and the latency against the compiled call of the original, in turns in
one process. Then one line per case says which of the goals are met. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bigzoo as bz

# What a case must reach: the share of the bytes at most, the agreement and the speed at batch 1 at
# least.
GOALS: dict[str, dict[str, float]] = {
    "cnn": {"size": 0.27, "agreement": 0.98, "speed": 3.0},
    "mlp": {"size": 0.27, "agreement": 0.98, "speed": 1.0},
    "text": {"size": 0.30, "agreement": 0.99, "speed": 1.0},
    "slim": {"size": 0.08, "speed": 8.0},
    "distill": {"flops": 0.25},
}


# === Models, trained ===


def pets(count: int, seed: int) -> tuple[Any, Any]:
    x, y = bz.data.drawn_pets(count, seed=seed)
    return x.astype("float32"), y


def trained_cnn(small: bool) -> tuple[Any, Any, Any]:
    """The modern CNN, with BatchNorm and residuals, on drawn pets of 64 pixels."""
    train, test = pets(200 if small else 2000, 0), pets(100 if small else 1000, 1)
    model = bz.compile(bz.models.cnn((64, 64, 3), 2), verbose=False)
    bz.fit(model, *train, epochs=1 if small else 7, verbose=0, seed=0)
    return model, train, test


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = found.data.astype("float32") / 16, found.target
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return (x[:1300], y[:1300]), (x[1300:], y[1300:])


def digits_network(width: int) -> Any:
    dense = keras.layers.Dense
    layers = [keras.Input((64,)), dense(width, "relu"), dense(width, "relu")]
    return keras.Sequential([*layers, dense(10, "softmax")], name=f"digits_{width}")


def trained_mlp(small: bool) -> tuple[Any, Any, Any]:
    train, test = digits()
    model = digits_network(256)
    model.compile("adam", "sparse_categorical_crossentropy")
    bz.fit(model, *train, epochs=3 if small else 20, verbose=0, seed=0)
    return model, train, test


def trained_text(small: bool) -> tuple[Any, Any, Any]:
    """A BERT of two layers on drawn reviews."""
    texts, labels = bz.data.drawn_reviews(400 if small else 4000, seed=0)
    length = 64 if small else 256
    tokenizer = bz.data.text.Tokenizer.train(
        texts, vocab_size=8000, special_tokens=True, max_length=length
    )
    whole = bz.data.TextBatches(
        texts, labels, tokenizer=tokenizer, length=length, truncate=True, shuffle=True, seed=0
    )
    train, test = bz.data.split(whole, val_fraction=0.2, seed=0)
    model = bz.models.bert(
        "tiny",
        num_classes=2,
        vocab_size=tokenizer.vocab_size,
        max_length=length,
        hidden_dim=64,
        num_heads=4,
    )
    bz.compile(model, learning_rate=5e-4, verbose=False)
    bz.fit(model, train, epochs=1 if small else 10, verbose=0)
    return model, train, test


# === Cases ===


def quantized(model: Any, test: Any, target: str) -> dict[str, Any]:
    """Held-out rows both calibrate and measure, never the same ones."""
    keras_int8 = target == "keras"
    least = 0.5 if keras_int8 else 0.9  # below the goals: a miss is to be seen, not raised
    made = bz.compress.quantize(model, test, target, min_agreement=least)
    receipt = made.receipt
    print(receipt, "\n", flush=True)
    return figures(receipt, "int8" if keras_int8 else made.mode)


def figures(receipt: Any, mode: str) -> dict[str, Any]:
    found = {
        "mode": mode,
        "size": receipt.after.file_bytes / receipt.before.file_bytes,
        "agreement": receipt.difference.agreement,
        "accuracy": [receipt.before.score, receipt.after.score],
        "tried": [f"{trial.name}: {trial.verdict}" for trial in receipt.tried],
    }
    for one in receipt.latencies:
        found["speed" if one.batch_size == 1 else f"speed_{one.batch_size}"] = one.speedup
    return found


def quantize_case(make: Callable[[bool], Any], small: bool) -> dict[str, Any]:
    model, _, test = make(small)
    found = {}
    for target in ("litert", "onnx", "keras"):
        try:
            found[target] = quantized(model, test, target)
        except (ValueError, ImportError) as error:
            print(error, "\n", flush=True)
            found[target] = {"error": str(error)}
    return found


def slim_case(small: bool) -> dict[str, Any]:
    """Half of the channels and 8 bits, against the network as it was trained."""
    model, train, test = trained_cnn(small)
    slim = bz.compress.slim(model, train, ratio=0.5, epochs=1 if small else 5, verbose=0, seed=0)
    made = bz.compress.quantize(slim, test, mode="int8", min_agreement=0.9)
    path = made.save(Path(made.path).with_name("slim.tflite"))
    receipt = bz.compress.compare(model, path, test)
    print(receipt, "\n", flush=True)
    return {"litert": figures(receipt, "slim + int8")}


def distill_case(small: bool) -> dict[str, Any]:
    """A student with few labels and 1,000 samples without, against the same student alone."""
    train, test = digits()
    few, epochs = 300, 10 if small else 60
    labelled = train[0][:few], train[1][:few]
    found: dict[str, Any] = {"alone": [], "distilled": [], "teacher": []}
    for seed in range(1 if small else 3):
        bz.set_seed(seed)
        teacher = digits_network(256)
        teacher.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        bz.fit(teacher, *train, epochs=20, verbose=0, seed=seed)
        students = []
        for _ in range(2):  # the same weights to begin with
            bz.set_seed(seed)
            student = digits_network(48)
            student.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
            students.append(student)
        # As many steps for both: the labelled rows are seen more often where there are no others.
        more = round(epochs * len(train[0]) / few)
        bz.fit(students[0], *labelled, epochs=more, verbose=0, seed=seed)
        labels = np.where(np.arange(len(train[0])) < few, train[1], -1)
        bz.compress.distill(
            students[1],
            teacher,
            train[0],
            y=labels,
            epochs=epochs,
            validation_data=test,
            verbose=0,
            seed=seed,
        )
        for name, model in zip(
            ("alone", "distilled", "teacher"), [*students, teacher], strict=True
        ):
            found[name].append(model.evaluate(*test, verbose=0)[1])
        receipt = students[1].receipt
        found["flops"] = receipt.after.flops / receipt.before.flops
        print(receipt, "\n", flush=True)
    gains = [b - a for a, b in zip(found["alone"], found["distilled"], strict=True)]
    found["gain"], found["least_gain"] = statistics.mean(gains), min(gains)
    return {"keras": found}


CASES: dict[str, Callable[[bool], dict[str, Any]]] = {
    "cnn": lambda small: quantize_case(trained_cnn, small),
    "mlp": lambda small: quantize_case(trained_mlp, small),
    "text": lambda small: quantize_case(trained_text, small),
    "slim": slim_case,
    "distill": distill_case,
}


def verdict(case: str, found: dict[str, Any]) -> str:
    """Which goals are met, by the best target for each model."""
    if case == "distill":
        one = found["keras"]
        shown = ", ".join(f"{name} {np.round(one[name], 3)}" for name in ("alone", "distilled"))
        met = one["least_gain"] > 0 and one["flops"] <= GOALS[case]["flops"]
        return f"{shown}, {one['flops']:.2f} of the FLOPs: {'met' if met else 'MISSED'}"
    lines = []
    for target, one in found.items():
        if "error" in one:
            lines.append(f"{target}: nothing passes")
            continue
        goals = GOALS[case]
        missed = [
            name
            for name, goal in goals.items()
            if not (one.get(name, 0) <= goal if name == "size" else one.get(name, 0) >= goal)
        ]
        shown = ", ".join(f"{name} {one.get(name, float('nan')):.3g}" for name in goals)
        lines.append(
            f"{target} ({one['mode']}): {shown}: {'MISSED ' if missed else 'met'}"
            f"{', '.join(missed)}"
        )
    return "; ".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--small", action="store_true", help="little data, to try the script")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    results = {}
    for case in args.cases:
        bz.set_seed(0)
        results[case] = CASES[case](args.small)
    for case, found in results.items():
        print(f"{case:8s} {verdict(case, found)}")
    if args.output:
        args.output.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
