"""A catalogue of hardware as data, each figure with its source and date; and this machine's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bigzoo._errors import check_choice, no_attribute
from bigzoo._tables import Table
from bigzoo._units import NOTHING, bytes_text
from bigzoo.cost._catalogue import CATALOGUE, get
from bigzoo.cost._device import KINDS, Device, Figure
from bigzoo.cost._machine import Accelerator, Machine, this_machine

__all__ = [
    "Accelerator",
    "Device",
    "DeviceTable",
    "Figure",
    "Machine",
    "get",
    "list_devices",
    "this_machine",
]

_HEADER = ("name", "device", "float32", "tf32", "16 bit", "memory", "GB/s", "W")
_TITLE = "Peaks for dense matrices in TFLOP/s, as their makers give them; no model reaches them"


class DeviceTable(Sequence[Device]):
    """Devices of the catalogue. A sequence that prints as a table, also in a notebook."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = tuple(devices)

    def __len__(self) -> int:
        return len(self._devices)

    def __getitem__(self, index: Any) -> Any:
        """The device at a position or with a name; a table for a slice."""
        if isinstance(index, slice):
            return DeviceTable(self._devices[index])
        if isinstance(index, str):
            return self._devices[self.names.index(check_choice("name", index, self.names))]
        return self._devices[index]

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the devices, in the table's order."""
        return tuple(device.name for device in self._devices)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        return Table(_HEADER, tuple(map(_row, self._devices)), _TITLE, left=(0, 1))


def list_devices(kind: str | None = None) -> DeviceTable:
    """The devices of the catalogue.

    Args:
        kind: Only "gpu", "tpu", "accelerator" or "cpu"; None for all. CPUs are there by name only:
            measure their speed with `bigzoo.cost.calibrate`.

    Returns:
        A table that prints itself; iterate over it, or index it by position or name. "16 bit" is
        bfloat16, or float16 where there is no bfloat16.

    Raises:
        ValueError: if `kind` is unknown.

    Example:
        >>> bz.cost.hardware.list_devices("tpu").names
        ('tpu-v3', 'tpu-v4', 'tpu-v5e', 'tpu-v5p', 'tpu-v6e', 'tpu7x')
    """
    devices = list(CATALOGUE.values())
    if kind is not None:
        kind = check_choice("kind", kind, KINDS)
        devices = [device for device in devices if device.kind == kind]
    return DeviceTable(devices)


def _row(device: Device) -> tuple[str, ...]:
    half = device.flops.get("bfloat16") or device.flops.get("float16")
    return (
        device.name,
        device.title,
        _text(device.flops.get("float32"), 1e12),
        _text(device.flops.get("tfloat32"), 1e12),
        _text(half, 1e12),
        NOTHING if device.memory_bytes is None else bytes_text(device.memory_bytes.value),
        _text(device.bandwidth_bytes_per_second, 1e9),
        _text(device.power_watts, 1),
    )


def _text(figure: Figure | None, unit: float) -> str:
    return NOTHING if figure is None else f"{figure.value / unit:,.5g}"


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
