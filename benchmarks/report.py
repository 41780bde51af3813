"""From measurements to a table."""

from __future__ import annotations

from statistics import median

from benchmarks.cases import ARMS, CASES


def summarize(rounds: list[dict]) -> dict:
    """`rounds`: per round {case: {arm: result of worker.train}} -> {case: {arm: figures}}.

    A ratio is taken within a round, where both ran minutes apart at most; then the median over the
    rounds. "ratio" compares the median epoch, "ratio_total" all later epochs together.
    """
    summary: dict = {}
    for case in rounds[0]:
        arms = rounds[0][case]
        summary[case] = {
            arm: figures([r[case]["keras"] for r in rounds], [r[case][arm] for r in rounds])
            for arm in arms
        }
    return summary


def figures(base: list[dict], own: list[dict]) -> dict:
    pairs = list(zip(base, own, strict=True))
    ratios = [median(b["later"]) / median(o["later"]) for b, o in pairs]
    last = own[-1]
    return {
        "samples_per_second": median(o["samples"] / median(o["later"]) for o in own),
        "ratio": median(ratios),
        "ratio_all_rounds": ratios,
        "ratio_total": median(sum(b["later"]) / sum(o["later"]) for b, o in pairs),
        "first_epoch_seconds": median(o["first"] for o in own),
        "peak_mib": median(o["peak_mib"] for o in own),
        "peak_ratio": median(o["peak_mib"] / b["peak_mib"] for b, o in pairs),
        "parameters": last["parameters"],
        "settings": {
            key: last[key]
            for key in ("policy", "jit_compile", "steps_per_execution", "optimizer")
            if key in last
        },
    }


def table(summary: dict) -> str:
    """Markdown, ready for the README."""
    lines = [
        "| Network | Trained by | Samples/s | × plain Keras (lowest–highest) | × in total time "
        "| First epoch, s | Peak memory, MiB | × plain Keras |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case, arms in summary.items():
        for arm, row in arms.items():
            low, high = min(row["ratio_all_rounds"]), max(row["ratio_all_rounds"])
            lines.append(
                f"| {CASES[case].title} | {ARMS[arm]} | {row['samples_per_second']:,.0f} "
                f"| {row['ratio']:.2f} ({low:.2f}–{high:.2f}) | {row['ratio_total']:.2f} "
                f"| {row['first_epoch_seconds']:.1f} | {row['peak_mib']:,.0f} "
                f"| {row['peak_ratio']:.2f} |"
            )
    return "\n".join(lines)


def small_table(imports: dict, solved: list[dict]) -> str:
    lines = ["| Import | Median, s |", "|---|--:|"]
    lines += [f"| `import {name}` | {median(times):.3f} |" for name, times in imports.items()]
    lines += [
        "",
        "| Least squares | bz.solve, ms | scikit-learn, ms | bz.solve / scikit-learn "
        "| Largest difference of a coefficient |",
        "|---|--:|--:|--:|--:|",
    ]
    for entry in solved:
        own, other = entry["times"]["bigzoo"], entry["times"]["sklearn"]
        ratio = median(a / b for a, b in zip(own, other, strict=True))
        lines.append(
            f"| {entry['samples']:,} × {entry['features']} | {median(own) * 1e3:.1f} "
            f"| {median(other) * 1e3:.1f} | {ratio:.2f} | {entry['difference']:.1e} |"
        )
    return "\n".join(lines)
