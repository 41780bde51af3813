"""`python -m benchmarks`: measures, prints tables, writes JSON."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import ARMS, CASES
from benchmarks.report import small_table, summarize, table

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    args = parse_arguments()
    arms = [arm for arm in args.arms if not arm.startswith("torch") or has("torch")]
    if len(arms) < len(args.arms):
        print("PyTorch is not installed: its rows are left out")
    report: dict = {"machine": machine(), "arguments": vars(args) | {"output": str(args.output)}}

    rounds = []
    with_torch = any(arm.startswith("torch") for arm in arms)
    graphs = {
        case: run(job="describe", case=case)["graph"] if with_torch else {} for case in args.cases
    }
    for number in range(args.rounds):
        # A B C, A B C, ...: what else happens on the machine hits everybody alike.
        results: dict = {}
        for case in args.cases:
            for arm in arms:
                results.setdefault(case, {})[arm] = measure(case, arm, graphs[case], args)
                later = results[case][arm]["later"]
                print(f"round {number + 1}: {case}, {arm}: epochs of {min(later):.3f} s and more")
        rounds.append(results)
        report |= {"rounds": rounds, "summary": summarize(rounds)}
        write(args.output, report)

    report["import_seconds"] = {
        module: [run(job="import_time", module=module)["seconds"] for _ in range(args.rounds)]
        for module in ("bigzoo", "keras")
    }
    report["solve"] = solve(args.quick) if has("sklearn") else []
    write(args.output, report)

    print("\n" + table(report["summary"]) + "\n")
    print(small_table(report["import_seconds"], report["solve"]))
    print(f"\n{report['machine']}\nwritten to {args.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Training speed against plain Keras and PyTorch."
    )
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--rounds", type=int, default=5, help="[5]")
    add(
        "--optimizer",
        default="default",
        help="for bz.compile: default, or a name such as adam, for equal work [default]",
    )
    add("--quick", action="store_true", help="tiny sizes, one round: a smoke test")
    add("--output", type=Path, default=Path("out/benchmarks.json"), help="[out/benchmarks.json]")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"argument --rounds: {args.rounds} is too small; use at least 1")
    if "keras" not in args.arms:
        args.arms.insert(0, "keras")  # the others are divided by it
    if args.quick:
        args.rounds = 1
    return args


def measure(case: str, arm: str, graph: dict, args: argparse.Namespace) -> dict:
    sizes = CASES[case]
    return run(
        job="train",
        case=case,
        arm=arm,
        samples=sizes.quick_samples if args.quick else sizes.samples,
        epochs=2 if args.quick else sizes.epochs,
        optimizer=args.optimizer,
        graph=graph if arm.startswith("torch") else {},
    )


def solve(quick: bool) -> list[dict]:
    sizes = [(1_000, 5)] if quick else [(100, 2), (10_000, 20), (100_000, 50), (5_000, 500)]
    rounds = 3 if quick else 21
    return [
        {"samples": n, "features": k, **run(job="solve", samples=n, features=k, rounds=rounds)}
        for n, k in sizes
    ]


def run(**order) -> dict:
    """The answer of a worker process; its own error text where it fails."""
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(order)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        order.pop("graph", None)
        raise SystemExit(f"{order} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def machine() -> dict:
    """Versions from the packages' metadata: importing them here would enlarge the workers."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("bigzoo", "keras", "tensorflow", "torch", "scikit-learn", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    text = info.read_text()
    name = next((line for line in text.splitlines() if line.startswith("model name")), "")
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {unit}" in text]
    return f"{name.partition(':')[2].strip()} ({', '.join(units)})"


def write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1))
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
