"""Where a model's FLOPs, parameters and memory go, and the roofline of its operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigzoo._columns import clean, shorten, shorten_all
from bigzoo._errors import message
from bigzoo._units import bytes_text, flops_text
from bigzoo.plot._figure import BLUE, GREY, ORANGE, new_figure, tidy
from bigzoo.plot._roofline import intensities, roofline

_GREEN = "#009E73"
_MOST_LAYERS = 10
_NEEDED = ("model", "batch_size", "layers", "operations", "forward_flops", "activation_bytes")
# Series of bars: attribute of a layer, its name, colour, text of the total.
_SERIES = (
    ("forward_flops", "forward FLOPs", BLUE, flops_text),
    ("params", "parameters", ORANGE, lambda value: f"{value:,}"),
    ("activation_bytes", "activation memory", _GREEN, bytes_text),
)
_SHORT = ("FLOPs", "parameters", "memory")


@dataclass
class _Group:
    """Layers that are drawn as one."""

    name: str
    pattern: str
    count: int = 0
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(len(_SERIES)))

    @property
    def label(self) -> str:
        return self.name if self.count == 1 else f"{self.pattern} ({self.count})"


def _later_numbers(name: str) -> str:
    first = re.match(r"\D*\d*", name)
    start = first.end() if first else 0
    return name[:start] + re.sub(r"\d+", "*", name[start:])


# From fine to coarse: each layer; numbers but the first one left out; all numbers left out.
_PATTERNS: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    _later_numbers,
    lambda name: re.sub(r"\d+", "*", name),
)
_ENOUGH = 0.75  # of each of the three, by the ten largest
_FEWEST = 4


def cost(report: Any, on: Any = None) -> Any:
    """Draw where FLOPs, parameters and activation memory go, and how the operations use hardware.

    On the left the ten largest layers in the order of the model, each with its share of the
    forward FLOPs, the parameters and the activations; the others are one more line. In a deep
    model layers whose names differ in numbers only are drawn as one: "layer*_mlp_up (12)".

    On the right, with `on`, the roofline: each operation at its arithmetic intensity (FLOPs per
    byte that it moves), under the most that the hardware can do there. On the slope the memory is
    the limit, on the flat part the arithmetic is. The area of a mark is the operation's share of
    the time that the roof allows. Without `on` there is no roof to draw: the right side then shows
    how many of the bytes are moved at which intensity.
    Roofline: Williams et al. 2009, https://doi.org/10.1145/1498765.1498785.

    Args:
        report: What `bz.cost.analyze` returned.
        on: A device of `bz.cost.hardware`, or a calibration of this machine; None draws no roof.

    Returns:
        A new `matplotlib.figure.Figure` (`savefig` works, a notebook shows it).

    Raises:
        TypeError: if `report` is no cost report, or `on` has neither peaks nor measured rates.
        ValueError: if the figures of `on` that a roof needs are not known.

    Example:
        >>> model = bz.models.cnn((32, 32, 3), num_classes=2)
        >>> figure = bz.plot.cost(bz.cost.analyze(model, batch_size=8))
        >>> len(figure.axes)
        2
    """
    _check_report(report)
    names, numbers, others = _largest(report.layers)
    height = max(4.4, 1.8 + 0.4 * len(numbers))
    figure = new_figure(12.5, height)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    samples = "1 sample" if report.batch_size == 1 else f"{report.batch_size:,} samples"
    title = shorten(report.model, 60).replace("$", r"\$")
    figure.suptitle(f"{title}, {samples}", fontsize="large")
    _draw_layers(left, names, numbers, others)
    if names:
        place = {"loc": "outside lower left", "ncols": len(_SERIES), "frameon": False}
        figure.legend(*left.get_legend_handles_labels(), **place)
    if on is None:
        intensities(right, report.operations)
    else:
        roofline(right, report.operations, on)
    return figure


def _check_report(report: Any) -> None:
    if any(not hasattr(report, name) for name in _NEEDED):
        fix = "Call bz.cost.analyze(model) and give what it returns."
        raise TypeError(message("report", report, "a cost report", fix))


def _largest(layers: Sequence[Any]) -> tuple[list[str], np.ndarray, int]:
    """Names of the largest layers in the model's order, the numbers of each, how many are left.

    Where some are left, the last row of numbers is theirs together, and has no name. In a deep
    model no ten layers are a large part of it: layers whose names differ in numbers only are then
    taken together, by the finest pattern for which the ten largest groups are most of the model.
    """
    best: tuple[list[str], np.ndarray, int] = [], np.zeros((0, len(_SERIES))), 0
    most = -1.0
    for pattern in _PATTERNS:
        groups = _grouped(layers, pattern)
        if best[0] and len(groups) < _FEWEST:
            break
        found = _top(groups)
        _, rows, left = found
        if not left:
            return found
        covered = float((1 - rows[-1] / np.maximum(rows.sum(axis=0), 1)).min())
        if covered > most:
            best, most = found, covered
        if covered >= _ENOUGH:
            break
    return best


def _grouped(layers: Sequence[Any], pattern: Callable[[str], str]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for layer in layers:
        name = clean(layer.name) or "(outside layers)"
        group = groups.setdefault(pattern(name), _Group(name, pattern(name)))
        group.count += 1
        group.numbers += [float(getattr(layer, series)) for series, *_ in _SERIES]
    return list(groups.values())


def _top(groups: Sequence[_Group]) -> tuple[list[str], np.ndarray, int]:
    numbers = np.array([group.numbers for group in groups]).reshape(-1, len(_SERIES))
    share = numbers / np.maximum(numbers.sum(axis=0), 1)
    order = np.argsort(-share.sum(axis=1), kind="stable")
    count = _MOST_LAYERS if len(order) > _MOST_LAYERS + 1 else len(order)
    kept, left = np.sort(order[:count]), order[count:]
    names = shorten_all([groups[i].label for i in kept], 34)
    rows = numbers[kept]
    if len(left):
        rows = np.vstack([rows, numbers[left].sum(axis=0)])
    return names, rows, sum(groups[i].count for i in left)


def _draw_layers(ax: Any, names: Sequence[str], numbers: np.ndarray, others: int) -> None:
    ax.set_title("where it goes")
    if not names:
        ax.text(0.5, 0.5, "no layers", ha="center", va="center", color=GREY)
        ax.set_axis_off()
        return
    totals = numbers.sum(axis=0)
    share = 100 * numbers / np.maximum(totals, 1)
    bars = share[: len(names)]
    thick = 0.8 / len(_SERIES)
    for i, (_, name, color, text) in enumerate(_SERIES):
        places = np.arange(len(bars)) + (i - 1) * thick
        label = f"{name}: {text(int(totals[i]))} in all"
        ax.barh(places, bars[:, i], height=thick, color=color, label=label)
        for place, value in zip(places, bars[:, i], strict=True):
            _write_share(ax, value, place)
    # Dollar signs in a name would start a formula.
    ticks = [clean(name).replace("$", r"\$") for name in names]
    if others:
        ticks.append(f"{others:,} other layers")
        _write_rest(ax, share[-1], len(bars))
    _set_scales(ax, ticks, bars.max())


def _write_share(ax: Any, value: float, place: float) -> None:
    if value >= 0.05:
        text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
        ax.text(value, place, f" {text}", va="center", fontsize=6.5, color="black")


def _write_rest(ax: Any, share: np.ndarray, place: int) -> None:
    """In words: the bars of all others together would press the single layers into nothing."""
    words = (f"{value:.0f}% of {name}" for value, name in zip(share, _SHORT, strict=True))
    text = f" together {', '.join(words)}"
    ax.text(0, place, text, va="center", fontsize="small", color=GREY)


def _set_scales(ax: Any, names: Sequence[str], longest: float) -> None:
    ax.set_yticks(range(len(names)), names)
    space = max(0.0, (4 - len(names)) / 2)  # a single layer must not fill the whole panel
    ax.set_ylim(len(names) - 0.5 + space, -0.5 - space)
    ax.set_xlim(0, 1.12 * max(longest, 5.0))
    ax.set_xlabel("share of the model, %")
    tidy(ax)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
