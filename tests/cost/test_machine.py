"""`this_machine` on computers that aren't there: limits of containers, Arm, macOS, no driver."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from bigzoo.cost import _accelerators, _machine, _probe, _processor, hardware
from bigzoo.cost._accelerators import DriverReport, Reported, catalogue_name, driver_report

GIB = 2**30
X86 = "processor : {n}\nmodel name : Xeon\nphysical id : {s}\ncore id : {c}\nflags : fpu {f}\n"
ARM = "processor : {n}\nBogoMIPS : 50.00\nFeatures : fp asimd bf16 sve\n"


def cpuinfo(cores: int, threads: int = 1, flags: str = "avx2 avx512f amx_bf16") -> str:
    blocks = [X86.format(n=i, s=0, c=i % cores, f=flags) for i in range(cores * threads)]
    return "\n".join(blocks)


@pytest.fixture
def linux(world, monkeypatch):
    """A Linux computer with 8 cores of 2 threads, 64 GiB, no limits."""
    world.files["/proc/cpuinfo"] = cpuinfo(8, 2)
    world.files["/proc/meminfo"] = "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n"
    world.files["/proc/self/cgroup"] = "0::/\n"
    monkeypatch.setattr(_processor, "affinity", lambda: frozenset(range(16)))
    return world


# === Processor ===


def test_linux_without_limits(linux):
    found = _processor.processor("linux")
    assert (found.name, found.physical_cores, found.logical_cores) == ("Xeon", 8, 16)
    assert found.instructions == ("avx2", "avx512f", "amx_bf16")
    assert found.quota_cores is None


def test_affinity_counts(linux, monkeypatch):
    monkeypatch.setattr(_processor, "affinity", lambda: frozenset({0, 1, 8}))
    found = _processor.processor("linux")
    assert (found.physical_cores, found.logical_cores) == (2, 3)  # 8 is 0's second thread


@pytest.mark.parametrize(
    ("group", "files", "quota", "cores"),
    [
        ("0::/", {"/sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5, 3),
        ("0::/", {"/sys/fs/cgroup/cpu.max": "max 100000\n"}, None, 16),
        ("0::/", {"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, 1),
        # The limit of a group above holds as well, and the least of them.
        (
            "0::/a/b",
            {
                "/sys/fs/cgroup/a/b/cpu.max": "800000 100000",
                "/sys/fs/cgroup/a/cpu.max": "400000 100000",
                "/sys/fs/cgroup/cpu.max": "max 100000",
            },
            4.0,
            4,
        ),
        # In a container the path may be the host's: only the root is there.
        ("0::/kubepods/pod7", {"/sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0, 2),
        # Version 1.
        (
            "4:cpu,cpuacct:/docker/x",
            {
                "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
            },
            3.0,
            3,
        ),
        (
            "4:cpu:/",
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
            16,
        ),
        ("nonsense", {}, None, 16),
    ],
)
def test_cpu_quota_of_a_container(linux, group, files, quota, cores):
    linux.files["/proc/self/cgroup"] = f"{group}\n"
    linux.files.update(files)
    found = _processor.processor("linux")
    assert found.quota_cores == quota
    assert found.logical_cores == cores
    assert found.physical_cores == min(8, cores)


def test_arm_shows_no_physical_cores(linux):
    linux.files["/proc/cpuinfo"] = "\n".join(ARM.format(n=i) for i in range(4))
    found = _processor.processor("linux")
    assert found.instructions == ("neon", "bf16", "sve")
    assert found.physical_cores is None
    assert found.name


def test_mac(world):
    world.programs = {
        "sysctl -n machdep.cpu.brand_string": (0, "Apple M3 Max\n"),
        "sysctl -n hw.physicalcpu": (0, "16\n"),
        "sysctl -n hw.logicalcpu": (0, "16\n"),
        "sysctl -n hw.optional.arm64": (0, "1\n"),
        "sysctl -n hw.optional.avx2_0": (1, "unknown oid\n"),
        "sysctl -n hw.memsize": (0, f"{64 * GIB}\n"),
        "vm_stat": (
            0,
            "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
            "Pages free: 1000.\nPages active: 5000.\nPages inactive: 2000.\n",
        ),
    }
    found = _processor.processor("darwin")
    assert (found.name, found.physical_cores, found.logical_cores) == ("Apple M3 Max", 16, 16)
    assert found.instructions == ("neon",)
    assert _processor.memory("darwin") == _processor.Memory(64 * GIB, 3000 * 16384)


def test_windows_interface_is_asked(world, monkeypatch):
    class Kernel:
        def IsProcessorFeaturePresent(self, code):
            return code == 40

        def GlobalMemoryStatusEx(self, status):
            status._obj.total, status._obj.free = 16 * GIB, 9 * GIB
            return 1

    world.variables["PROCESSOR_IDENTIFIER"] = "Intel64 Family 6"
    monkeypatch.setattr(_processor, "_kernel32", Kernel)
    assert _processor.processor("win32").instructions == ("avx2",)
    assert _processor.processor("win32").name == "Intel64 Family 6"
    assert _processor.memory("win32") == _processor.Memory(16 * GIB, 9 * GIB)


@pytest.mark.parametrize("system", ["linux", "darwin", "win32", "sunos5"])
def test_a_system_that_tells_nothing(world, system):
    found, main = _processor.processor(system), _processor.memory(system)
    assert found.logical_cores >= 1
    assert found.physical_cores is None
    assert found.instructions == ()
    assert main == _processor.Memory(None, None)


# === Memory ===


@pytest.mark.parametrize(
    ("group", "files", "total", "free"),
    [
        ("0::/", {}, 64, 32),
        ("0::/", {"/sys/fs/cgroup/memory.max": "max"}, 64, 32),
        (
            "0::/",
            {
                "/sys/fs/cgroup/memory.max": str(16 * GIB),
                "/sys/fs/cgroup/memory.current": str(6 * GIB),
            },
            16,
            10,
        ),
        # Cached files make room.
        (
            "0::/",
            {
                "/sys/fs/cgroup/memory.max": str(16 * GIB),
                "/sys/fs/cgroup/memory.current": str(6 * GIB),
                "/sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
            },
            16,
            12,
        ),
        # More than the host has free can't be had, whatever the limit is.
        (
            "0::/",
            {
                "/sys/fs/cgroup/memory.max": str(60 * GIB),
                "/sys/fs/cgroup/memory.current": str(GIB),
            },
            60,
            32,
        ),
        (
            "9:memory:/docker/x",
            {
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": str(4 * GIB),
                "/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": str(GIB),
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            4,
            3,
        ),
    ],
)
def test_memory_within_the_limit(linux, group, files, total, free):
    linux.files["/proc/self/cgroup"] = f"{group}\n"
    linux.files.update(files)
    assert _processor.memory("linux") == _processor.Memory(total * GIB, free * GIB)


# === Accelerators ===


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"),
        ("TPU v5 lite", "tpu-v5e"),
        ("TPU v6 lite", "tpu-v6e"),
        # Near, but not the same.
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Tesla V100-PCIE-32GB", None),
        ("TPU v3", None),
        ("GPU:0", None),
        ("", None),
    ],
)
def test_reported_names_are_matched_exactly(reported, name):
    assert catalogue_name(reported) == name


def test_every_name_leads_into_the_catalogue():
    for name in _accelerators._NAMES.values():
        assert hardware.get(name)


def test_the_driver_is_asked(world):
    world.programs["nvidia-smi"] = (0, "NVIDIA L4, 23034, 550.54.15\nNVIDIA L4, 23034, 550.54.15\n")
    found = driver_report()
    assert found.status == "ok"
    assert found.driver == "550.54.15"
    assert found.devices == (Reported("NVIDIA L4", 23034 * 2**20),) * 2


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (None, "absent", ""),
        ((9, "NVIDIA-SMI has failed because ...\nmore\n"), "failed", "NVIDIA-SMI has failed"),
        ((127, ""), "failed", "exit status 127"),
        ((0, ""), "failed", "no GPU was listed"),
        ((0, "No devices were found\n"), "failed", "No devices were found"),
        ((0, "NVIDIA GB10, [N/A], 580.1\n"), "ok", ""),
    ],
)
def test_a_driver_that_fails(world, answer, status, error):
    if answer:
        world.programs["nvidia-smi"] = answer
    found = driver_report()
    assert found.status == status
    assert found.error.startswith(error)
    assert all(device.memory_bytes is None for device in found.devices)


def test_backend_and_driver_are_merged():
    """A device that both show is there once; one that only the driver shows isn't usable."""
    driver = DriverReport("ok", (Reported("NVIDIA L4", 24 * GIB), Reported("NVIDIA L4", 24 * GIB)))
    one, other = _machine.merge((Reported("NVIDIA L4", 20 * GIB),), driver)
    assert (one.memory_bytes, one.usable, one.device.name) == (24 * GIB, True, "l4")
    assert (other.usable, other.device.name) == (False, "l4")
    (tpu,) = _machine.merge((Reported("TPU v4"),), DriverReport("absent"))
    assert (tpu.memory_bytes, tpu.usable, tpu.device.name) == (None, True, "tpu-v4")


