"""`predict`: how long a step takes on hardware, by a roofline for each of its operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bigzoo._errors import check_int, message
from bigzoo._units import seconds_text
from bigzoo.cost._calibration import Calibration
from bigzoo.cost._catalogue import get
from bigzoo.cost._device import Device
from bigzoo.cost._estimate import StepEstimate
from bigzoo.cost._program import PRODUCTS
from bigzoo.cost._report import CostReport, Operation

# One way over a PCIe 4.0 x16 slot: 16 GT/s x 16 lanes x 128/130 (PCI-SIG, PCIe 4.0, 2017).
_PCIE_BYTES_PER_SECOND = 31.5e9
# What a measured rate may be off by for a kernel of another shape: the errors that
# `benchmarks/cost.py` finds over whole steps.
_CALIBRATED = (0.8, 1.0, 1.3)


@dataclass(frozen=True)
class Assumed:
    """What is taken for granted about a device of which only the data sheet is known."""

    compute: float  # share of the peak that a large product reaches
    winograd: float  # the same for 3x3 convolutions in float32, which need fewer multiplications
    bandwidth: float  # share of the memory's bandwidth
    unfused: float  # share of the elementwise traffic that is left after fusion
    overhead_seconds: float  # to start an operation
    step_seconds: float  # to start a step


# The outcomes of these are held against published measurements in tests/cost/test_predict.py.
ASSUMED = {
    "low": Assumed(0.92, 2.0, 0.92, 0.3, 0.3e-6, 20e-6),
    "mid": Assumed(0.6, 0.9, 0.8, 0.5, 2e-6, 100e-6),
    "high": Assumed(0.3, 0.35, 0.6, 1.0, 8e-6, 1e-3),
}


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by what they are spent on."""

    compute_seconds: float
    memory_seconds: float
    overhead_seconds: float
    communication_seconds: float

    @property
    def total(self) -> float:
        return (
            self.compute_seconds
            + self.memory_seconds
            + self.overhead_seconds
            + self.communication_seconds
        )


def predict(report: CostReport, on: Device | Calibration | str, devices: int = 1) -> StepEstimate:
    """How long the step of a report takes on a device, before it is run there.

    Each operation takes the longer of two times, the arithmetic at the rate that such an
    operation reaches, and its bytes at the memory's rate, and something to start. For a device of
    the catalogue the rates are shares of the data sheet's peaks, which differ a lot between
    programs: the range is wide and says so. For a `Calibration` they were measured here.

    Args:
        report: What `analyze` gives for the batch that one device works on.
        on: A device of `hardware`, its name, or what `calibrate` gives.
        devices: How many work together, data parallel, each on the report's batch.

    Returns:
        A `StepEstimate` in seconds.

    Raises:
        ValueError: for a name that isn't known, or a device whose peak or bandwidth isn't known,
            such as a CPU's: `calibrate` measures those; or a calibration in another dtype than
            that of most products.
        TypeError: for anything else in `on`.

    Example:
        >>> report = bz.cost.analyze(bz.models.resnet("50"), batch_size=32)
        >>> estimate = bz.cost.predict(report, on="h100-sxm")
        >>> estimate.step_low_seconds < estimate.step_seconds < estimate.step_high_seconds
        True
    """
    devices = check_int("devices", devices, minimum=1)
    if not isinstance(report, CostReport):
        fix = "Call bz.cost.analyze(model) first."
        raise TypeError(message("report", report, "a CostReport", fix))
    found = find_hardware(on)
    if isinstance(found, Device):
        return _on_device(report, found, devices)
    return _on_calibration(report, found, devices)


def find_hardware(on: Device | Calibration | str) -> Device | Calibration:
    """What `on` stands for: itself, or the device of the catalogue with this name."""
    if isinstance(on, str):
        return get(on)
    if isinstance(on, (Device, Calibration)):
        return on
    raise TypeError(message("on", on, "a device, the name of one, or a calibration"))


def utilisation(report: CostReport, seconds: float, on: Device | Calibration) -> float | None:
    """Share of `on`'s peak (MFU) that a step of `report` in so many seconds reaches on it.

    The peak is in the dtype of most products. None where it isn't known.
    """
    dtype = _main_dtype(report)
    peak = on.peak(dtype) if isinstance(on, Calibration) else _peaks(on, dtype).get("mid")
    flops = report.training_flops if report.training else report.forward_flops
    return flops / seconds / peak if peak and seconds else None


