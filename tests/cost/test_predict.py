"""`predict`: published throughputs lie in its range; calibrations are looked up as documented."""

import math
from dataclasses import replace

import keras
import pytest

import bigzoo as bz
from bigzoo.cost import Calibration, analyze, hardware, predict
from bigzoo.cost._calibration import Sample, kind_of
from bigzoo.cost._report import Operation


@pytest.fixture(scope="module")
def resnet50():
    return bz.models.resnet("50")


@pytest.fixture(scope="module")
def gpt2():
    return bz.models.gpt("small")


@pytest.fixture(scope="module")
def small():
    return analyze(bz.models.mlp(8), batch_size=32)


MOMENTUM = {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9)}

# Images per second of ResNet-50 v1.5 as NVIDIA published them: DeepLearningExamples,
# PyTorch/Classification/ConvNets/resnet50v1.5/README.md, commit 3bbe228, container 19.10.
RESNET = [
    ("v100-16", 1, 256, "mixed_float16", True, 893.09),
    ("v100-16", 1, 128, "float32", True, 380.44),
    ("v100-16", 8, 256, "mixed_float16", True, 6888.75),
    ("v100-16", 1, 128, "mixed_float16", False, 2360.14),
    ("v100-16", 1, 128, "float32", False, 1209.12),
    ("t4", 1, 128, "mixed_float16", False, 2083.90),
]


@pytest.mark.parametrize(("device", "count", "batch", "dtype", "training", "published"), RESNET)
def test_published_resnet_throughput_is_in_the_range(
    resnet50, device, count, batch, dtype, training, published
):
    report = analyze(resnet50, batch, dtype=dtype, training=training, **MOMENTUM)
    estimate = predict(report, on=device, devices=count)
    low, high = (
        estimate.batch_size / estimate.step_high_seconds,
        estimate.batch_size / estimate.step_low_seconds,
    )
    assert low <= published <= high
    # The middle is not far off either: within half to twice.
    assert 0.5 <= estimate.samples_per_second / published <= 2


def test_a_published_figure_above_the_data_sheet_stays_outside(resnet50):
    """The same table gives 1142 images per second for a T4 in float32: 115% of its peak."""
    report = analyze(resnet50, 128, training=False)
    estimate = predict(report, on="t4")
    published = 1142.46
    peak = hardware.get("t4").peak("float32")
    assert published * report.forward_flops / 128 > 1.1 * peak
    assert published > 128 / estimate.step_low_seconds


@pytest.mark.parametrize("published_seconds", [0.250, 0.135])
def test_published_gpt2_iterations_are_in_the_range(gpt2, published_seconds):
    """nanoGPT's README, December 2022: 250 ms, and 135 ms compiled, for 12 x 1024 on an A100."""
    report = analyze(gpt2, 12, (1024,), dtype="mixed_bfloat16", optimizer="adamw")
    estimate = predict(report, on="a100-40")
    assert estimate.step_low_seconds <= published_seconds <= estimate.step_high_seconds


def test_resnets_share_of_the_peak_is_low_on_an_h100(resnet50):
    """MLPerf results imply about 17%; a flat half of the peak would be three times off."""
    report = analyze(resnet50, 400, dtype="mixed_bfloat16", **MOMENTUM)
    estimate = predict(report, on="h100-sxm")
    share = report.training_flops / hardware.get("h100-sxm").peak("bfloat16")
    assert share / estimate.step_high_seconds <= 0.17 <= share / estimate.step_low_seconds
    assert estimate.bound == "memory"
    assert estimate.mfu == pytest.approx(share / estimate.step_seconds)
    assert estimate.mfu < 0.3


def test_the_parts_add_up(small):
    estimate = predict(small, on="a100-80", devices=4)
    parts = (
        estimate.compute_seconds
        + estimate.memory_seconds
        + estimate.overhead_seconds
        + estimate.communication_seconds
    )
    assert parts == pytest.approx(estimate.step_seconds)
    assert estimate.step_low_seconds < estimate.step_seconds < estimate.step_high_seconds
    assert estimate.batch_size == 4 * small.batch_size
    assert estimate.bound == "overhead"


def test_communication_is_a_rings(small):
    """2 (n - 1) / n of the gradients over each link, of which half shows."""
    device = hardware.get("a100-80")
    one_way = device.interconnect_bytes_per_second.value / 2
    for devices in (2, 8):
        estimate = predict(small, on=device, devices=devices)
        ring = 2 * (devices - 1) / devices * small.gradient_bytes / one_way
        assert estimate.communication_seconds == pytest.approx(0.5 * ring)
    assert predict(small, on=device).communication_seconds == 0


