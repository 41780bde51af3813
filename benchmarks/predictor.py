"""Latency at batch 1 of `bz.deploy.predictor` beside `model.predict` and `model(x)`.

    python -m benchmarks.predictor [--calls 10000]

All ways of one model run in turns in one process; the table has medians over the rounds, how many
times as fast each way is as `predict` and as `model(x)`, and the memory that many calls add.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 9
ENGINES = ("keras", "litert", "onnx", "openvino")


def models() -> dict[str, Any]:
    import bigzoo as bz

    return {
        "MLP, 3 layers": bz.models.mlp(64, (128, 128), num_outputs=10, task="multiclass"),
        "CNN, 64 px": bz.models.cnn((64, 64, 3), num_classes=2),
        "BERT, 2 layers": bz.models.bert("micro", num_classes=2),
    }


def inputs(model: Any) -> Any:
    from bigzoo.deploy._signature import example_inputs, nest_inputs, signature_of

    return nest_inputs(signature_of(model), example_inputs(model, 1))


def ways(model: Any) -> dict[str, Callable[[Any], Any]]:
    import bigzoo as bz

    found: dict[str, Callable[[Any], Any]] = {
        "predict": lambda x: model.predict(x, verbose=0),
        "model(x)": lambda x: model(x, training=False),
    }
    for engine in ENGINES:
        found[f"predictor, {engine}"] = bz.deploy.predictor(model, engine)
    return found


def seconds(call: Callable[[Any], Any], x: Any, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call(x)
    return (time.perf_counter() - start) / repeats


def medians(calls: dict[str, Callable[[Any], Any]], x: Any) -> dict[str, float]:
    repeats = {}
    for name, call in calls.items():
        call(x)
        repeats[name] = max(1, round(0.1 / max(min(seconds(call, x, 1) for _ in range(3)), 1e-6)))
    rounds = [
        {name: seconds(calls[name], x, repeats[name]) for name in calls} for _ in range(ROUNDS)
    ]
    return {name: statistics.median(one[name] for one in rounds) for name in calls}


def resident_bytes() -> int:
    """Memory of this process; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def growth(call: Callable[[Any], Any], x: Any, calls: int) -> float:
    for _ in range(200):
        call(x)
    before = resident_bytes()
    for _ in range(calls):
        call(x)
    return (resident_bytes() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000, help="for the memory's growth [10000]")
    args = parser.parse_args()
    print("| model | way | ms | × predict | × model(x) | MiB more |")
    print("|---|---|--:|--:|--:|--:|")
    for title, model in models().items():
        x = inputs(model)
        calls = ways(model)
        found = medians(calls, x)
        for name, value in found.items():
            many = name.startswith("predictor")
            more = f"{growth(calls[name], x, args.calls):.1f}" if many else ""
            ratios = f"{found['predict'] / value:.1f} | {found['model(x)'] / value:.1f}"
            print(f"| {title} | {name} | {1000 * value:.3f} | {ratios} | {more} |", flush=True)


if __name__ == "__main__":
    np.random.seed(0)
    main()