# --- a device of the catalogue -----------------------------------------------------------------


def _on_device(report: CostReport, device: Device, devices: int) -> StepEstimate:
    peaks = {dtype: _peaks(device, dtype) for dtype in {op.dtype for op in report.operations}}
    bandwidth = device.bandwidth_bytes_per_second
    needed = {op.dtype for op in report.operations if op.flops}
    missing = [dtype for dtype in sorted(needed) if not peaks[dtype]]
    if bandwidth is None or missing:
        what = "bandwidth" if bandwidth is None else f"peak in {' and '.join(missing)}"
        fix = (
            "Measure it there: bz.cost.calibrate()."
            if device.kind == "cpu"
            else f"Known: {', '.join(device.flops)}. Analyze with `dtype` for one of them."
        )
        raise ValueError(f"The {what} of {device.name!r} isn't known. {fix}")
    parts = {
        name: _device_parts(report, device, peaks, assumed, name)
        for name, assumed in ASSUMED.items()
    }
    assumptions = _device_assumptions(device, needed, any(map(_is_winograd, report.operations)))
    return _estimate(report, device, devices, parts, assumptions)


def _peaks(device: Device, dtype: str) -> dict[str, float]:
    """Peak by scenario. Float32 products may run on tensor cores or in bfloat16 passes."""
    plain = device.peak(dtype)
    if dtype == "float32":
        fast = device.peak("tfloat32") or (
            device.peak("bfloat16") if device.kind == "tpu" else None
        )
        usual = fast or plain
        slow = plain or fast
        if not usual or not slow:
            return {}
        return {"low": usual, "mid": usual, "high": slow}
    return {"low": plain, "mid": plain, "high": plain} if plain else {}


def _device_parts(
    report: CostReport,
    device: Device,
    peaks: Mapping[str, Mapping[str, float]],
    assumed: Assumed,
    name: str,
) -> Parts:
    bandwidth = device.bandwidth_bytes_per_second
    rate = assumed.bandwidth * (bandwidth.value if bandwidth else 0.0)
    compute = memory = 0.0
    overhead = assumed.step_seconds
    for op in report.operations:
        moved = (op.read_bytes + op.write_bytes) / rate
        if op.kind in PRODUCTS:
            share = assumed.winograd if _is_winograd(op) else assumed.compute
            arithmetic = op.flops / (share * peaks[op.dtype][name])
            overhead += assumed.overhead_seconds * op.count
        else:
            arithmetic = 0.0
            moved *= assumed.unfused
            overhead += assumed.overhead_seconds * assumed.unfused * op.count
        if arithmetic > moved:
            compute += arithmetic * op.count
        else:
            memory += moved * op.count
    return Parts(compute, memory, overhead, 0.0)


def _is_winograd(op: Operation) -> bool:
    return op.kind == "conv" and op.taps == 9 and op.dtype == "float32"


def _device_assumptions(device: Device, dtypes: set[str], winograd: bool) -> list[str]:
    mid, low, high = ASSUMED["mid"], ASSUMED["low"], ASSUMED["high"]
    found = [
        f"A product reaches {mid.compute:.0%} of the dense peak ({high.compute:.0%} to "
        f"{low.compute:.0%}), memory {mid.bandwidth:.0%} of its bandwidth ({high.bandwidth:.0%} "
        f"to {low.bandwidth:.0%}).",
        f"Fusion leaves {mid.unfused:.0%} of the elementwise traffic ({low.unfused:.0%} to "
        f"{high.unfused:.0%}). To start, an operation takes {seconds_text(mid.overhead_seconds)} "
        f"({seconds_text(low.overhead_seconds)} to {seconds_text(high.overhead_seconds)}), a step "
        f"{seconds_text(mid.step_seconds)} ({seconds_text(low.step_seconds)} to "
        f"{seconds_text(high.step_seconds)}).",
        "The input pipeline keeps up.",
    ]
    if winograd:
        found.append(
            f"A 3x3 convolution in float32 counts as {mid.winograd:.0%} of the peak "
            f"({high.winograd:.0%} to {low.winograd:.0%}): Winograd's algorithm multiplies less."
        )
    if "float32" in dtypes and device.peak("tfloat32"):
        found.append("Float32 products run as TF32; the upper end of the range is without it.")
    if "float32" in dtypes and device.kind == "tpu" and not device.peak("float32"):
        found.append("Float32 products run in one pass of bfloat16, a TPU's default.")
    return found


