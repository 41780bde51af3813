"""`calibrate`: measures what this machine reaches, or says that it is too busy to tell."""

from __future__ import annotations

import datetime
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from bigzoo._errors import check_choice, check_number
from bigzoo.cost._calibration import Calibration, Sample
from bigzoo.cost._kernels import compiled, random, timed
from bigzoo.cost._machine import this_machine
from bigzoo.cost._probes import Probe, probes

_DTYPES = ("float32", "bfloat16", "float16")
_LOOK_SECONDS = 0.4
_PASSES = 3
# How much longer most probes may take in one pass than in another.
_MAX_DRIFT = 1.25


def calibrate(
    seconds: float = 5.0, *, dtype: str = "float32", max_load: float = 0.2
) -> Calibration:
    """Measures this machine's rates: products, convolutions and their gradients, memory.

    Use the result as `on=` of `predict` and `plan`. Close other programs first: on a machine that
    does something else, the rates would be wrong by a factor, so it refuses.

    Args:
        seconds: How long to measure, about; compiling comes on top.
        dtype: Of the arrays: the one that your model computes in.
        max_load: Share of the processors, 0 to 1, that others may use.

    Returns:
        A `Calibration`.

    Raises:
        RuntimeError: if others use more than `max_load`, or the rates drift by over 25% while
            they are measured.
        ValueError: for a time that isn't above 0 or an unknown dtype.

    Example:
        >>> machine = bz.cost.calibrate(seconds=0.5, max_load=1.0)  # doctest: +SKIP
        >>> report = bz.cost.analyze(bz.models.mlp(), batch_size=32)
        >>> bz.cost.predict(report, on=machine).step_seconds  # doctest: +SKIP
        0.0031
    """
    seconds = check_number("seconds", seconds, above=0)
    max_load = check_number("max_load", max_load, 0, 1)
    check_choice("dtype", dtype, _DTYPES)
    load = busy_share(_LOOK_SECONDS)
    if load is not None and load > max_load:
        raise RuntimeError(
            f"Other programs use {load:.0%} of the processors, and at most {max_load:.0%} is "
            "allowed: rates measured now would be wrong. Close them, or wait, and try again."
        )
    found = list(probes(dtype))
    share = seconds / (_PASSES * (len(found) + 2))
    start = min(_step_overhead(share) for _ in range(_PASSES))
    passes = _passes(found, share)
    _check_drift(passes)
    samples = _samples(found, passes, start)
    machine = this_machine()
    return Calibration(
        name=machine.accelerators[0].name if _on_accelerator(machine) else machine.cpu,
        backend=keras.backend.backend(),
        dtype=dtype,
        date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        load=load,
        samples=samples,
        overhead_seconds=min(_operation_overhead(share) for _ in range(_PASSES)),
        step_overhead_seconds=start,
        memory_bytes=machine.memory_bytes,
    )


def _on_accelerator(machine: Any) -> bool:
    return any(accelerator.usable for accelerator in machine.accelerators)


def _passes(found: Sequence[Probe], seconds: float) -> list[list[float]]:
    """Seconds of a call of each probe, in each of several passes over all of them.

    What disturbs one pass for a while seldom disturbs the same probe in the next.
    """
    made = [probe.make() for probe in found]
    return [
        [timed(function, arguments, seconds) for function, arguments in made]
        for _ in range(_PASSES)
    ]


def _samples(
    found: Sequence[Probe], passes: Sequence[Sequence[float]], start: float
) -> dict[str, tuple[Sample, ...]]:
    """The best pass of each probe, without the start of its program.

    On torch a gradient's time has in it that of the forward pass, which comes before.
    """
    samples: dict[str, tuple[Sample, ...]] = {}
    forward = 0.0
    for probe, times in zip(found, zip(*passes, strict=True), strict=True):
        best = min(times)
        on_torch = probe.forward and keras.backend.backend() == "torch"
        took = max(best - start - (forward if on_torch else 0.0), 0.1 * best)
        if not probe.forward:  # two gradients follow a forward pass, which both have in them
            forward = took
        sample = Sample(probe.dims, probe.bytes, probe.flops, took / probe.repeats)
        samples[probe.kind] = (*samples.get(probe.kind, ()), sample)
    return samples


def _check_drift(passes: Sequence[Sequence[float]]) -> None:
    """Refuses if most probes took longer in one pass than in another."""
    ratios = [max(times) / min(times) for times in zip(*passes, strict=True)]
    ratio = statistics.median(ratios)
    if ratio > _MAX_DRIFT:
        raise RuntimeError(
            f"The same computations took {ratio:.2f} times as long in one pass as in another: "
            "something else is running, or the processor is throttled. Try again on an idle "
            "machine, or with more `seconds`."
        )


def _operation_overhead(seconds: float) -> float:
    """Seconds that an operation on a single number takes within a program."""
    count = 200

    def run(x: Any) -> Any:
        for _ in range(count):
            x = keras.ops.tanh(x)
        return x

    return timed(compiled(run), (random((1,)),), seconds) / count


def _step_overhead(seconds: float) -> float:
    return timed(compiled(lambda x: x + 1), (random((1,)),), seconds)


# --- load ----------------------------------------------------------------------------------


def busy_share(
    seconds: float,
    read: Callable[[], tuple[float, float] | None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> float | None:
    """Share of the processors in use while this program sleeps, 0 to 1; None if nobody tells."""
    read = read or _processor_times
    before = read()
    sleep(seconds)
    after = read()
    if before is None or after is None:
        return _load_average()
    busy, total = after[0] - before[0], after[1] - before[1]
    return min(max(busy / total, 0.0), 1.0) if total > 0 else None


def _processor_times() -> tuple[float, float] | None:
    """(busy, all) ticks of all processors since the start, from Linux."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        ticks = [float(number) for number in first[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _load_average() -> float | None:
    """The last minute's load per processor, where the system has that (not on Windows)."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(load, 1.0) if math.isfinite(load) else None