def test_the_estimate_says_for_which_step(small):
    estimate = predict(small, on="t4")
    assert estimate.training is True
    assert estimate.peak_bytes == small.peak_bytes
    assert "A training step of 32 samples" in str(estimate)
    inference = predict(analyze(bz.models.mlp(8), 32, training=False), on="t4")
    assert inference.training is False
    assert "An inference step" in str(inference) and "memory of a device" in str(inference)


def test_winograds_share_is_said_where_there_is_such_a_convolution(small):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    text = "3x3 convolution in float32 counts as 90% of the peak (35% to 200%): Winograd"
    assert text in " ".join(predict(analyze(model, 2), on="t4").assumptions)
    half = analyze(model, 2, dtype="mixed_float16")
    for report in (small, half):
        assert "Winograd" not in " ".join(predict(report, on="t4").assumptions)


def test_assumptions_are_said(small):
    estimate = predict(small, on="a100-80", devices=2)
    text = " ".join(estimate.assumptions)
    for part in ("of the dense peak", "TF32", "a ring", "input pipeline"):
        assert part in text
    assert "2 x a100-80" in str(estimate)
    assert "<table" in estimate._repr_html_()
    assert estimate.to_dict()["devices"] == 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda r: predict(r, "h100"), ValueError, "Did you mean .*h100"),
        (lambda r: predict(r, "a100-80", 0), ValueError, "`devices` is 0"),
        (lambda r: predict(r, 3), TypeError, "`on` is 3; expected a device"),
        (lambda r: predict(bz, "t4"), TypeError, "expected a CostReport. Call bz.cost.analyze"),
        (
            lambda r: predict(r, "cpu-amx"),
            ValueError,
            "bandwidth of 'cpu-amx' isn't known.*calibrate",
        ),
        (
            lambda r: predict(analyze(bz.models.mlp(8), 2, dtype="mixed_bfloat16"), "t4"),
            ValueError,
            "peak in bfloat16 of 't4' isn't known. Known: .*float16",
        ),
    ],
)
def test_bad_input(small, call, error, text):
    with pytest.raises(error, match=text):
        call(small)


# === A calibration ===


def calibration(dtype="float32", **samples):
    """A machine of round numbers: 100 GFLOP/s, 10 GB/s, 1 us to start."""
    flat = {
        kind: (Sample((1, 64, 64, 64), 0, 10**11, 1.0),)
        for kind in ("matmul", "batched matmul", "conv", "conv input gradient")
    }
    flat |= {
        kind: (Sample((0, 0, 0, 0), 10**4, 0, 1e-6), Sample((0, 0, 0, 0), 10**8, 0, 1e-2))
        for kind in ("elementwise", "function", "reduction", "move", "update", "pool", "random")
    }
    return Calibration(
        "test machine", "any", dtype, "2026-01-01", 0.0, flat | samples, 1e-6, 1e-4, 2**30
    )


def operation(**fields):
    base = Operation("MatMul", "matmul", "forward", "", "float32", 0, 0, 0, 0)
    return replace(base, **fields)


def test_seconds_of_a_product():
    op = operation(flops=10**9, dims=(1, 64, 64, 64), read_bytes=10**6, write_bytes=10**6)
    arithmetic, moved, start = calibration().seconds(op)
    assert arithmetic == pytest.approx(0.01)
    assert moved == pytest.approx(2e-4)
    assert start == 1e-6


def test_the_rate_is_taken_from_the_nearest_shape():
    near, far = Sample((1, 32, 64, 64), 0, 10**9, 1.0), Sample((1, 4096, 4096, 64), 0, 10**12, 1.0)
    machine = calibration(matmul=(near, far))
    slow = machine.seconds(operation(flops=10**9, dims=(1, 32, 64, 64)))[0]
    fast = machine.seconds(operation(flops=10**9, dims=(1, 4096, 4096, 64)))[0]
    between = machine.seconds(operation(flops=10**9, dims=(1, 512, 512, 64)))[0]
    assert slow == pytest.approx(1.0, rel=0.05)
    assert fast == pytest.approx(0.001, rel=0.05)
    assert fast < between < slow


