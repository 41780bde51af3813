"""`Figure` and `Device`: a piece of hardware as data, each figure with its source and its date."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bigzoo._errors import message
from bigzoo._tables import Table
from bigzoo._units import bandwidth_text, bytes_text, rate_text

# Dtypes that a peak can be given for. "tfloat32" is NVIDIA's TF32: float32 values, multiplied with
# a 10-bit mantissa.
DTYPES = ("float64", "float32", "tfloat32", "float16", "bfloat16", "float8", "int8")
KINDS = ("gpu", "tpu", "cpu", "accelerator")
# Names that Keras and the frameworks use -> ours.
_SAME_DTYPE = {
    "float8_e4m3fn": "float8",
    "float8_e5m2": "float8",
    "uint8": "int8",
    "mixed_bfloat16": "bfloat16",
    "mixed_float16": "float16",
}


@dataclass(frozen=True)
class Figure:
    """A number, where it was read, and when.

    Attributes:
        value: In the unit of the field that holds it.
        source: Address or name of the document.
        date: Of the document, where it has one; otherwise when it was read: "2024-10", "2020".
        note: What one must know to compare it with others.
    """

    value: float
    source: str
    date: str
    note: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(
                f"A figure is {self.value}; expected above 0. Leave out what isn't known."
            )
        if not (self.source.strip() and self.date.strip()):
            raise ValueError(f"The figure {self.value:g} has no source or no date; give both.")


@dataclass(frozen=True)
class Source:
    """A document that figures are read from: its address or name, and its date."""

    name: str
    date: str

    def figure(self, value: float, note: str = "") -> Figure:
        """One number of the document, in the unit of the field that will hold it."""
        return Figure(value, self.name, self.date, note)

    def tera(self, values: Mapping[str, float], note: str = "") -> dict[str, Figure]:
        """Peaks by dtype, given in TFLOP/s."""
        # Through the decimal text: 494.7 * 1e12 would be 494700000000000.06.
        return {dtype: self.figure(float(f"{peak}e12"), note) for dtype, peak in values.items()}


@dataclass(frozen=True)
class Device:
    """A processor that models run on.

    Attributes:
        name: As `get` takes it, such as "h100-sxm".
        title: As its maker calls it.
        vendor: Its maker.
        kind: "gpu", "tpu", "cpu" or "accelerator".
        flops: Dtype -> dense peak in FLOP/s, two per multiply-add; a dtype that isn't there is
            unknown or not supported. Figures for sparse matrices are never given.
        memory_bytes: Of the device's own memory.
        bandwidth_bytes_per_second: Of that memory.
        power_watts: What the maker rates the device at.
        interconnect_bytes_per_second: To other devices, all links and both directions together.
    """

    name: str
    title: str
    vendor: str
    kind: str
    flops: Mapping[str, Figure] = field(default_factory=dict)
    memory_bytes: Figure | None = None
    bandwidth_bytes_per_second: Figure | None = None
    power_watts: Figure | None = None
    interconnect_bytes_per_second: Figure | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(message("kind", self.kind, "one of " + ", ".join(KINDS)))
        for dtype in self.flops:
            if dtype not in DTYPES:
                raise ValueError(message("flops", dtype, "dtypes among " + ", ".join(DTYPES)))
        # A frozen device must not change through its table either.
        object.__setattr__(self, "flops", MappingProxyType(dict(self.flops)))

    def peak(self, dtype: str) -> float | None:
        """Dense peak in FLOP/s for this dtype; None if it isn't known.

        Args:
            dtype: As Keras names it, such as "float32", "bfloat16" or "mixed_bfloat16". "tfloat32"
                is float32 through NVIDIA's tensor cores, which TensorFlow uses unless told
                otherwise.
        """
        figure = self.flops.get(_SAME_DTYPE.get(dtype, dtype))
        return None if figure is None else figure.value

    def __str__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        rows = [_row(dtype, figure, rate_text) for dtype, figure in self.flops.items()]
        others = (
            ("memory", self.memory_bytes, bytes_text),
            ("bandwidth", self.bandwidth_bytes_per_second, bandwidth_text),
            ("power", self.power_watts, lambda watts: f"{watts:g} W"),
            ("interconnect", self.interconnect_bytes_per_second, bandwidth_text),
        )
        rows += [_row(name, figure, text) for name, figure, text in others]
        title = f"{self.vendor} {self.title} ({self.name!r}); dense peaks"
        return Table(("", "", "source"), tuple(rows), title, left=(0, 1, 2), wrap=True)


def _row(name: str, figure: Figure | None, text: Callable[[float], str]) -> tuple[str, str, str]:
    if figure is None:
        return name, "unknown", ""
    note = f"; {figure.note}" if figure.note else ""
    return name, text(figure.value), f"{figure.source}, {figure.date}{note}"


def index(devices: Iterable[Device]) -> dict[str, Device]:
    """Devices by name; a name that is there twice is an error."""
    table: dict[str, Device] = {}
    for device in devices:
        if device.name in table:
            raise ValueError(f"The device {device.name!r} is listed twice. Rename one of them.")
        table[device.name] = device
    return table
