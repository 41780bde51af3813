"""The roofline of a model's operations, and their intensities where no hardware is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigzoo._errors import message
from bigzoo._units import bandwidth_text, digits_text, percent_text, rate_text
from bigzoo.plot._figure import BLUE, GREY, ORANGE, RED, tidy

# Okabe and Ito's palette again. Whatever kind isn't named here is grey.
_COLORS = {
    "matmul": BLUE,
    "conv": "#56B4E9",
    "depthwise": "#009E73",
    "elementwise": ORANGE,
    "reduction": RED,
    "pool": "#CC79A7",
    "move": "#8C6D31",
}
_MARKS = {"matmul": "o", "conv": "s", "depthwise": "D", "elementwise": "^", "reduction": "v"}
_PRODUCTS = ("matmul", "conv", "depthwise")
_LARGEST = 180.0  # area of the largest mark, in points squared
_SMALLEST = 24.0


@dataclass(frozen=True)
class _Roof:
    """What hardware can do: `peak(operation)` in FLOP/s, `bandwidth` in bytes per second."""

    name: str
    bandwidth: float
    peak: Callable[[Any], float | None]
    ceilings: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Marks:
    """Operations of one kind and roof with work to do, as arrays."""

    flops: np.ndarray
    moved: np.ndarray
    roof: np.ndarray


def intensities(ax: Any, operations: Sequence[Any]) -> None:
    """How many of the bytes are moved at which arithmetic intensity."""
    ax.set_title("arithmetic intensity")
    groups = _by_kind(operations, lambda operation: np.inf)
    if not groups:
        _nothing(ax)
        return
    values = {kind: np.log2(marks.flops / marks.moved) for kind, marks in groups.items()}
    low = np.floor(min(value.min() for value in values.values()))
    high = np.ceil(max(value.max() for value in values.values()))
    edges = np.arange(low, max(high, low + 4) + 1)
    moved = sum(marks.moved.sum() for marks in groups.values())
    base = np.zeros(len(edges) - 1)
    for kind, marks in groups.items():
        height, _ = np.histogram(values[kind], bins=edges, weights=100 * marks.moved / moved)
        color = _COLORS.get(kind, GREY)
        ax.bar(edges[:-1], height, 0.92, bottom=base, align="edge", color=color, label=kind)
        base += height
    step = max(1, round(len(edges) / 9))
    ax.set_xticks(edges[::step], [_power(edge) for edge in edges[::step]])
    ax.set_xlabel("FLOP per byte moved")
    ax.set_ylabel("share of the bytes, %")
    ax.set_ylim(0, 1.08 * base.max())
    tidy(ax)
    ax.grid(visible=False, axis="x")
    ax.legend(frameon=False, fontsize="small")


def roofline(ax: Any, operations: Sequence[Any], on: Any) -> None:
    """Each operation at its intensity, under what the hardware can do there; log-log."""
    roof = _roof(on, operations)
    ax.set_title(f"roofline of {roof.name}")
    groups = _by_kind(operations, roof.peak)
    if not groups:
        _nothing(ax)
        return
    seconds = {
        kind: np.maximum(marks.flops / marks.roof, marks.moved / roof.bandwidth)
        for kind, marks in groups.items()
    }
    whole = sum(part.sum() for part in seconds.values())
    for kind, marks in groups.items():
        x = marks.flops / marks.moved
        y = np.minimum(marks.roof, x * roof.bandwidth)
        area = _SMALLEST + _LARGEST * seconds[kind] / max(p.max() for p in seconds.values())
        label = f"{kind}: {percent_text(seconds[kind].sum(), whole)} of the time"
        style = {"color": _COLORS.get(kind, GREY), "marker": _MARKS.get(kind, "P")}
        ax.scatter(x, y, s=area, alpha=0.45, edgecolors="white", linewidths=0.5, zorder=3, **style)
        ax.scatter([], [], s=40, label=label, **style)
    _draw_roof(ax, roof, groups)
    ax.set_xlabel("FLOP per byte moved")
    ax.set_ylabel("most FLOP per second")
    tidy(ax)
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def _draw_roof(ax: Any, roof: _Roof, groups: Mapping[str, _Marks]) -> None:
    x = np.concatenate([marks.flops / marks.moved for marks in groups.values()])
    ridge = [peak / roof.bandwidth for _, peak in roof.ceilings]
    low = min(x.min(), *ridge) / 3
    high = max(x.max(), *ridge) * 6
    top = max(peak for _, peak in roof.ceilings)
    ax.plot([low, top / roof.bandwidth], [low * roof.bandwidth, top], color="black", zorder=2)
    for name, peak in roof.ceilings:
        ax.plot([peak / roof.bandwidth, high], [peak, peak], color="black", zorder=2)
        text = f"{name} {rate_text(peak)}"
        ax.annotate(
            text, (high, peak), (-2, 8), textcoords="offset points", ha="right", fontsize="small"
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(low * roof.bandwidth / 2, top * 3)
    ax.annotate(
        f"memory {bandwidth_text(roof.bandwidth)}\nridge at {digits_text(max(ridge))} FLOP/byte",
        (0.02, 0.98),
        xycoords="axes fraction",
        ha="left",
        va="top",
        fontsize="small",
    )


def _by_kind(operations: Sequence[Any], peak: Callable[[Any], float | None]) -> dict[str, _Marks]:
    """Operations that compute and move something; those of most bytes first."""
    found: dict[str, dict[tuple[float, float, float], float]] = {}
    for operation in operations:
        flops = operation.flops + operation.elementwise_flops
        moved = operation.read_bytes + operation.write_bytes
        if flops <= 0 or moved <= 0:
            continue
        # Equal operations, such as those of equal layers, become one mark.
        key = (float(flops), float(moved), float(peak(operation) or np.inf))
        kinds = found.setdefault(operation.kind, {})
        kinds[key] = kinds.get(key, 0) + operation.count
    groups = {}
    for kind, counts in found.items():
        table = np.array([(*key, count) for key, count in counts.items()])
        flops, moved, roof, count = table.T
        groups[kind] = _Marks(flops * count, moved * count, roof)
    return dict(sorted(groups.items(), key=lambda item: -item[1].moved.sum()))


def _roof(on: Any, operations: Sequence[Any]) -> _Roof:
    name = str(getattr(on, "title", "") or getattr(on, "name", "") or "this machine")
    if isinstance(getattr(on, "rates", None), Mapping):
        return _measured_roof(name, on, operations)
    if not callable(getattr(on, "peak", None)) or not hasattr(on, "bandwidth_bytes_per_second"):
        fix = "Take one with bz.cost.hardware.get(name), or measure with bz.cost.calibrate()."
        raise TypeError(message("on", on, "a device or a calibration", fix))
    bandwidth = _number(on.bandwidth_bytes_per_second)
    if bandwidth is None:
        fix = "Measure it there: bz.cost.calibrate()."
        raise ValueError(f"The bandwidth of {name} isn't known; a roofline needs it. {fix}")
    dtypes = sorted({o.dtype for o in operations if o.kind in _PRODUCTS}) or ["float32"]
    known = [(dtype, on.peak(dtype)) for dtype in dtypes]
    ceilings = tuple((dtype, float(peak)) for dtype, peak in known if peak)
    if not ceilings:
        raise ValueError(
            f"The peak of {name} in {' or '.join(dtypes)} is not known; a roofline needs it."
        )
    return _Roof(name, bandwidth, lambda operation: on.peak(operation.dtype), ceilings)


def _measured_roof(name: str, on: Any, operations: Sequence[Any]) -> _Roof:
    """Of a calibration. Its rates of products are FLOP/s; those of the other kinds are bytes/s."""
    products = [operation for operation in operations if operation.kind in _PRODUCTS]
    dtypes = sorted({operation.dtype for operation in products})
    if products and callable(getattr(on, "peak", None)) and not any(map(on.peak, dtypes)):
        fix = "Calibrate in that dtype, or analyze in the other."
        raise ValueError(f"{name} was not measured in {' or '.join(dtypes)}. {fix}")
    rates = {kind: _number(on.rates.get(kind)) for kind in _PRODUCTS}
    bandwidth = _number(getattr(on, "bandwidth_bytes_per_second", None))
    kinds = [kind for kind in _PRODUCTS if any(o.kind == kind for o in products)] or ["matmul"]
    ceilings = tuple((kind, rate) for kind in kinds if (rate := rates[kind]))
    if not bandwidth or not ceilings:
        lacking = "memory" if ceilings else " or ".join(kinds)
        raise ValueError(f"{name} has no rate for {lacking}; a roofline needs it.")
    return _Roof(name, bandwidth, lambda operation: rates.get(operation.kind), ceilings)


def _number(figure: Any) -> float | None:
    """The number of a figure that carries its source, or of a bare number."""
    value = getattr(figure, "value", figure)
    return None if value is None else float(value)


def _power(exponent: float) -> str:
    """2 to this power, short."""
    return f"{2**exponent:,.0f}" if exponent >= 0 else f"1/{2**-exponent:,.0f}"


def _nothing(ax: Any) -> None:
    ax.text(0.5, 0.5, "no operation computes anything", ha="center", va="center", color=GREY)
    ax.set_axis_off()
