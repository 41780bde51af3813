"""Energy counters of this machine: NVIDIA's through NVML, processors' through RAPL.

Both only ever count up, so that the energy of a time is a difference of two readings, and reading
them costs nothing. RAPL's start again at 0 after some 10 to 60 minutes: whoever adds them up must
look more often than that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigzoo._errors import shorten
from bigzoo._optional import require

POWERCAP = Path("/sys/class/powercap")
# NVIDIA gives its power readings as within 5%, for Fermi and Kepler; nothing for newer ones.
# https://docs.nvidia.com/deploy/nvml-api, nvmlDeviceGetPowerUsage
_GPU_ERROR = 0.05
_GPU_NOTE = (
    "NVIDIA states the error of older GPUs' sensors as 5%, of newer ones nothing; those of A100 "
    "and H100 look at a quarter of the time only (https://arxiv.org/abs/2312.02741)"
)
_CPU_NOTE = "RAPL counts whole processors, with all that runs on them; its error isn't published"


@dataclass(frozen=True)
class Counter:
    """One counter.

    Attributes:
        name: What it counts, such as "GPU 0 (NVIDIA L4)".
        kind: "gpu" or "cpu".
        read: Its present value, in units of `joules`.
        joules: Per unit.
        wraps_at: It starts again at 0 after this many units; None if it never does.
        error: Of the reading, as a part of it, as its maker states it; 0 where nothing is stated.
        note: What one must know about it.
    """

    name: str
    kind: str
    read: Callable[[], int]
    joules: float
    wraps_at: int | None = None
    error: float = 0.0
    note: str = ""


@dataclass
class Found:
    """Counters that can be read, and why there are no others."""

    counters: list[Counter] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


class Adder:
    """Adds up what counters count, from the moment that it is made.

    Args:
        counters: What to read.
        seconds: Between two looks at the counters, by a thread of its own; 0 for no thread.
    """

    def __init__(self, counters: Sequence[Counter], seconds: float = 10.0) -> None:
        self._counters = list(counters)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.joules = dict.fromkeys((counter.name for counter in counters), 0.0)
        self.problems: list[str] = []
        self._last: dict[str, int] = {}
        self.look()
        if seconds and self._counters:
            threading.Thread(target=self._watch, args=(seconds,), daemon=True).start()

    def look(self) -> dict[str, float]:
        """Joules of each counter since the beginning."""
        with self._lock:
            for counter in list(self._counters):
                self._add(counter)
            return dict(self.joules)

    def stop(self) -> None:
        """End the thread; no more is counted."""
        self._done.set()

    def _watch(self, seconds: float) -> None:
        while not self._done.wait(seconds):
            self.look()

    def _add(self, counter: Counter) -> None:
        try:
            value = counter.read()
        except Exception as error:  # a GPU that fell off the bus, a file that is gone
            self._give_up(counter, f"couldn't be read any more: {shorten(error)}")
            return
        passed = value - self._last.get(counter.name, value)
        self._last[counter.name] = value
        if passed < 0 and counter.wraps_at is None:
            self._give_up(counter, "went backwards: its driver was loaded anew")
            return
        passed += (counter.wraps_at or 0) if passed < 0 else 0
        self.joules[counter.name] += passed * counter.joules

    def _give_up(self, counter: Counter, why: str) -> None:
        self._counters.remove(counter)
        self.joules.pop(counter.name, None)
        self.problems.append(f"{counter.name} {why}")


def find_counters(use_gpu: bool, powercap: Path = POWERCAP) -> Found:
    """The counters of this machine that this process may read.

    Args:
        use_gpu: Whether the model runs on GPUs; counters of idle ones would say nothing.
        powercap: Where Linux shows RAPL.
    """
    found = Found()
    if use_gpu:
        _add_gpus(found)
    _add_processors(found, powercap)
    return found


# === NVIDIA ===


def _add_gpus(found: Found) -> None:
    try:
        nvml: Any = require("pynvml", "nvidia-ml-py", "The energy of NVIDIA's GPUs")
        nvml.nvmlInit()
    except Exception as error:  # no package, no driver, or a driver of another version
        found.reasons.append(f"GPU: {shorten(error)}")
        return
    found.close = nvml.nvmlShutdown
    for handle in _handles(nvml, found):
        try:
            index, title = nvml.nvmlDeviceGetIndex(handle), nvml.nvmlDeviceGetName(handle)
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError as error:
            found.reasons.append(f"GPU: no energy counter: {shorten(error)} (older than Volta?)")
            continue
        title = title.decode() if isinstance(title, bytes) else title
        found.counters.append(
            Counter(
                name=f"GPU {index} ({title})",
                kind="gpu",
                read=_gpu_reader(nvml, handle),
                joules=1e-3,
                error=_GPU_ERROR,
                note=_GPU_NOTE,
            )
        )


def _gpu_reader(nvml: Any, handle: Any) -> Callable[[], int]:
    return lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _handles(nvml: Any, found: Found) -> list[Any]:
    """Those of the GPUs that CUDA_VISIBLE_DEVICES lets this process see."""
    wanted = visible_devices(os.environ)
    if wanted is None:
        wanted = [str(i) for i in range(nvml.nvmlDeviceGetCount())]
    elif len(wanted) < nvml.nvmlDeviceGetCount() and any(name.isdigit() for name in wanted):
        found.reasons.append(
            "GPU: numbers in CUDA_VISIBLE_DEVICES are taken in the order of nvidia-smi; set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID if the GPUs are of several kinds"
        )
    handles = []
    for name in wanted:
        try:
            by_index = name.isdigit()
            get = nvml.nvmlDeviceGetHandleByIndex if by_index else nvml.nvmlDeviceGetHandleByUUID
            handles.append(get(int(name) if by_index else name))
        except nvml.NVMLError as error:
            found.reasons.append(f"GPU {name}: {shorten(error)}")
    return handles


def visible_devices(environ: Mapping[str, str]) -> list[str] | None:
    """Numbers or UUIDs that CUDA_VISIBLE_DEVICES names; None if it isn't set."""
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        # CUDA ignores what follows a name that it doesn't know, such as -1.
        if not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
            break
        names.append(name)
    return names


