"""How much memory a training step takes and how much there is, as far as the system tells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from bigzoo.train._family import all_layers, on_accelerator

# Part of the free memory that a trial may take: the system and the data pipeline need the rest.
_USABLE = 0.8
# Growth from one size to the next is measured in whole pages and by an allocator that keeps
# reserves: allow for half as much again.
_MARGIN = 1.5
# A size that is expected to take less than this part of what is left needs no trial.
_SURE = 0.1


class Guard:
    """Refuses batch sizes that are expected not to fit. On an accelerator it refuses none.

    Args:
        model: The model that is trained.
        limit: Bytes that this process may use, or None for most of what is free.
    """

    def __init__(self, model: keras.Model, limit: float | None) -> None:
        self.active = not on_accelerator() or limit is not None
        used, free = resident_bytes(), available_bytes()
        if limit is None and used is not None and free is not None:
            limit = used + _USABLE * free
        self.limit = limit
        self.per_sample = _output_bytes(model)
        self.peaks: list[tuple[int, int]] = []

    def refuses(self, size: int) -> str:
        """Why a batch of `size` isn't tried; empty if it may be."""
        if not self.active or self.limit is None:
            return ""
        expected = self.expected_bytes(size)
        if expected is None or expected <= self.limit:
            return ""
        return (
            f"{size} would take about {_text(expected)} of memory, above the limit of "
            f"{_text(self.limit)}; an estimate"
        )

    def surely_fits(self, size: int) -> bool:
        """Whether `size` is expected to take far less than the limit; False if nothing is known."""
        expected = self.expected_bytes(size)
        if not self.active or self.limit is None or expected is None or not self.peaks:
            return False
        base = self.peaks[0][1]
        return expected - base < _SURE * (self.limit - base)

    def expected_bytes(self, size: int) -> float | None:
        """Peak of the process at `size`, by extrapolation; None where nothing is known."""
        now = resident_bytes()
        if now is None:
            return None
        # Each layer's output is kept for the gradient, whose own values take as much again.
        counted_growth = 2.0 * self.per_sample
        if not self.peaks:
            return now + counted_growth * size
        last_size, last_peak = self.peaks[-1]
        growth = 0.0
        if len(self.peaks) > 1:
            before_size, before_peak = self.peaks[-2]
            growth = max(last_peak - before_peak, 0) / (last_size - before_size)
        return last_peak + _MARGIN * max(growth, counted_growth) * (size - last_size)

    @contextmanager
    def watch(self, size: int) -> Iterator[None]:
        """Record the peak of the process while a step of `size` runs."""
        reset_peak()
        yield
        peak = peak_bytes()
        if peak is not None:
            self.peaks.append((size, peak))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend's error says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    text = f"{type(error).__name__} {error}".lower()
    signs = ("resource_exhausted", "resourceexhausted", "out of memory", "outofmemory", "oom when")
    return any(sign in text for sign in signs)


def resident_bytes() -> int | None:
    """Memory that this process holds now, or None where the system doesn't tell."""
    return _field("/proc/self/status", "VmRSS")


def peak_bytes() -> int | None:
    """The most that this process held since `reset_peak` (or its start)."""
    return _field("/proc/self/status", "VmHWM")


def reset_peak() -> None:
    """Start `peak_bytes` anew, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak then covers the whole life of the process: more careful, not wrong


def available_bytes() -> int | None:
    """Memory that can be had without swapping, within the container's limit."""
    free = _field("/proc/meminfo", "MemAvailable")
    limit = _number("/sys/fs/cgroup/memory.max")
    used = _number("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        left = max(limit - used, 0)
        return left if free is None else min(left, free)
    return free


def _output_bytes(model: keras.Model) -> int:
    """Bytes of all layers' outputs for one sample; unknown sizes count as 1."""
    total = 0
    for layer in all_layers(model):
        try:
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):
            continue
        total += sum(_tensor_bytes(tensor) for tensor in outputs)
    return total


def _tensor_bytes(tensor: Any) -> int:
    width = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "uint8": 1, "int8": 1}
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return math.prod(size or 1 for size in tensor.shape[1:]) * width.get(dtype, 4)


def _field(path: str, name: str) -> int | None:
    """A value in kB of a file such as /proc/meminfo, in bytes."""
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _text(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.0f} MiB"
