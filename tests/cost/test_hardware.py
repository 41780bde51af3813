"""The catalogue: every figure has a source, peaks are dense, and follow from what is known."""

from __future__ import annotations

import dataclasses
import re

import pytest

from bigzoo.cost import hardware
from bigzoo.cost._device import DTYPES, Device, Figure, Source, index

DEVICES = tuple(hardware.list_devices())
WANTED = {
    *("v100-16", "v100-32", "t4", "a10", "a100-40", "a100-80", "l4", "l40s"),
    *("h100-pcie", "h100-sxm", "h200", "b200", "rtx-3090", "rtx-4090", "rtx-5090", "mi300x"),
    *("tpu-v3", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu7x", "trainium"),
}
FIELDS = (
    "memory_bytes",
    "bandwidth_bytes_per_second",
    "power_watts",
    "interconnect_bytes_per_second",
)


def figures(device: Device) -> dict[str, Figure]:
    """All figures of a device, by the name of the field or the dtype."""
    found = {f"flops {dtype}": figure for dtype, figure in device.flops.items()}
    single = {name: getattr(device, name) for name in FIELDS}
    return found | {name: figure for name, figure in single.items() if figure is not None}


def sparse(device: Device) -> list[str]:
    """Peaks that look like those of sparse matrices: too high beside the others."""
    at_most = {
        ("bfloat16", "tfloat32"): 2.2,
        ("float16", "tfloat32"): 2.2,
        ("float8", "bfloat16"): 2.2,
        # The GeForce cards' figure for bfloat16 is with sums in float32, at half the speed.
        ("int8", "bfloat16"): 4.2 if device.name.startswith("rtx") else 2.2,
        ("int8", "float16"): 4.2 if device.name.startswith("rtx") else 2.2,
    }
    peaks = {dtype: figure.value for dtype, figure in device.flops.items()}
    return [
        f"{device.name}: {high} is more than {limit} times {low}"
        for (high, low), limit in at_most.items()
        if high in peaks and low in peaks and peaks[high] > limit * peaks[low]
    ]


def test_all_that_is_asked_for_is_there():
    assert set(hardware.list_devices().names) >= WANTED
    assert len({device.title for device in DEVICES}) == len(DEVICES)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_figures_have_a_source_a_date_and_a_sane_size(device):
    limits = {
        "memory_bytes": (8e9, 1e12),
        "bandwidth_bytes_per_second": (100e9, 50e12),
        "power_watts": (20, 3000),
        "interconnect_bytes_per_second": (50e9, 10e12),
    }
    for name, figure in figures(device).items():
        assert len(figure.source) > 20, (name, figure)
        assert re.search(r"https://|source code by", figure.source), (name, figure)
        assert re.search(r"20\d\d", figure.date), (name, figure)
        low, high = limits.get(name, (1e12, 2e16))
        assert low <= figure.value <= high, (name, figure)
    assert set(device.flops) <= set(DTYPES)
    if device.kind == "cpu":
        assert figures(device) == {}, "a CPU's speed is measured"
    else:
        assert device.memory_bytes
        assert device.bandwidth_bytes_per_second
        assert device.flops


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_no_figure_is_for_sparse_matrices(device):
    assert sparse(device) == []


def test_the_check_finds_a_sparse_figure():
    h100 = hardware.get("h100-sxm")
    twice = Figure(2 * h100.flops["bfloat16"].value, "NVIDIA's sheet", "2023", "with sparsity")
    wrong = dataclasses.replace(h100, flops={**h100.flops, "bfloat16": twice})
    assert sparse(wrong) == ["h100-sxm: bfloat16 is more than 2.2 times tfloat32"]


# Units x multiply-adds per cycle x 2 x clock. The products of units and multiply-adds are those of
# the architectures' white papers, the clocks those that the peaks are given for.
@pytest.mark.parametrize(
    ("name", "dtype", "units", "per_cycle", "gigahertz"),
    [
        ("v100-32", "float16", 640, 64, 1.53),  # tensor cores
        ("v100-32", "float32", 5120, 1, 1.53),  # CUDA cores
        ("t4", "float16", 320, 64, 1.59),
        ("a10", "bfloat16", 288, 128, 1.695),
        ("a100-80", "bfloat16", 432, 256, 1.41),
        ("a100-40", "tfloat32", 432, 128, 1.41),
        ("h100-sxm", "bfloat16", 132, 2048, 1.83),  # SMs
        ("h100-sxm", "float32", 132, 128, 1.98),
        ("h100-pcie", "bfloat16", 456, 512, 1.62),
        ("rtx-3090", "bfloat16", 328, 64, 1.695),
        ("rtx-3090", "float32", 10496, 1, 1.695),
        ("rtx-4090", "bfloat16", 512, 64, 2.52),
        ("rtx-4090", "float32", 16384, 1, 2.52),
        ("rtx-5090", "float32", 21760, 1, 2.407),
        ("l40s", "bfloat16", 568, 128, 2.49),
        ("mi300x", "bfloat16", 304, 1024, 2.1),  # compute units
        ("mi300x", "float32", 304, 128, 2.1),
        ("tpu-v3", "bfloat16", 4, 128 * 128, 0.94),  # matrix units
        ("tpu-v4", "bfloat16", 8, 128 * 128, 1.05),
        ("tpu-v5e", "bfloat16", 4, 128 * 128, 1.5),
    ],
)
def test_peaks_follow_from_units_and_clock(name, dtype, units, per_cycle, gigahertz):
    expected = units * per_cycle * 2 * gigahertz * 1e9
    assert hardware.get(name).peak(dtype) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("name", "bits", "gigabits"),
    [
        ("v100-16", 4096, 1.752),
        ("t4", 256, 10),
        ("a10", 384, 12.5),
        ("l40s", 384, 18),
        ("a100-40", 5120, 2.43),
        ("rtx-3090", 384, 19.5),
        ("rtx-4090", 384, 21),
        ("rtx-5090", 512, 28),
    ],
)
def test_bandwidths_follow_from_the_memory_bus(name, bits, gigabits):
    expected = bits / 8 * gigabits * 1e9
    assert hardware.get(name).bandwidth_bytes_per_second.value == pytest.approx(expected, rel=0.01)