# === RAPL ===


def _add_processors(found: Found, powercap: Path) -> None:
    zones = [zone for zone in _zones(powercap) if _is_counted(zone)]
    if not zones:
        found.reasons.append(
            "processor: no RAPL counters (Linux on Intel and AMD has them; virtual machines don't)"
        )
    for zone in zones:
        path = zone / "energy_uj"
        try:
            int(path.read_text())
            limit = int((zone / "max_energy_range_uj").read_text())
        except PermissionError:
            # Readable by root only since 2020: the counters can betray secrets (CVE-2020-8694).
            fix = f"an administrator can allow it: chmod a+r {path}"
            found.reasons.append(f"processor: {path} may be read by root only; {fix}")
        except (OSError, ValueError) as error:
            found.reasons.append(f"processor: {path} can't be read: {shorten(error)}")
        else:
            name = f"{_name(zone)} of {zone.parent.name}" if _depth(zone) == 2 else _name(zone)
            read = _file_reader(path)
            found.counters.append(Counter(name, "cpu", read, 1e-6, limit, note=_CPU_NOTE))


def _file_reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def _zones(powercap: Path) -> list[Path]:
    """Packages, and the zones in them. In sysfs both levels also lie side by side, as links."""
    packages = sorted(zone for zone in powercap.glob("intel-rapl:*") if _depth(zone) == 1)
    inner = [sorted(zone for zone in package.glob("intel-rapl:*")) for package in packages]
    return [*packages, *(zone for zones in inner for zone in zones)]


def _depth(zone: Path) -> int:
    return zone.name.count(":")


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _is_counted(zone: Path) -> bool:
    """Packages and memory. "core" is in the package, and "psys" holds the packages."""
    name = _name(zone)
    return name.startswith("package") if _depth(zone) == 1 else name == "dram"
