"""Print the tables of docs/guide/cost.md: `python docs/make_cost_tables.py` (half a minute).

Nothing is measured or trained: the first table is counted, the second is estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

import bigzoo as bz

DEVICES = ["t4", "a100-80", "h100-sxm"]
PICTURE = (224, 224, 3)
DTYPE = "mixed_float16"  # the T4 has no bfloat16


@dataclass(frozen=True)
class Case:
    """A model, a step of it, and a training."""

    title: str
    build: Callable[[], keras.Model]
    input_shape: tuple[int, ...]
    batch_size: int
    samples: int
    epochs: int


CASES = [
    Case("plain CNN", lambda: bz.models.cnn(PICTURE, 2, "plain"), PICTURE, 32, 25_000, 20),
    Case("BERT-base", lambda: bz.models.bert("base", num_classes=2), (128,), 32, 25_000, 3),
    Case("GPT-2 small", lambda: bz.models.gpt("small"), (1024,), 8, 10_000, 1),
]


def main() -> None:
    counted = ["| | parameters | forward | training | states | activations | peak |"]
    counted.append(f"|---{'|--:' * 6}|")
    estimated = ["| | device | largest batch | step | MFU | training | energy |"]
    estimated.append(f"|---|---{'|--:' * 5}|")
    for case in CASES:
        model = case.build()
        shape = {"input_shape": case.input_shape, "dtype": DTYPE}
        report = bz.cost.analyze(model, case.batch_size, **shape)
        counted.append(count_row(case, report))
        plan = bz.cost.plan(
            model, case.samples, case.epochs, case.batch_size, DEVICES, report=report, **shape
        )
        estimated += [estimate_row(case, row) for row in plan.rows]
    print("\n".join([*counted, "", *estimated, "", nanogpt()]))


def count_row(case: Case, report: bz.cost.CostReport) -> str:
    states = report.weight_bytes + report.gradient_bytes + report.optimizer_bytes
    cells = [
        f"{case.title}, batch {report.batch_size}",
        f"{report.params:,}",
        f"{report.forward_flops / 1e9:,.1f} GFLOP",
        f"{report.training_flops / 1e9:,.1f} GFLOP ({ratio(report):.2f} ×)",
        f"{short(states / 1e9)} GB",
        f"{short(report.activation_bytes / 1e9)} GB",
        between(report.peak_low_bytes, report.peak_bytes, report.peak_high_bytes, 1e9, "GB"),
    ]
    return f"| {' | '.join(cells)} |"


def ratio(report: bz.cost.CostReport) -> float:
    return report.training_flops / report.forward_flops


def short(value: float) -> str:
    """Two digits that count: 0.0067, 3.6, 410."""
    return f"{float(f'{value:.2g}'):,g}"


def between(low: float, middle: float, high: float, unit: float, name: str) -> str:
    return f"{short(middle / unit)} ({short(low / unit)} to {short(high / unit)}) {name}"


def estimate_row(case: Case, row: Any) -> str:
    step, batch = row.step, row.largest_batch
    cells = [
        case.title,
        row.device,
        f"{batch.low:,.0f} to {batch.high:,.0f}",
        between(step.step_low_seconds, step.step_seconds, step.step_high_seconds, 1e-3, "ms"),
        f"{step.mfu:.0%}",
        between(row.hours.low, row.hours.mid, row.hours.high, 1 / 60, "min"),
        between(row.kwh.low, row.kwh.mid, row.kwh.high, 1e-3, "Wh"),
    ]
    return f"| {' | '.join(cells)} |"


def nanogpt() -> str:
    """What nanoGPT's README says of GPT-2 on A100s with 40 GB, by our estimate.

    https://github.com/karpathy/nanoGPT: 600,000 steps of 480 sequences on 8 in about 4 days;
    12 sequences on one in 250 ms, compiled in 135 ms.
    """
    report = bz.cost.analyze(
        bz.models.gpt("small"), 12, input_shape=(1024,), optimizer="adamw", dtype="mixed_bfloat16"
    )
    lines = []
    for devices, steps, unit, divisor in ((1, 1, "ms", 1e-3), (8, 5 * 600_000, "days", 86_400)):
        step = bz.cost.predict(report, "a100-40", devices)
        whole = [
            seconds * steps
            for seconds in (step.step_low_seconds, step.step_seconds, step.step_high_seconds)
        ]
        lines.append(f"{devices} x a100-40: {between(*whole, divisor, unit)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
