"""`python -m benchmarks.compress`: what pruning and slimming gain and lose on real tasks.

"prune digits": an MLP on scikit-learn's handwritten digits, 80% of its weights zero.
"slim pets": a residual network with batch normalisation on drawn cats and dogs, half of the
channels gone, then exported and timed in LiteRT and ONNX Runtime beside the original.

Each case trains for each of `--seeds`, and says whether the goals are reached. Latencies need an
idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bigzoo as bz
from bigzoo.deploy._make_receipt import measure_latencies

# Case -> figure -> (goal, whether it is the least or the most that counts).
GOALS = {
    "prune digits": {"points": (-1.0, "least"), "gzip_ratio": (0.35, "most")},
    "slim pets": {
        "points": (-2.0, "least"),
        "params_ratio": (0.27, "most"),
        "best_speedup": (2.5, "least"),
    },
}


def prune_digits(seed: int, args: argparse.Namespace) -> dict[str, float]:
    from sklearn.datasets import load_digits

    bz.set_seed(seed)
    x, y = load_digits(return_X_y=True)
    (x, y), held_out = bz.data.split((x / 16).astype("float32"), y, val_fraction=0.25, seed=seed)
    model = bz.models.mlp(64, (256, 128), num_outputs=10, task="multiclass")
    bz.compile(model, verbose=False)
    bz.fit(model, x, y, epochs=30, verbose=0, seed=seed)
    pruned = bz.compress.prune(
        model,
        (x, y),
        args.sparsity,
        20,
        validation_data=held_out,
        seed=seed,
        verbose=0,
        latency=False,
    )
    return figures(pruned.receipt)


def slim_pets(seed: int, args: argparse.Namespace) -> dict[str, float]:
    bz.set_seed(seed)
    x, y = bz.data.drawn_pets(args.pets, image_size=(64, 64), seed=seed)
    (x, y), (x_held_out, y_held_out) = bz.data.split(x, y, val_fraction=0.25, seed=seed)
    names = bz.data.PET_NAMES
    train = bz.data.arrays(x, y, seed=seed, augment=bz.data.Augment(), class_names=names)
    held_out = bz.data.arrays(x_held_out, y_held_out, shuffle=False, class_names=names)
    model = bz.models.cnn((64, 64, 3), 2)
    bz.compile(model, verbose=False)
    bz.fit(model, train, epochs=args.epochs, verbose=0)
    small = bz.compress.slim(
        model,
        train,
        args.ratio,
        args.slim_epochs,
        validation_data=held_out,
        seed=seed,
        verbose=0,
        latency=False,
    )
    found = figures(small.receipt)
    for engine in args.engines:
        before, after = (bz.deploy.predictor(one, engine) for one in (model, small))
        for one in measure_latencies(before, after, x_held_out.astype("float32")):
            found[f"{engine}_speedup_{one.batch_size}"] = one.speedup
    speeds = [value for name, value in found.items() if name.endswith("_speedup_1")]
    return {**found, "best_speedup": max(speeds, default=float("nan"))}


def figures(receipt: bz.deploy.Receipt) -> dict[str, float]:
    before: Any = receipt.before  # every figure is there: the data have targets
    after: Any = receipt.after
    return {
        "before": before.score,
        "after": after.score,
        "points": 100 * (after.score - before.score),
        "params_ratio": after.params / before.params,
        "bytes_ratio": after.file_bytes / before.file_bytes,
        "gzip_ratio": after.gzip_bytes / before.gzip_bytes,
        "zeros": after.zero_params / after.params,
    }


CASES: dict[str, Callable[[int, argparse.Namespace], dict[str, float]]] = {
    "prune digits": prune_digits,
    "slim pets": slim_pets,
}


def missed(case: str, found: dict[str, float]) -> list[str]:
    """Goals that the medians of a case don't reach; what isn't a number doesn't, either."""
    faults = []
    for name, (goal, sense) in GOALS[case].items():
        value = found[name]
        reached = value >= goal if sense == "least" else value <= goal
        if not reached:
            faults.append(f"{name} {value:.3g}, goal at {sense} {goal:g}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--pets", type=int, default=2000, help="pictures to draw")
    parser.add_argument("--epochs", type=int, default=7, help="of the original network on pets")
    parser.add_argument("--slim-epochs", type=int, default=5, help="after the cut")
    parser.add_argument("--engines", nargs="*", default=["litert", "onnx"])
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    everything, status = {}, 0
    for case in args.cases:
        runs = []
        for seed in args.seeds:
            runs.append(CASES[case](seed, args))
            shown = ", ".join(f"{name} {value:.3g}" for name, value in runs[-1].items())
            print(f"{case}, seed {seed}: {shown}", flush=True)
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        faults = missed(case, medians)
        print(f"{case}: {'; '.join(faults) if faults else 'all goals reached'}")
        status |= bool(faults)
        everything[case] = runs
    if args.output:
        args.output.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