# --- a calibrated machine ----------------------------------------------------------------------


def _on_calibration(report: CostReport, machine: Calibration, devices: int) -> StepEstimate:
    dtype = _main_dtype(report)
    if dtype != machine.dtype and any(op.flops for op in report.operations):
        fix = f"Measure it: bz.cost.calibrate(dtype={dtype!r})."
        expected = f"a calibration in {dtype}, the dtype of most products in the report"
        raise ValueError(message("on", machine.dtype, expected, fix))
    compute = memory = 0.0
    overhead = machine.step_overhead_seconds
    for op in report.operations:
        # The backward pass reads what the forward pass wrote long before: no cache holds it.
        written = report.activation_bytes if op.phase == "backward" else 0
        arithmetic, moved, start = machine.seconds(op, written)
        overhead += start * op.count
        if arithmetic > moved:
            compute += arithmetic * op.count
        else:
            memory += moved * op.count
    parts = {
        name: Parts(compute * factor, memory * factor, overhead * factor, 0.0)
        for name, factor in zip(("low", "mid", "high"), _CALIBRATED, strict=True)
    }
    assumptions = [
        f"Rates measured on this machine on {machine.date} with {machine.backend}, without fusion.",
        f"The range is {_CALIBRATED[0]} to {_CALIBRATED[2]} times the middle.",
    ]
    return _estimate(report, machine, devices, parts, assumptions)


# --- all of them -------------------------------------------------------------------------------


def _main_dtype(report: CostReport) -> str:
    """The dtype in which most of the products' FLOPs are done."""
    flops: dict[str, int] = {}
    for op in report.operations:
        flops[op.dtype] = flops.get(op.dtype, 0) + op.flops * op.count
    return max(flops, key=lambda dtype: flops[dtype], default="float32")


def _one_way(on: Device | Calibration, devices: int) -> tuple[float, list[str]]:
    """Bytes per second that a device sends while it receives as many, and what is assumed."""
    if devices == 1:
        return _PCIE_BYTES_PER_SECOND, []
    found = on.interconnect_bytes_per_second if isinstance(on, Device) else None
    ring = "Gradients are added up by a ring; half of that is hidden behind the backward pass."
    if found is not None:
        return found.value / 2, [ring]
    return _PCIE_BYTES_PER_SECOND, [ring, "The devices are connected by PCIe 4.0 x16."]


def _estimate(
    report: CostReport,
    on: Device | Calibration,
    devices: int,
    parts: Mapping[str, Parts],
    assumptions: list[str],
) -> StepEstimate:
    one_way, notes = _one_way(on, devices)
    # A ring sends and receives 2 (n - 1) / n of the gradients on each link.
    ring = 2 * (devices - 1) / devices * report.gradient_bytes / one_way
    shown = {"low": 0.1 * ring, "mid": 0.5 * ring, "high": ring}
    totals = {key: part.total + shown[key] for key, part in parts.items()}
    mid = parts["mid"]
    spent = {
        "compute": mid.compute_seconds,
        "memory": mid.memory_seconds,
        "overhead": mid.overhead_seconds,
        "communication": shown["mid"],
    }
    return StepEstimate(
        on=on.name,
        devices=devices,
        batch_size=report.batch_size * devices,
        step_seconds=totals["mid"],
        step_low_seconds=totals["low"],
        step_high_seconds=totals["high"],
        compute_seconds=mid.compute_seconds,
        memory_seconds=mid.memory_seconds,
        overhead_seconds=mid.overhead_seconds,
        communication_seconds=shown["mid"],
        mfu=utilisation(report, totals["mid"], on),
        bound=max(spent, key=lambda key: spent[key]),
        assumptions=(*assumptions, *notes),
        training=report.training,
        peak_bytes=report.peak_bytes,
    )
