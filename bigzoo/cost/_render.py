"""A `CostReport` as text, as HTML and as plain data."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bigzoo._columns import clean, shorten
from bigzoo._errors import check_bool
from bigzoo._tables import Table, html_paragraph, paragraph
from bigzoo._units import (
    bytes_text,
    digits_text,
    flops_text,
    macs_text,
    percent_text,
    range_text,
)
from bigzoo.cost._report import CostReport, Tally

_MOST_LAYERS = 12
# What no table shows: thousands of rows, which `to_dict(operations=True)` gives.
_LONG = "operations"


def as_text(report: CostReport) -> str:
    """The report for a terminal, at most 100 columns wide."""
    parts = [_title(report), paragraph(_setting(report)), "", _figures(report).text()]
    for table in _tallies(report):
        parts += ["", table.text()]
    if report.unknown_ops:
        parts += ["", paragraph(_unknown(report))]
    return "\n".join(parts)


def as_html(report: CostReport) -> str:
    """The report for a notebook: tables only, every text escaped, nothing loaded from elsewhere."""
    parts = [html_paragraph(_title(report), bold=True), html_paragraph(_setting(report))]
    parts += [table.html() for table in (_figures(report), *_tallies(report))]
    if report.unknown_ops:
        parts.append(html_paragraph(_unknown(report), bold=True))
    return f"<div>{''.join(parts)}</div>"


def as_dict(report: CostReport, operations: bool = False) -> dict[str, Any]:
    """The report as plain dicts, lists, numbers and strings, which JSON can hold.

    Args:
        report: A report.
        operations: Whether to add the list of every operation, thousands for a large model.
    """
    skip = () if check_bool("operations", operations) else (_LONG,)
    names = [field.name for field in dataclasses.fields(report) if field.name not in skip]
    return {name: plain(getattr(report, name)) for name in names}


def as_json(report: CostReport, operations: bool = False, indent: int | None = 2) -> str:
    """`as_dict` as JSON text."""
    return json.dumps(as_dict(report, operations), indent=indent, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` in JSON's own types. What isn't finite becomes None: JSON has no word for it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if hasattr(value, "__index__"):  # numpy's integers too
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


# === What stands in it ===


def _title(report: CostReport) -> str:
    step = "a training step" if report.training else "a prediction"
    samples = "1 sample" if report.batch_size == 1 else f"{report.batch_size:,} samples"
    return f"{shorten(report.model, 40)}: what {step} on {samples} costs"


def _setting(report: CostReport) -> str:
    inputs = ", ".join(f"{name} {tuple(shape)}" for name, shape in report.input_shapes.items())
    parts = [f"input: {inputs}" if inputs else "", f"dtype: {report.dtype}"]
    parts += [f"optimizer: {report.optimizer}" if report.optimizer else ""]
    parts += [f"counted on: {report.backend}" if report.backend else ""]
    return "; ".join(part for part in parts if part)


def _figures(report: CostReport) -> Table:
    """One line per figure: name, value with its unit, how it was obtained."""
    rows = []
    for label, fields, text in _LINES:
        value = text(report)
        if value:
            how = next((report.how[name] for name in fields if report.how.get(name)), "")
            rows.append((label, value, how))
    return Table(("", "", "how obtained"), tuple(rows), left=(0, 1), wrap=True)


def _params(report: CostReport) -> str:
    if report.trainable_params == report.params:
        return f"{report.params:,}, all trainable"
    return f"{report.params:,} ({report.trainable_params:,} trainable)"


def _forward(report: CostReport) -> str:
    each = report.forward_flops / report.batch_size
    text = f"{flops_text(report.forward_flops)} ({macs_text(report.forward_macs)})"
    return text if report.batch_size == 1 else f"{text}; {flops_text(each)} a sample"


def _training(report: CostReport) -> str:
    if not report.training:
        return ""
    text = flops_text(report.training_flops)
    if not report.forward_flops:
        return text
    return f"{text}, {digits_text(report.training_flops / report.forward_flops)} × forward"


def _padding(report: CostReport) -> str:
    share = percent_text(report.padding_flops, report.forward_flops)
    return f"{flops_text(report.padding_flops)}, {share} of forward" if report.padding_flops else ""


def _bytes(name: str) -> Callable[[CostReport], str]:
    return lambda report: bytes_text(getattr(report, name))


def _training_bytes(name: str) -> Callable[[CostReport], str]:
    return lambda report: bytes_text(getattr(report, name)) if report.training else ""


def _peak(report: CostReport) -> str:
    between = range_text(report.peak_low_bytes, report.peak_high_bytes, bytes_text)
    single = report.peak_low_bytes == report.peak_high_bytes
    inner = report.peak_method if single else f"{between}, {report.peak_method}"
    return f"{bytes_text(report.peak_bytes, 2)} ({inner})"


_LINES: tuple[tuple[str, tuple[str, ...], Callable[[CostReport], str]], ...] = (
    ("parameters", ("params", "trainable_params"), _params),
    ("weights", ("weight_bytes",), _bytes("weight_bytes")),
    ("forward", ("forward_flops", "forward_macs"), _forward),
    ("  on padding", ("padding_flops",), _padding),
    ("  other arithmetic", ("elementwise_flops",), lambda r: flops_text(r.elementwise_flops)),
    ("training", ("training_flops",), _training),
    ("gradients", ("gradient_bytes",), _training_bytes("gradient_bytes")),
    ("optimizer", ("optimizer_bytes",), _training_bytes("optimizer_bytes")),
    ("activations", ("activation_bytes",), _bytes("activation_bytes")),
    ("inputs", ("input_bytes",), _bytes("input_bytes")),
    ("peak memory", ("peak_bytes", "peak_method"), _peak),
    ("moved in memory", ("bytes_moved",), _bytes("bytes_moved")),
    (
        "intensity",
        ("arithmetic_intensity",),
        lambda r: f"{digits_text(r.arithmetic_intensity)} FLOP per byte",
    ),
)


def _tallies(report: CostReport) -> list[Table]:
    tables = []
    if report.layers:
        tables.append(_layer_table(report))
    if report.kinds:
        tables.append(_kind_table(report))
    return tables


def _layer_table(report: CostReport) -> Table:
    ranked = sorted(report.layers, key=lambda layer: layer.forward_flops, reverse=True)
    first, rest = ranked[:_MOST_LAYERS], ranked[_MOST_LAYERS:]
    if len(rest) == 1:  # its own line is as short as one that says that it was left out
        first, rest = ranked, []
    whole = _sum("", ranked)
    rows = [_layer_row(layer, whole) for layer in first]
    if rest:
        rows.append(_layer_row(_sum(f"… {len(rest):,} more layers", rest), whole))
    rows.append(_layer_row(dataclasses.replace(whole, name="all"), whole))
    header = ("layer", "type", "params", "forward", "%", "training", "activations", "%")
    return Table(header, tuple(rows), title="Per layer, by forward FLOPs", left=(0, 1))


def _layer_row(layer: Tally, whole: Tally) -> tuple[str, ...]:
    return (
        clean(layer.name or "(outside of layers)"),
        shorten(layer.type, 18),
        f"{layer.params:,}",
        _flops(layer.forward_flops),
        percent_text(layer.forward_flops, whole.forward_flops),
        _flops(layer.training_flops),
        bytes_text(layer.activation_bytes),
        percent_text(layer.activation_bytes, whole.activation_bytes),
    )


def _kind_table(report: CostReport) -> Table:
    ranked = sorted(report.kinds, key=_everything, reverse=True)
    whole = _sum("all", ranked)
    rows = [
        (
            clean(kind.name),
            _flops(kind.forward_flops),
            percent_text(kind.forward_flops, whole.forward_flops),
            _flops(kind.elementwise_flops),
            _flops(kind.training_flops),
            bytes_text(kind.bytes_moved),
            percent_text(kind.bytes_moved, whole.bytes_moved),
        )
        for kind in (*ranked, whole)
    ]
    header = ("kind", "forward", "%", "other arithmetic", "training", "moved", "%")
    return Table(header, tuple(rows), title="Per kind of operation")


def _flops(value: int) -> str:
    return flops_text(value) if value else "0"


def _everything(kind: Tally) -> tuple[int, int, int]:
    return kind.forward_flops, kind.elementwise_flops, kind.bytes_moved


def _sum(name: str, tallies: Sequence[Tally]) -> Tally:
    numbers = [field.name for field in dataclasses.fields(Tally)[2:]]
    return Tally(name, **{n: sum(getattr(tally, n) for tally in tallies) for n in numbers})


def _unknown(report: CostReport) -> str:
    counts = (f"{clean(op)} ({_times(count)})" for op, count in report.unknown_ops.items())
    return (
        f"Not counted, because no rule knows them: {', '.join(counts)}. "
        "The figures above are too low by what these cost."
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
