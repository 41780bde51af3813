"""GPUs and TPUs: what the active Keras backend sees, and what NVIDIA's driver says is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigzoo.cost import _probe

_MIB = 2**20
# What drivers and frameworks call a device, without the maker's name -> the catalogue's name. Only
# exact names: an "A10G" is no A10, a "4090 Laptop GPU" no 4090, a part of an H100 (MIG) no H100.
_NAMES: Mapping[str, str] = {
    "v100-sxm2-16gb": "v100-16",
    "v100-sxm2-32gb": "v100-32",
    "t4": "t4",
    "a10": "a10",
    "l4": "l4",
    "l40s": "l40s",
    "a100-sxm4-40gb": "a100-40",
    "a100-sxm4-80gb": "a100-80",
    "a100-pcie-40gb": "a100-pcie-40",
    "a100 80gb pcie": "a100-pcie-80",
    "h100 80gb hbm3": "h100-sxm",
    "h100 pcie": "h100-pcie",
    "h200": "h200",
    "b200": "b200",
    "rtx 3090": "rtx-3090",
    "rtx 4090": "rtx-4090",
    "rtx 5090": "rtx-5090",
    "mi300x": "mi300x",
    "mi300x oam": "mi300x",
    # JAX shows one core of a TPU v3 or a TPU7x as a device: half of the catalogue's chip.
    "tpu v4": "tpu-v4",
    "tpu v5 lite": "tpu-v5e",
    "tpu v5e": "tpu-v5e",
    "tpu v5": "tpu-v5p",
    "tpu v5p": "tpu-v5p",
    "tpu v6 lite": "tpu-v6e",
    "tpu v6e": "tpu-v6e",
}
_MAKERS = re.compile(r"^(nvidia|tesla|geforce|amd|radeon|instinct)\s+")


@dataclass(frozen=True)
class Reported:
    """A device by the name that somebody gives it."""

    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class DriverReport:
    """What `nvidia-smi` says.

    Attributes:
        status: "absent" (no such program), "failed" (it says why in `error`), or "ok".
        devices: The GPUs of this computer.
        driver: Version of the driver, "" if unknown.
        error: First line of what it complained about.
    """

    status: str
    devices: tuple[Reported, ...] = ()
    driver: str = ""
    error: str = ""


def catalogue_name(reported: str) -> str | None:
    """The catalogue's name of a device, None if it isn't there or isn't surely the same."""
    name = " ".join(reported.lower().split())
    while (shorter := _MAKERS.sub("", name)) != name:
        name = shorter
    return _NAMES.get(name)


def driver_report() -> DriverReport:
    """Ask `nvidia-smi`, which comes with NVIDIA's driver."""
    path = _probe.program("nvidia-smi")
    if path is None:
        return DriverReport("absent")
    query = "--query-gpu=name,memory.total,driver_version"
    status, output = _probe.run((path, query, "--format=csv,noheader,nounits"))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if status != 0:
        return DriverReport("failed", error=lines[0] if lines else f"exit status {status}")
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    rows = [row for row in rows if len(row) >= 3]
    devices = tuple(Reported(row[0], _mebibytes(row[1])) for row in rows)
    if not devices:
        return DriverReport("failed", error=lines[0] if lines else "no GPU was listed")
    return DriverReport("ok", devices, rows[0][2])


def backend_devices(backend: str) -> tuple[Reported, ...]:
    """Accelerators that a Keras backend sees. Never fails; a backend that is broken sees none."""
    listers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    if backend not in listers:
        return ()
    try:
        return listers[backend]()
    except Exception:  # drivers raise whatever they like, and a list must not end a program
        return ()


def _tensorflow() -> tuple[Reported, ...]:
    import tensorflow as tf

    # Listing doesn't start the GPUs; their memory can't be asked for without that.
    found = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    return tuple(Reported(_tensorflow_name(tf, device)) for device in found)


def _tensorflow_name(tf: Any, device: Any) -> str:
    details = {}
    if device.device_type == "GPU":
        details = tf.config.experimental.get_device_details(device)
    return str(details.get("device_name") or device.name.removeprefix("/physical_device:"))


def _jax() -> tuple[Reported, ...]:
    import jax

    found = [device for device in jax.local_devices() if device.platform != "cpu"]
    return tuple(Reported(str(device.device_kind), _jax_memory(device)) for device in found)


def _jax_memory(device: Any) -> int | None:
    # What JAX may use, which is less than what is there; the driver's figure is better if known.
    try:
        stats = device.memory_stats() or {}
    except Exception:  # not every platform has them
        return None
    limit = stats.get("bytes_limit")
    return int(limit) if limit else None


def _torch() -> tuple[Reported, ...]:
    import torch

    if torch.cuda.is_available():
        every = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return tuple(Reported(one.name, int(one.total_memory)) for one in every)
    if torch.backends.mps.is_available():
        return (Reported("Apple GPU (MPS)"),)
    return ()


def _mebibytes(text: str) -> int | None:
    return int(text) * _MIB if text.isdigit() else None
