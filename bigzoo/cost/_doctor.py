"""`doctor`: what is installed, what the backend sees, how fast it is, and what is in the way."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from bigzoo._tables import Table, html_paragraph, paragraph
from bigzoo._units import bytes_text, rate_text
from bigzoo._version import __version__
from bigzoo.cost import _probe
from bigzoo.cost._accelerators import Reported, backend_devices, driver_report
from bigzoo.cost._doctor_gpu import Finding, gather, gpu_findings
from bigzoo.cost._machine import Machine, machine_of
from bigzoo.cost._matmul_speed import matmul_rates
from bigzoo.cost._processor import affinity, cpu_quota

_BACKENDS = ("tensorflow", "jax", "torch")
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_GIB = 2**30
# Less than this is soon full: one checkpoint of BERT-base with its optimizer is 1.3 GB.
_LITTLE_DISK = 2 * _GIB
_LITTLE_MEMORY = _GIB
_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Attributes:
        versions: Package -> version, None for those that aren't installed.
        backend: The active Keras backend.
        machine: Processor, memory, accelerators.
        matmul_flops_per_second: Dtype -> best of a few products of matrices; None where the
            backend can't. "float32" is what the backend makes of it: TensorFlow and JAX use TF32
            or bfloat16 for it on some GPUs and on TPUs.
        keras_home: Where Keras keeps its settings and downloads.
        disk_free_bytes: Room there; None if unknown.
        findings: What was looked at, problems first.
    """

    versions: Mapping[str, str | None]
    backend: str
    machine: Machine
    matmul_flops_per_second: Mapping[str, float | None]
    keras_home: str
    disk_free_bytes: int | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return all(finding.kind != "problem" for finding in self.findings)

    def __str__(self) -> str:
        parts = [self._table().text(), str(self.machine)]
        for finding in self.findings:
            parts.append("")
            parts.append(paragraph(f"[{_MARKS[finding.kind]}] {finding.seen}: {finding.means}."))
            # A command must stay in one line to be copied.
            parts += [f"    {finding.command}"] if finding.command else []
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        parts = [self._table().html(), self.machine._repr_html_()]
        for finding in self.findings:
            text = f"[{_MARKS[finding.kind]}] {finding.seen}: {finding.means}."
            parts.append(html_paragraph(text, bold=finding.kind == "problem"))
            parts += [html_paragraph(finding.command)] if finding.command else []
        return f"<div>{''.join(parts)}</div>"

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain dicts, lists, numbers and strings, which JSON can hold."""
        return {
            "ok": self.ok,
            "versions": dict(self.versions),
            "backend": self.backend,
            "machine": self.machine.to_dict(),
            "matmul_flops_per_second": dict(self.matmul_flops_per_second),
            "keras_home": self.keras_home,
            "disk_free_bytes": self.disk_free_bytes,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def _table(self) -> Table:
        installed = [f"{name} {version}" for name, version in self.versions.items() if version]
        absent = [name for name, version in self.versions.items() if not version]
        rates = [
            f"{dtype} {'not possible' if rate is None else rate_text(rate)}"
            for dtype, rate in self.matmul_flops_per_second.items()
        ]
        free = "unknown" if self.disk_free_bytes is None else bytes_text(self.disk_free_bytes)
        rows = [("installed", ", ".join(installed))]
        rows += [("not installed", ", ".join(absent))] if absent else []
        rows += [
            ("matrices", f"{', '.join(rates)} (a short look)"),
            ("disk", f"{free} free at {self.keras_home}"),
        ]
        return Table(("", ""), tuple(rows), left=(0, 1), wrap=True)


def doctor() -> Diagnosis:
    """Look at this computer: versions, devices, why a GPU isn't used, speed, memory, traps.

    Takes about two seconds, changes nothing, and doesn't fail where something is broken: that is
    what it is for. On the command line: `python -m bigzoo doctor`.

    Returns:
        A `Diagnosis`: `print` it. Its `findings` say what was seen, what it means, and the command
        that mends it.

    Example:
        >>> diagnosis = bz.cost.doctor()
        >>> diagnosis.versions["keras"] == keras.version()
        True
    """
    backend = keras.backend.backend()
    seen, driver = backend_devices(backend), driver_report()
    machine = machine_of(backend, seen, driver)
    home, free = _disk()
    findings = [
        *gpu_findings(gather(backend, seen, driver)),
        *_hidden_gpus(seen, len(driver.devices)),
        *_threads(len(affinity()), cpu_quota()),
        *_room(home, free, machine.available_bytes),
    ]
    order = ("problem", "note", "ok")
    return Diagnosis(
        versions=_versions(),
        backend=backend,
        machine=machine,
        matmul_flops_per_second=matmul_rates(largest=4096 if seen else 2048),
        keras_home=str(home),
        disk_free_bytes=free,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
    )


def _versions() -> dict[str, str | None]:
    packages = ("keras", *_BACKENDS, "jaxlib", "numpy")
    own = {"python": platform.python_version(), "bigzoo": __version__}
    return {**own, **{name: _probe.version(name) for name in packages}}


def _disk() -> tuple[Path, int | None]:
    home = Path(_probe.variable("KERAS_HOME") or Path.home() / ".keras").expanduser()
    there = next((folder for folder in (home, *home.parents) if folder.is_dir()), None)
    try:
        return home, None if there is None else shutil.disk_usage(there).free
    except OSError:
        return home, None


def _hidden_gpus(seen: tuple[Reported, ...], total: int) -> list[Finding]:
    """Some GPUs hidden by CUDA_VISIBLE_DEVICES; all of them is `gpu_findings`' business."""
    value = _probe.variable("CUDA_VISIBLE_DEVICES")
    if value is None or not seen or len(seen) >= total:
        return []
    shown = f"CUDA_VISIBLE_DEVICES={value!r} shows {len(seen)} of {total} GPUs"
    wrong = [part for part in value.split(",") if part.strip().isdigit() and int(part) >= total]
    if wrong:
        means = f"there is no GPU {wrong[0].strip()}, and what follows it in the list is hidden too"
        return [Finding("problem", shown, means, "unset CUDA_VISIBLE_DEVICES")]
    return [Finding("note", shown, "the others stay idle", "unset CUDA_VISIBLE_DEVICES")]