def test_a_broken_backend_sees_nothing(monkeypatch):
    def broken():
        raise RuntimeError("CUDA_ERROR_NO_DEVICE")

    monkeypatch.setattr(_accelerators, "_jax", broken)
    assert _accelerators.backend_devices("jax") == ()
    assert _accelerators.backend_devices("openvino") == ()


# === All of it ===


def test_this_machine_is_consistent():
    machine = hardware.this_machine()
    assert machine.logical_cores >= 1
    assert machine.physical_cores is None or machine.physical_cores <= machine.logical_cores
    if machine.available_bytes is not None:
        assert 0 < machine.available_bytes <= machine.memory_bytes
    assert json.loads(json.dumps(machine.to_dict()))["cpu"] == machine.cpu
    assert machine.cpu.split()[0] in str(machine)
    assert "<table" in machine._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.cpu = "abacus"


def test_this_machine_shows_its_accelerators(linux, monkeypatch):
    linux.programs["nvidia-smi"] = (
        0,
        "NVIDIA H100 80GB HBM3, 81559, 550.1\nNVIDIA L4, 23034, 550.1",
    )
    seen = (Reported("NVIDIA H100 80GB HBM3"),)
    monkeypatch.setattr(_machine, "backend_devices", lambda backend: seen)
    machine = hardware.this_machine()
    assert [one.usable for one in machine.accelerators] == [True, False]
    assert machine.accelerators[0].memory_bytes == 81559 * 2**20
    assert machine.to_dict()["accelerators"][0]["device"] == "h100-sxm"
    text = " ".join(str(machine).split())
    assert "NVIDIA H100 80GB HBM3, 79.6 GiB, h100-sxm in the catalogue" in text
    assert "the backend doesn't see it" in text


def test_probes_never_fail(tmp_path):
    """The real ones, not stand-ins."""
    assert _probe.read_text(str(tmp_path / "nothing")) == ""
    assert _probe.read_text(str(tmp_path)) == ""
    assert not _probe.exists("/nothing\x00here")
    assert _probe.files_in(str(tmp_path / "nothing")) == ()
    assert _probe.run(("bigzoo-no-such-program",))[0] == 127
    assert _probe.run(("sleep", "5"), timeout=0.05)[0] == 127
    assert _probe.version("bigzoo-no-such-package") is None
    assert _probe.requirements("bigzoo-no-such-package") == ()
    assert _probe.program("bigzoo-no-such-program") is None
    assert math.prod(map(int, _probe.version("keras").split(".")[:1])) >= 3
