"""The CPU and the memory that this process may use: affinity and limits of containers count."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import PurePosixPath

from bigzoo.cost import _probe

# Instruction sets that decide how fast matrix products are: what the system calls them -> ours.
_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx_tile",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "neon": "neon",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}
# What `sysctl` and Windows call some of them.
_SYSCTL = {"hw.optional.avx2_0": "avx2", "hw.optional.avx512f": "avx512f"}
_SYSCTL |= {"hw.optional.arm64": "neon", "hw.optional.arm.FEAT_BF16": "bf16"}
_WINDOWS = {40: "avx2", 41: "avx512f", 19: "neon"}
# Limits above this are how version 1 of control groups writes "no limit".
_NO_LIMIT = 2**60


@dataclass(frozen=True)
class Processor:
    """The CPU as far as this process may use it."""

    name: str
    physical_cores: int | None
    logical_cores: int
    instructions: tuple[str, ...]
    quota_cores: float | None = None


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes, within the limit of the container; None where the system won't tell."""

    total_bytes: int | None
    available_bytes: int | None


def processor(system: str = sys.platform) -> Processor:
    """The CPU of this computer. `system` is as in `sys.platform`."""
    allowed = affinity()
    if system == "darwin":
        return _mac_processor(len(allowed))
    if system == "win32":
        name = _probe.variable("PROCESSOR_IDENTIFIER") or platform.processor()
        return Processor(name or "unknown", None, len(allowed), _windows_instructions())
    return _linux_processor(allowed)


def memory(system: str = sys.platform) -> Memory:
    """The memory of this computer. `system` is as in `sys.platform`."""
    if system == "darwin":
        return Memory(_whole(_sysctl("hw.memsize")), _mac_available())
    if system == "win32":
        return _windows_memory()
    return _linux_memory()


# --- Linux --------------------------------------------------------------------------------------


def affinity() -> frozenset[int]:
    """Numbers of the logical cores that this process may run on, whatever a quota says."""
    allowed = getattr(os, "sched_getaffinity", None)
    return frozenset(allowed(0)) if allowed else frozenset(range(os.cpu_count() or 1))


def _linux_processor(allowed: frozenset[int]) -> Processor:
    text = _probe.read_text("/proc/cpuinfo")
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text) if block.strip()]
    mine = [block for block in blocks if _whole(block.get("processor")) in allowed]
    first = (mine or blocks or [{}])[0]
    quota = cpu_quota()
    logical = len(allowed)
    physical = _physical_cores(mine)
    if quota is not None:
        # Three cores' worth of time on 64 cores is, to a thread pool, a machine of three.
        logical = min(logical, max(1, math.ceil(quota)))
        physical = None if physical is None else min(physical, logical)
    flags = f"{first.get('flags', '')} {first.get('Features', '')}".split()
    found = tuple(dict.fromkeys(_FLAGS[flag] for flag in flags if flag in _FLAGS))
    return Processor(_linux_name(first), physical, logical, found, quota)


def _linux_name(first: dict[str, str]) -> str:
    for key in ("model name", "Hardware", "Model", "cpu model", "cpu"):
        if first.get(key):
            return first[key]
    return platform.processor() or platform.machine() or "unknown"


def _physical_cores(blocks: list[dict[str, str]]) -> int | None:
    """Cores that are there in metal; None where the system doesn't tell, as on many Arm boards."""
    cores = {(block.get("physical id"), block.get("core id")) for block in blocks}
    return len(cores) if cores and not any(None in core for core in cores) else None


