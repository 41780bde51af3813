"""What this program runs on: processor, memory, accelerators."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from typing import Any

import keras

from bigzoo._tables import Table
from bigzoo._units import NOTHING, bytes_text
from bigzoo.cost._accelerators import (
    DriverReport,
    Reported,
    backend_devices,
    catalogue_name,
    driver_report,
)
from bigzoo.cost._catalogue import CATALOGUE
from bigzoo.cost._device import Device
from bigzoo.cost._processor import memory, processor


@dataclass(frozen=True)
class Accelerator:
    """A GPU or TPU.

    Attributes:
        name: As the backend or the driver reports it.
        memory_bytes: None where nobody tells.
        device: The same in the catalogue; None if it isn't there, or isn't surely the same.
        usable: Whether the active Keras backend sees it. `bigzoo.cost.doctor` says why not.
    """

    name: str
    memory_bytes: int | None = None
    device: Device | None = None
    usable: bool = True


@dataclass(frozen=True)
class Machine:
    """The computer, as far as this process may use it.

    Attributes:
        platform: Operating system and processor architecture, such as "Linux x86_64".
        cpu: Name of the processor.
        physical_cores: Cores that this process may use; None where the system doesn't tell.
        logical_cores: The same, each hardware thread counted; limits of containers are respected.
        instructions: Those of avx2, avx512f, avx512_vnni, avx512_bf16, amx_tile, amx_bf16,
            amx_int8, neon, bf16, sve, sve2 that the processor has and the system shows.
        memory_bytes: Main memory, or the limit of the container; None if unknown.
        available_bytes: What of it can be had without swapping, now; None if unknown.
        backend: The active Keras backend.
        accelerators: GPUs and TPUs.
    """

    platform: str
    cpu: str
    physical_cores: int | None
    logical_cores: int
    instructions: tuple[str, ...]
    memory_bytes: int | None
    available_bytes: int | None
    backend: str
    accelerators: tuple[Accelerator, ...]

    def __str__(self) -> str:
        return Table(("", ""), tuple(_rows(self)), left=(0, 1), wrap=True).text()

    def _repr_html_(self) -> str:
        return Table(("", ""), tuple(_rows(self)), left=(0, 1), wrap=True).html()

    def to_dict(self) -> dict[str, Any]:
        """The machine as plain dicts, lists, numbers and strings, which JSON can hold."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["instructions"] = list(self.instructions)
        plain["accelerators"] = [_plain(one) for one in self.accelerators]
        return plain


def this_machine() -> Machine:
    """Processor, memory and accelerators of this computer, as far as this process may use them.

    Never fails: what the system doesn't tell is None. Works on Linux, macOS and Windows; limits of
    containers (cgroups) and the affinity of the process are respected on Linux. GPUs and TPUs are
    those that the active Keras backend lists, and those that NVIDIA's driver lists and the backend
    doesn't see.

    Returns:
        A `Machine`; it prints as a table.

    Example:
        >>> machine = bz.cost.hardware.this_machine()
        >>> machine.logical_cores >= 1
        True
    """
    backend = keras.backend.backend()
    return machine_of(backend, backend_devices(backend), driver_report())


def machine_of(backend: str, seen: tuple[Reported, ...], driver: DriverReport) -> Machine:
    """The machine, with what the backend sees and the driver says."""
    cpu, main = processor(), memory()
    return Machine(
        platform=f"{platform.system()} {platform.machine()}".strip(),
        cpu=cpu.name,
        physical_cores=cpu.physical_cores,
        logical_cores=cpu.logical_cores,
        instructions=cpu.instructions,
        memory_bytes=main.total_bytes,
        available_bytes=main.available_bytes,
        backend=backend,
        accelerators=merge(seen, driver),
    )


def merge(seen: tuple[Reported, ...], driver: DriverReport) -> tuple[Accelerator, ...]:
    """One list of what the backend sees and what the driver says, each device once.

    The driver's memory is preferred: backends report what they may allocate.
    """
    left = list(driver.devices)
    found = []
    for device in seen:
        twin = next((other for other in left if _same(other.name, device.name)), None)
        if twin is not None:
            left.remove(twin)
        bytes_ = twin.memory_bytes if twin and twin.memory_bytes else device.memory_bytes
        found.append(Accelerator(device.name, bytes_, _known(device.name)))
    hidden = [
        Accelerator(other.name, other.memory_bytes, _known(other.name), usable=False)
        for other in left
    ]
    return (*found, *hidden)


def _known(reported: str) -> Device | None:
    name = catalogue_name(reported)
    return None if name is None else CATALOGUE[name]


def _plain(one: Accelerator) -> dict[str, Any]:
    device = None if one.device is None else one.device.name
    return {
        "name": one.name,
        "memory_bytes": one.memory_bytes,
        "device": device,
        "usable": one.usable,
    }


def _same(one: str, other: str) -> bool:
    """Whether two names are of the same model: some leave out the maker."""
    first, second = (" ".join(name.lower().split()) for name in (one, other))
    return first == second or first.endswith(f" {second}") or second.endswith(f" {first}")


def _rows(machine: Machine) -> list[tuple[str, str]]:
    cores = f"{machine.logical_cores} logical cores to use"
    if machine.physical_cores is not None:
        cores += f", {machine.physical_cores} physical"
    memory_text = f"{_bytes(machine.memory_bytes)}, {_bytes(machine.available_bytes)} available"
    rows = [
        ("platform", machine.platform),
        ("cpu", f"{machine.cpu}; {cores}"),
        ("instructions", ", ".join(machine.instructions) or NOTHING),
        ("memory", memory_text),
        ("backend", machine.backend),
    ]
    gpus = [("accelerator", _accelerator(one)) for one in machine.accelerators]
    return rows + (gpus or [("accelerator", "none")])


def _accelerator(one: Accelerator) -> str:
    known = f", {one.device.name} in the catalogue" if one.device else ""
    hidden = "" if one.usable else "; the backend doesn't see it"
    return f"{one.name}, {_bytes(one.memory_bytes)}{known}{hidden}"


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else bytes_text(value)
