"""Why the GPU isn't used: what was found, what it means, the command that mends it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from bigzoo.cost import _probe
from bigzoo.cost._accelerators import DriverReport, Reported

# Package of NVIDIA's libraries -> the library that TensorFlow opens. Names are those of CUDA 12.
_LIBRARIES = {
    "nvidia-cuda-runtime-cu12": "libcudart.so.12",
    "nvidia-cublas-cu12": "libcublas.so.12",
    "nvidia-cudnn-cu12": "libcudnn.so.9",
    "nvidia-cufft-cu12": "libcufft.so.11",
    "nvidia-cusolver-cu12": "libcusolver.so.11",
    "nvidia-cusparse-cu12": "libcusparse.so.12",
    "nvidia-nccl-cu12": "libnccl.so.2",
    "nvidia-nvjitlink-cu12": "libnvJitLink.so.12",
}
_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-intel",
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "torch",
)
_AND_CUDA = 'pip install "tensorflow[and-cuda]"'
_JAX_CUDA = 'pip install -U "jax[cuda12]"'
_TORCH_CUDA = "pip uninstall -y torch && pip install torch"
_TORCH_INDEX = " --index-url https://download.pytorch.org/whl/cu126"
_TENSORFLOW_SAYS = (
    "TF_CPP_MIN_LOG_LEVEL=0 TF_CPP_MAX_VLOG_LEVEL=3 python -c "
    "\"import tensorflow as tf; tf.config.list_physical_devices('GPU')\""
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kind: "ok", "note" (good to know) or "problem".
        seen: What was found.
        means: What follows from it.
        command: What mends it, "" if nothing needs to.
    """

    kind: str
    seen: str
    means: str
    command: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that the findings about GPUs depend on.

    Attributes:
        system: As in `sys.platform`.
        backend: The active Keras backend.
        seen: Accelerators that it sees.
        driver: What `nvidia-smi` says.
        kernel_module: Whether the kernel has loaded NVIDIA's driver.
        on_bus: Whether an NVIDIA GPU is plugged in, driver or not.
        amd_driver: Whether the kernel has loaded AMD's driver for computing.
        container: Whether this looks like the inside of a container.
        packages: Installed packages that matter -> version; None for those that aren't there.
        missing: Library that TensorFlow needs and that isn't there -> its package.
        cuda_build: CUDA version that the backend's own build is for, "" for a build for CPUs, None
            if it doesn't tell.
    """

    system: str
    backend: str
    seen: tuple[Reported, ...] = ()
    driver: DriverReport = field(default_factory=lambda: DriverReport("absent"))
    kernel_module: bool = False
    on_bus: bool = False
    amd_driver: bool = False
    container: bool = False
    packages: Mapping[str, str | None] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    cuda_build: str | None = None


def gather(backend: str, seen: tuple[Reported, ...], driver: DriverReport) -> Evidence:
    """Look at this computer."""
    return Evidence(
        system=sys.platform,
        backend=backend,
        seen=seen,
        driver=driver,
        kernel_module=_probe.exists("/proc/driver/nvidia/version"),
        on_bus=_nvidia_on_bus(),
        amd_driver=_probe.exists("/dev/kfd"),
        container=_probe.exists("/.dockerenv") or _probe.exists("/run/.containerenv"),
        packages={name: _probe.version(name) for name in _PACKAGES},
        missing=missing_libraries() if backend == "tensorflow" else {},
        cuda_build=_cuda_build(backend),
    )


def gpu_findings(found: Evidence) -> list[Finding]:
    """Whether accelerators are used, and why not."""
    if found.seen:
        names = ", ".join(device.name for device in found.seen)
        seen = f"the {found.backend} backend sees {len(found.seen)} accelerator(s): {names}"
        return [Finding("ok", seen, "training and prediction run there")]
    if found.system == "darwin":
        return [_mac(found)]
    if found.driver.status == "ok":
        return [_unseen(found)]
    if found.driver.status == "failed":
        return [_broken_driver(found)]
    return [_no_driver(found)]


def missing_libraries() -> dict[str, str]:
    """Library -> package, for the libraries that TensorFlow asks for and that aren't there.

    Those from pip count, and those of a CUDA that is installed in the system.
    """
    wanted = [
        re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]
        for line in _probe.requirements("tensorflow")
        if "and-cuda" in line
    ]
    absent = [name for name in wanted if name in _LIBRARIES and _probe.version(name) is None]
    if not absent:
        return {}
    system = _system_libraries()
    return {
        _LIBRARIES[name]: name
        for name in absent
        if not any(file.startswith(_LIBRARIES[name]) for file in system)
    }


def _system_libraries() -> tuple[str, ...]:
    """Names of the shared libraries that the loader finds outside of Python packages."""
    folders = (_probe.variable("LD_LIBRARY_PATH") or "").split(":")
    folders += ["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
    files = [name for folder in folders if folder for name in _probe.files_in(folder)]
    status, listing = _probe.run(("ldconfig", "-p"), timeout=5)
    if status == 0:
        files += [line.split()[0] for line in listing.splitlines() if "=>" in line]
    return tuple(files)


def _nvidia_on_bus() -> bool:
    folder = "/sys/bus/pci/devices"
    for name in _probe.files_in(folder):
        vendor = _probe.read_text(f"{folder}/{name}/vendor").strip()
        if vendor == "0x10de" and _probe.read_text(f"{folder}/{name}/class").startswith("0x03"):
            return True
    return False


def _cuda_build(backend: str) -> str | None:
    """See `Evidence.cuda_build`. Only the active backend, which is loaded anyway, is asked."""
    try:
        if backend == "tensorflow":
            import tensorflow as tf

            build = tf.sysconfig.get_build_info()
            return str(build.get("cuda_version", "")) if build.get("is_cuda_build") else ""
        if backend == "torch":
            import torch

            return str(torch.version.cuda or "")
    except Exception:  # a backend that can't be asked is no reason to fail here
        return None
    return None


# --- what it means ------------------------------------------------------------------------------


def _mac(found: Evidence) -> Finding:
    seen = f"macOS, and the {found.backend} backend sees no GPU"
    means = (
        "no NVIDIA GPU works with macOS; the wheels of TensorFlow and JAX compute on the CPU, and "
        "PyTorch reaches Apple's GPU (MPS)"
    )
    return Finding("note", seen, means, "KERAS_BACKEND=torch python your_program.py")


def _no_driver(found: Evidence) -> Finding:
    if found.amd_driver:
        means = "the wheels of PyPI are for NVIDIA's GPUs: install the backend's build for ROCm"
        return Finding("note", "AMD's GPU driver (/dev/kfd), but no GPU is seen", means)
    if found.container and (found.kernel_module or found.on_bus):
        seen = "an NVIDIA GPU in the host, but no `nvidia-smi` in this container"
        means = "the container was started without its GPUs"
        return Finding("problem", seen, means, "docker run --gpus all ...")
    if found.kernel_module:
        seen = "NVIDIA's kernel module is loaded, but there is no `nvidia-smi`"
        return Finding(
            "problem", seen, "half of the driver is missing", "sudo ubuntu-drivers install"
        )
    if found.on_bus:
        seen = "an NVIDIA GPU is plugged in, but its driver isn't installed (no `nvidia-smi`)"
        means = "nothing can use the GPU"
        return Finding("problem", seen, means, "sudo ubuntu-drivers install && sudo reboot")
    seen = "no NVIDIA GPU and no driver (no `nvidia-smi`)"
    return Finding("note", seen, "everything runs on the CPU")


def _broken_driver(found: Evidence) -> Finding:
    seen = f'`nvidia-smi` fails: "{found.driver.error}"'
    if "mismatch" in found.driver.error.lower():
        means = "the driver was updated while its old version is still loaded"
        return Finding("problem", seen, means, "sudo reboot")
    if "no devices" in found.driver.error.lower():
        return Finding("problem", seen, "the driver is there, but no GPU that it can reach")
    means = "the driver is installed but not running"
    return Finding("problem", seen, means, "sudo modprobe nvidia")


def _unseen(found: Evidence) -> Finding:
    """The driver works, and the backend sees no GPU."""
    if _probe_hidden() is not None:
        seen = f"CUDA_VISIBLE_DEVICES={_probe_hidden()!r} hides all GPUs"
        return Finding("problem", seen, "everything runs on the CPU", "unset CUDA_VISIBLE_DEVICES")
    explain = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}.get(found.backend)
    if explain is None:
        seen = f"the backend {found.backend} sees no GPU"
        return Finding("note", seen, "it isn't known here what it needs")
    return explain(found)


def _probe_hidden() -> str | None:
    """The value of CUDA_VISIBLE_DEVICES if it hides every GPU."""
    value = _probe.variable("CUDA_VISIBLE_DEVICES")
    hides = value is not None and value.strip().lower() in ("", "-1", "none", "nodevfiles", "void")
    return value if hides else None


def _gpus(found: Evidence) -> str:
    names = ", ".join(device.name for device in found.driver.devices)
    return f"the driver {found.driver.driver} shows {names}".replace("  ", " ")


def _tensorflow(found: Evidence) -> Finding:
    if found.system == "win32":
        seen = f"{_gpus(found)}, but TensorFlow for Windows itself computes on the CPU only"
        means = "its builds for GPUs need Linux: use the Windows Subsystem for Linux (WSL2)"
        return Finding("problem", seen, means, f"wsl --install; then, in WSL: {_AND_CUDA}")
    cpu_wheel = next(
        (n for n in ("tensorflow-cpu", "tensorflow-intel") if found.packages.get(n)), ""
    )
    if cpu_wheel or found.cuda_build == "":
        wheel = cpu_wheel or "tensorflow"
        seen = f"{_gpus(found)}, but the installed {wheel} is a build for CPUs alone"
        means = "TensorFlow can't use the GPU"
        return Finding("problem", seen, means, f"pip uninstall -y {wheel} && {_AND_CUDA}")
    if found.missing:
        parts = ", ".join(f"{library} ({package})" for library, package in found.missing.items())
        seen = f"{_gpus(found)}, but libraries that TensorFlow opens are missing: {parts}"
        return Finding("problem", seen, "TensorFlow falls back to the CPU", _AND_CUDA)
    seen = f"{_gpus(found)}, and the libraries are there, but TensorFlow sees no GPU"
    means = (
        "most often a driver that is too old, or LD_LIBRARY_PATH leading to another CUDA; this "
        "command shows what TensorFlow tries to open"
    )
    return Finding("problem", seen, means, _TENSORFLOW_SAYS)


def _jax(found: Evidence) -> Finding:
    plugins = [
        name for name in ("jax-cuda12-plugin", "jax-cuda13-plugin") if found.packages.get(name)
    ]
    if found.system == "win32":
        seen = f"{_gpus(found)}, but JAX for Windows itself computes on the CPU only"
        means = "its plugin for GPUs needs Linux: use the Windows Subsystem for Linux (WSL2)"
        return Finding("problem", seen, means, f"wsl --install; then, in WSL: {_JAX_CUDA}")
    if not plugins:
        seen = f"{_gpus(found)}, but JAX is installed without its CUDA plugin"
        return Finding("problem", seen, "JAX falls back to the CPU", _JAX_CUDA)
    platforms = _probe.variable("JAX_PLATFORMS") or _probe.variable("JAX_PLATFORM_NAME")
    if platforms and not {"cuda", "gpu"} & set(platforms.lower().split(",")):
        seen = f"{_gpus(found)}, but JAX_PLATFORMS={platforms!r} keeps JAX from it"
        return Finding(
            "problem", seen, "JAX uses what is named", "unset JAX_PLATFORMS JAX_PLATFORM_NAME"
        )
    plugin, library = found.packages.get(plugins[0]), found.packages.get("jaxlib")
    if plugin != library:
        seen = f"{_gpus(found)}, but {plugins[0]} {plugin} goes with another jaxlib than {library}"
        return Finding("problem", seen, "JAX leaves the plugin out", _JAX_CUDA)
    seen = f"{_gpus(found)}, and the plugin is there, but JAX sees no GPU"
    means = "most often a driver that is too old; this command shows the reason"
    return Finding(
        "problem", seen, means, 'JAX_PLATFORMS=cuda python -c "import jax; print(jax.devices())"'
    )


def _torch(found: Evidence) -> Finding:
    version = found.packages.get("torch") or ""
    if found.cuda_build == "" or version.endswith("+cpu"):
        seen = f"{_gpus(found)}, but torch {version} is a build for CPUs alone"
        # On Windows the build of PyPI is the one for CPUs.
        command = _TORCH_CUDA + (_TORCH_INDEX if found.system == "win32" else "")
        return Finding("problem", seen, "PyTorch can't use the GPU", command)
    seen = f"{_gpus(found)}, but torch {version} (CUDA {found.cuda_build}) can't use it"
    means = "most often a driver that is too old for this CUDA; this command shows the reason"
    return Finding("problem", seen, means, 'python -c "import torch; torch.cuda.init()"')