def cpu_quota() -> float | None:
    """Cores' worth of time that control groups (containers) allow; None for no limit."""
    quotas = []
    for folder, version in _groups("cpu"):
        if version == 2:
            quota, _, period = _probe.read_text(f"{folder}/cpu.max").strip().partition(" ")
        else:
            quota = _probe.read_text(f"{folder}/cpu.cfs_quota_us").strip()
            period = _probe.read_text(f"{folder}/cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None


def _linux_memory() -> Memory:
    fields = _fields(_probe.read_text("/proc/meminfo"))
    total = _kilobytes(fields.get("MemTotal"))
    free = _kilobytes(fields.get("MemAvailable"))
    for folder, version in _groups("memory"):
        names = ("memory.max", "memory.current")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit = _whole(_probe.read_text(f"{folder}/{names[0]}"))
        if limit is None or limit >= _NO_LIMIT:
            continue
        total = limit if total is None else min(total, limit)
        used = _whole(_probe.read_text(f"{folder}/{names[1]}"))
        if used is not None:
            # Files that were read count as used, but make room when memory is asked for.
            left = max(limit - used + _reclaimable(folder), 0)
            free = left if free is None else min(free, left)
    return Memory(total, free)


def _reclaimable(folder: str) -> int:
    """Bytes of cached files in a control group."""
    for line in _probe.read_text(f"{folder}/memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return _whole(value) or 0
    return 0


def _groups(controller: str) -> list[tuple[str, int]]:
    """(folder, version) of the control groups that this process is in, up to the root.

    A limit of any of them holds. In a container the path that the process sees is often that of the
    host, and the container's own group is the root: hence all folders on the way.
    """
    found: list[tuple[str, int]] = []
    for line in _probe.read_text("/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            root, version = "/sys/fs/cgroup", 2
        elif controller in names.split(","):
            root, version = f"/sys/fs/cgroup/{controller}", 1
        else:
            continue
        steps = PurePosixPath(path.lstrip("/"))
        folders = [
            root if str(step) == "." else f"{root}/{step}" for step in (steps, *steps.parents)
        ]
        found += [(folder, version) for folder in dict.fromkeys(folders)]
    return found


def _fields(text: str) -> dict[str, str]:
    """ "name : value" lines; the first of a name counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _kilobytes(text: str | None) -> int | None:
    number = _whole((text or "").removesuffix("kB"))
    return None if number is None else number * 1024


def _whole(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isdigit() else None


# --- macOS --------------------------------------------------------------------------------------


def _sysctl(name: str) -> str:
    status, output = _probe.run(("sysctl", "-n", name), timeout=5)
    return output.strip() if status == 0 else ""


def _mac_processor(logical: int) -> Processor:
    found = tuple(ours for name, ours in _SYSCTL.items() if _sysctl(name) == "1")
    name = _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"
    cores = _whole(_sysctl("hw.logicalcpu")) or logical
    return Processor(name, _whole(_sysctl("hw.physicalcpu")), cores, found)


def _mac_available() -> int | None:
    status, output = _probe.run(("vm_stat",), timeout=5)
    page = re.search(r"page size of (\d+) bytes", output)
    if status != 0 or page is None:
        return None
    pages = [
        int(count)
        for count in re.findall(r"Pages (?:free|inactive|speculative|purgeable):\s+(\d+)", output)
    ]
    return sum(pages) * int(page.group(1)) if pages else None


# --- Windows ------------------------------------------------------------------------------------


def _kernel32() -> object | None:
    """Windows' own library; None elsewhere."""
    library = getattr(ctypes, "windll", None)
    return getattr(library, "kernel32", None)


def _windows_instructions() -> tuple[str, ...]:
    present = getattr(_kernel32(), "IsProcessorFeaturePresent", None)
    return tuple(name for code, name in _WINDOWS.items() if present and present(code))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows' interface."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *(
            (name, ctypes.c_uint64)
            for name in ("total", "free", "page", "page_free", "own", "own_free", "extended")
        ),
    )


def _windows_memory() -> Memory:
    ask = getattr(_kernel32(), "GlobalMemoryStatusEx", None)
    status = _MemoryStatus()
    status.length = ctypes.sizeof(_MemoryStatus)
    if ask is None or not ask(ctypes.byref(status)):
        return Memory(None, None)
    return Memory(int(status.total), int(status.free))
