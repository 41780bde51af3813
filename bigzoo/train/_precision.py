"""The dtype policy: bfloat16 where the hardware multiplies in it, float32 elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from bigzoo._errors import check_bool, check_choice

POLICIES = ("auto", "float32", "mixed_bfloat16", "mixed_float16", "bfloat16")
# NVIDIA's compute capability from which on (Ampere) the units for matrices take bfloat16.
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Accelerator:
    """A GPU or TPU: its kind ("gpu" or "tpu") and, for NVIDIA, its compute capability."""

    kind: str
    capability: tuple[int, int] | None = None


def precision(policy: str = "auto", *, verbose: bool = True) -> str:
    """Set the dtype policy for the layers that are made from now on, and say why.

    "auto" gives "mixed_bfloat16" on NVIDIA GPUs from Ampere on, on TPUs, and with the TensorFlow
    backend on processors with AMX or AVX512-BF16; it gives "float32" elsewhere. JAX and PyTorch
    are slower in bfloat16 than in float32 on such processors. In mixed_bfloat16 the weights stay
    in float32 and the products are in bfloat16, which has float32's range and about 3 digits. Call
    it before a model is built: layers keep the policy under which they were made.
    `keras.config.set_dtype_policy` is what it calls; set "float32" to go back.

    Args:
        policy: "auto", "float32", "mixed_bfloat16", "mixed_float16" (Keras scales the loss then) or
            "bfloat16" (weights too).
        verbose: Whether to print one line that says which policy was set and why.

    Returns:
        The name of the policy that is now set.

    Raises:
        ValueError: if `policy` is not one of these names.
        TypeError: if it is not a string.

    Example:
        >>> bz.precision("float32", verbose=False)
        'float32'
    """
    policy = check_choice("policy", policy, POLICIES)
    verbose = check_bool("verbose", verbose)
    reason = "as asked"
    if policy == "auto":
        policy, reason = decide()
    keras.config.set_dtype_policy(policy)
    if verbose:
        print(f"bigzoo.precision: {policy} ({reason})")
    return policy


def decide(
    accelerators: Callable[[], list[Accelerator]] | None = None,
    processor_flags: Callable[[], frozenset[str]] | None = None,
    onednn: Callable[[], bool] | None = None,
    backend: str | None = None,
) -> tuple[str, str]:
    """The policy for this hardware and backend and the reason; the probes can be replaced."""
    found = (accelerators or find_accelerators)()
    if found:
        return _decide_accelerator(found)
    flags = (processor_flags or read_processor_flags)()
    units = [name for flag, name in _UNITS.items() if flag in flags]
    if not units:
        return "float32", "this processor has no units for bfloat16"
    backend = backend or keras.backend.backend()
    if backend != "tensorflow":
        return "float32", f"on processors bfloat16 is fast with TensorFlow, but not with {backend}"
    if not (onednn or uses_onednn)():
        return "float32", "TF_ENABLE_ONEDNN_OPTS=0 turns the bfloat16 kernels off"
    return "mixed_bfloat16", f"this processor has {units[0]} units for bfloat16"


_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}


def _decide_accelerator(found: list[Accelerator]) -> tuple[str, str]:
    if all(device.kind == "tpu" for device in found):
        return "mixed_bfloat16", "TPUs multiply in bfloat16"
    old = [d for d in found if d.capability is None or d.capability < _AMPERE]
    if not old:
        return "mixed_bfloat16", "this GPU multiplies in bfloat16 (Ampere or later)"
    capability = old[0].capability
    if capability is None:
        return "float32", "this GPU's bfloat16 speed isn't known"
    version = ".".join(map(str, capability))
    return "float32", f"a GPU of compute capability {version} has no bfloat16 units"


def read_processor_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """Feature flags of the processor; none where the system doesn't tell (macOS, Windows)."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def uses_onednn() -> bool:
    """Whether TensorFlow may use oneDNN, whose kernels are the ones with bfloat16 units."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"


def find_accelerators() -> list[Accelerator]:
    """GPUs and TPUs that the backend sees."""
    probes = {"tensorflow": _find_tensorflow, "jax": _find_jax, "torch": _find_torch}
    probe = probes.get(keras.backend.backend())
    return probe() if probe is not None else []


def _find_tensorflow() -> list[Accelerator]:
    import tensorflow as tf

    found = [Accelerator("tpu") for _ in tf.config.list_physical_devices("TPU")]
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        found.append(Accelerator("gpu", details.get("compute_capability")))
    return found


def _find_jax() -> list[Accelerator]:
    import jax

    found = []
    for device in jax.devices():
        if device.platform == "tpu":
            found.append(Accelerator("tpu"))
        elif device.platform != "cpu":
            text = str(getattr(device, "compute_capability", ""))
            found.append(Accelerator("gpu", _parse_capability(text)))
    return found


def _find_torch() -> list[Accelerator]:
    import torch

    if torch.version.cuda and torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        return [Accelerator("gpu", torch.cuda.get_device_capability(i)) for i in devices]
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return [Accelerator("gpu")]
    return []


def _parse_capability(text: str) -> tuple[int, int] | None:
    """ "8.0" as (8, 0); None for what isn't NVIDIA's, such as "gfx90a"."""
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return None
    return int(major), int(minor)