def test_memory_is_never_more_than_there_is():
    """An A100 of 40 GB reports 42,405,855,232 bytes; TPUs are documented in GiB."""
    assert 40e9 <= hardware.get("a100-40").memory_bytes.value <= 42_405_855_232
    assert hardware.get("tpu-v4").memory_bytes.value == 32 * 2**30
    assert "10^9" in hardware.get("h100-sxm").memory_bytes.note


def test_peak_takes_the_names_that_keras_uses():
    h100, v100 = hardware.get("h100-sxm"), hardware.get("v100-16")
    assert h100.peak("mixed_bfloat16") == h100.peak("bfloat16") == h100.peak("float16")
    assert h100.peak("float8_e4m3fn") == h100.peak("float8_e5m2") == h100.peak("float8")
    assert h100.peak("float32") < h100.peak("tfloat32") < h100.peak("bfloat16")
    assert v100.peak("float16") == 125e12
    assert v100.peak("bfloat16") is None, "a V100 has no units for bfloat16"
    assert hardware.get("rtx-5090").peak("bfloat16") is None, "not found in a source"
    assert h100.peak("complex64") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("H100-SXM", "h100-sxm"), ("a100_80", "a100-80"), (" tpu v5e ", "tpu-v5e"), ("T4", "t4")],
)
def test_names_may_be_spelled_freely(name, expected):
    assert hardware.get(name).name == expected


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("h100", ValueError, "'h100'.*Did you mean 'h100-sxm' or 'h100-pcie'"),
        ("a100", ValueError, "Did you mean 'a100-40' or 'a100-80'"),
        ("rtx4090", ValueError, "Did you mean 'rtx-4090'"),
        ("tpu-v5", ValueError, "Did you mean 'tpu-v5e' or 'tpu-v5p'"),
        ("trainum", ValueError, "Did you mean 'trainium'"),
        ("abacus", ValueError, r"expected a known name\. bigzoo.*list_devices\(\) shows all"),
        ("", ValueError, "`device` is ''"),
        (None, TypeError, '`device` is None; expected a name such as "h100-sxm"'),
        (100, TypeError, "`device` is 100"),
    ],
)
def test_unknown_names_give_the_nearest(name, error, text):
    with pytest.raises(error, match=text):
        hardware.get(name)


def test_the_table_prints_and_selects():
    table = hardware.list_devices("gpu")
    assert {device.kind for device in table} == {"gpu"}
    assert table["h100-sxm"] is hardware.get("h100-sxm")
    assert table[:2].names == table.names[:2]
    text = str(table)
    row = next(line for line in text.splitlines() if line.startswith("h100-sxm"))
    assert row.split()[-6:] == ["494.7", "989.4", "74.5", "GiB", "3,350", "700"]
    assert max(map(len, text.splitlines())) <= 100
    assert "dense" in text
    assert "<table" in table._repr_html_()
    with pytest.raises(ValueError, match=r"`kind` is 'gpus'.*Did you mean 'gpu'"):
        hardware.list_devices("gpus")
    with pytest.raises(ValueError, match="Did you mean 'h100-sxm'"):
        table["h100-sx"]


def test_devices_and_figures_cannot_be_changed():
    device = hardware.get("t4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.name = "t5"
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.memory_bytes.value = 1.0
    with pytest.raises(TypeError):
        device.flops["float32"] = Figure(1e15, "nobody", "2026")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Figure(0, "a document", "2024"), "A figure is 0; expected above 0"),
        (lambda: Figure(float("nan"), "a document", "2024"), "A figure is nan"),
        (lambda: Figure(1.0, " ", "2024"), "no source or no date"),
        (lambda: Figure(1.0, "a document", ""), "no source or no date"),
        (lambda: Device("x", "X", "us", "abacus"), "`kind` is 'abacus'; expected one of gpu"),
        (
            lambda: Device("x", "X", "us", "gpu", Source("a", "2024").tera({"bf16": 1})),
            "`flops` is 'bf16'; expected dtypes among float64",
        ),
        (lambda: index([DEVICES[0], DEVICES[0]]), "'v100-16' is listed twice"),
    ],
)
def test_wrong_entries_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_tera_is_exact():
    assert Source("a document", "2024").tera({"float16": 494.7})["float16"].value == 494.7e12


def test_unknown_attributes_give_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'list_devices'"):
        _ = hardware.list_device


def test_a_device_prints_its_figures_with_their_sources():
    text = str(hardware.get("h100-sxm"))
    for part in ("NVIDIA H100 SXM5", "bfloat16", "989 TFLOP/s", "3.35 TB/s", "700 W", "2026-11"):
        assert part in text
    assert "unknown" in str(hardware.get("tpu-v6e"))
    assert "<table" in hardware.get("t4")._repr_html_()