def _threads(cores: int, quota: float | None) -> list[Finding]:
    """Thread counts that don't fit the cores that this process may use."""
    usable = cores if quota is None else max(1, min(cores, round(quota)))
    found = [_thread_finding(name, usable) for name in _THREADS]
    if quota is not None and quota < 0.75 * cores and not _probe.variable("TF_NUM_INTRAOP_THREADS"):
        seen = f"the container may use the time of {quota:g} cores, and shows {cores}"
        means = "backends start a thread per core and wait for each other"
        found.append(Finding("note", seen, means, f"export TF_NUM_INTRAOP_THREADS={usable}"))
    return [finding for finding in found if finding is not None]


def _thread_finding(name: str, usable: int) -> Finding | None:
    value = (_probe.variable(name) or "").strip()
    if not value:
        return None
    seen = f"{name}={value}"
    if not value.isdigit():
        return Finding("problem", seen, "that is no number of threads", f"unset {name}")
    if int(value) > usable:
        means = (
            f"more threads than the {usable} cores of this process: they get in each other's way"
        )
        return Finding("problem", seen, means, f"export {name}={usable}")
    if 0 < int(value) < usable:
        means = f"the other {usable - int(value)} of {usable} cores stay idle"
        return Finding("note", seen, means, f"unset {name}")
    return None


def _room(home: Path, free: int | None, memory: int | None) -> list[Finding]:
    found = []
    if free is not None and free < _LITTLE_DISK:
        means = "weights and checkpoints will soon not fit; another folder can be given"
        seen = f"{bytes_text(free)} free on the disk of {home}"
        found.append(Finding("problem", seen, means, "export KERAS_HOME=/a/larger/disk/keras"))
    if home.is_dir() and not os.access(home, os.W_OK):
        means = "Keras can't keep downloads there"
        found.append(
            Finding("problem", f"{home} can't be written to", means, "export KERAS_HOME=...")
        )
    if memory is not None and memory < _LITTLE_MEMORY:
        seen = f"{bytes_text(memory)} of memory available"
        found.append(Finding("problem", seen, "training will run out of it: end other programs"))
    return found