def test_the_bandwidth_is_taken_between_two_sizes():
    small_rate, large_rate = 50e9, 10e9
    samples = (
        Sample((0,) * 4, 10**4, 0, 10**4 / small_rate),
        Sample((0,) * 4, 10**8, 0, 10**8 / large_rate),
    )
    machine = calibration(elementwise=samples)

    def rate(size):
        op = operation(name="Add", kind="elementwise", read_bytes=size)
        return size / machine.seconds(op)[1]

    assert rate(10**2) == pytest.approx(small_rate)
    assert rate(10**9) == pytest.approx(large_rate)
    assert rate(10**6) == pytest.approx(math.sqrt(small_rate * large_rate))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "matmul", "dims": (1, 2, 3, 4)}, "matmul"),
        ({"kind": "matmul", "dims": (8, 2, 3, 4)}, "batched matmul"),
        ({"kind": "conv", "name": "Conv2D"}, "conv"),
        ({"kind": "conv", "name": "Conv2D gradient of left"}, "conv input gradient"),
        ({"kind": "depthwise", "name": "x gradient of right"}, "depthwise weight gradient"),
        ({"kind": "elementwise", "name": "Tanh"}, "function"),
        ({"kind": "elementwise", "name": "erf gradient"}, "function"),
        ({"kind": "elementwise", "name": "AddV2"}, "elementwise"),
        ({"kind": "elementwise", "phase": "update"}, "update"),
        ({"kind": "unknown"}, "move"),
        ({"kind": "pool"}, "pool"),
    ],
)
def test_kind_of(fields, kind):
    assert kind_of(operation(**fields)) == kind


def test_predict_on_a_calibration(small):
    machine = calibration()
    estimate = predict(small, on=machine)
    expected = machine.step_overhead_seconds
    for op in small.operations:
        written = small.activation_bytes if op.phase == "backward" else 0
        arithmetic, moved, start = machine.seconds(op, written)
        expected += op.count * (max(arithmetic, moved) + start)
    assert estimate.step_seconds == pytest.approx(expected)
    assert estimate.on == "test machine"
    assert estimate.mfu == pytest.approx(small.training_flops / expected / 1e11)
    assert machine.peak("float32") == 1e11
    assert machine.peak("bfloat16") is None
    assert machine.bandwidth_bytes_per_second == pytest.approx(10e9)


def test_a_calibration_in_another_dtype_is_refused(small):
    with pytest.raises(ValueError, match=r"expected a calibration in float32.*calibrate\(dtype"):
        predict(small, on=calibration("bfloat16"))


def test_a_calibration_in_the_dtype_of_a_small_head_is_refused():
    """A float32 head on a bfloat16 model doesn't make float32 rates right for the rest."""
    inputs = keras.Input((64,))
    x = keras.layers.Dense(256, dtype="mixed_bfloat16")(inputs)
    x = keras.layers.Dense(256, dtype="mixed_bfloat16")(x)
    report = analyze(keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(x)), 8)
    assert {op.dtype for op in report.operations if op.flops} == {"float32", "bfloat16"}
    with pytest.raises(ValueError, match=r"`on` is 'float32'; expected a calibration in bfloat16"):
        predict(report, on=calibration("float32"))
    assert predict(report, on=calibration("bfloat16")).step_seconds > 0


def test_the_working_set_decides_on_the_bandwidth():
    """50 GB/s from a cache, 10 from memory: what else was written since puts data into memory."""
    samples = (Sample((0,) * 4, 10**4, 0, 10**4 / 50e9), Sample((0,) * 4, 10**8, 0, 1e-2))
    machine = calibration(elementwise=samples)
    op = operation(name="Add", kind="elementwise", read_bytes=10**4)
    assert machine.seconds(op)[1] == pytest.approx(10**4 / 50e9)
    assert machine.seconds(op, 10**3) == machine.seconds(op)
    assert machine.seconds(op, 10**9)[1] == pytest.approx(10**4 / 10e9)
    product = operation(flops=10**9, dims=(1, 64, 64, 64), read_bytes=10**4)
    assert machine.seconds(product, 10**9) == machine.seconds(product)


@pytest.mark.parametrize(("phase", "rate"), [("forward", 50e9), ("backward", 10e9)])
def test_the_backward_pass_reads_from_memory(small, phase, rate):
    samples = (Sample((0,) * 4, 10**4, 0, 10**4 / 50e9), Sample((0,) * 4, 10**8, 0, 1e-2))
    machine = calibration(elementwise=samples)
    op = operation(name="Add", kind="elementwise", phase=phase, read_bytes=10**4)
    report = replace(small, operations=(op,), activation_bytes=10**9)
    assert predict(report, on=machine).memory_seconds == pytest.approx(10**4 / rate)


def test_a_calibration_prints_its_rates():
    text = str(calibration())
    assert "100 GFLOP/s" in text and "10.0 GB/s" in text and "load by others before" in text
