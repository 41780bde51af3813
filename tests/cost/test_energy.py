"""The energy meter: counters that wrap, fail or may not be read, and real fits."""

from __future__ import annotations

import gc
import sys
import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bigzoo.cost import _energy, _energy_counters
from bigzoo.cost._energy import EnergyMeter, EnergyResult
from bigzoo.cost._energy_counters import Adder, Counter, find_counters, visible_devices
from bigzoo.cost._power import Range


class Dial:
    """A counter to turn by hand."""

    def __init__(self, value=0):
        self.value = value

    def __call__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def make_counter(dial, name="package-0", kind="cpu", **changes):
    return Counter(name, kind, dial, changes.pop("joules", 1.0), **changes)


@pytest.fixture
def powercap(tmp_path):
    """A copy of what Linux shows on a server with two processors."""
    root = tmp_path / "powercap"

    def zone(path, name, energy=10, limit=1000):
        folder = root / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{energy}\n")
        (folder / "max_energy_range_uj").write_text(f"{limit}\n")

    for i in range(2):
        zone(f"intel-rapl:{i}", f"package-{i}")
        zone(f"intel-rapl:{i}/intel-rapl:{i}:0", "core")
        zone(f"intel-rapl:{i}/intel-rapl:{i}:1", "dram")
        # In sysfs the inner zones lie beside the outer ones too.
        (root / f"intel-rapl:{i}:0").symlink_to(root / f"intel-rapl:{i}/intel-rapl:{i}:0")
        (root / f"intel-rapl:{i}:1").symlink_to(root / f"intel-rapl:{i}/intel-rapl:{i}:1")
    zone("intel-rapl:2", "psys")
    zone("intel-rapl-mmio:0", "package-0")
    (root / "intel-rapl").mkdir()
    return root


# === Counters ===


def test_packages_and_memory_are_counted_once(powercap):
    found = find_counters(use_gpu=False, powercap=powercap)
    names = [counter.name for counter in found.counters]
    assert names == ["package-0", "package-1", "dram of intel-rapl:0", "dram of intel-rapl:1"]
    assert found.reasons == []
    assert {(c.kind, c.joules, c.wraps_at) for c in found.counters} == {("cpu", 1e-6, 1000)}


def test_a_counter_that_begins_anew_is_followed(powercap):
    counter = find_counters(use_gpu=False, powercap=powercap).counters[0]
    path = powercap / "intel-rapl:0" / "energy_uj"
    path.write_text("900")
    adder = Adder([counter], seconds=0)
    readings = [950, 20, 999, 998]  # the last one is a whole turn less one
    for value in readings:
        path.write_text(str(value))
        adder.look()
    assert adder.joules["package-0"] == pytest.approx((50 + 70 + 979 + 999) * 1e-6)


def test_a_thread_looks_while_nobody_asks():
    dial = Dial(90)
    adder = Adder([make_counter(dial, wraps_at=100)], seconds=0.01)
    for value in (95, 5, 60, 10):  # two turns that a single look at the end would not see
        seen = adder.joules["package-0"]
        dial.value = value
        end = time.monotonic() + 10
        while adder.joules["package-0"] == seen and time.monotonic() < end:
            time.sleep(0.005)
    adder.stop()
    assert adder.joules["package-0"] == pytest.approx(5 + 10 + 55 + 50)


def test_a_file_that_may_not_be_read(powercap, monkeypatch):
    forbidden = powercap / "intel-rapl:0" / "energy_uj"
    read_text = type(forbidden).read_text

    def refuse(path, *args, **options):
        if path == forbidden:  # chmod would not stop root, as whom the tests may run
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **options)

    monkeypatch.setattr(type(forbidden), "read_text", refuse)
    found = find_counters(use_gpu=False, powercap=powercap)
    assert len(found.counters) == 3
    (reason,) = found.reasons
    assert "may be read by root only; an administrator can allow it: chmod a+r" in reason


@pytest.mark.parametrize("text", ["", "many", None])
def test_a_file_that_holds_no_number(powercap, text):
    path = powercap / "intel-rapl:0" / "max_energy_range_uj"
    path.unlink() if text is None else path.write_text(text)
    found = find_counters(use_gpu=False, powercap=powercap)
    assert found.counters[0].name == "package-1"
    assert "can't be read" in found.reasons[0]


def test_no_counters_at_all(tmp_path):
    found = find_counters(use_gpu=False, powercap=tmp_path / "nothing")
    assert found.counters == []
    assert "no RAPL counters" in found.reasons[0]


def test_a_counter_that_fails_or_goes_backwards_is_left_out_and_said():
    lost, reset, good = Dial(), Dial(50), Dial()
    counters = [make_counter(dial, name) for dial, name in ((lost, "a"), (reset, "b"), (good, "c"))]
    adder = Adder(counters, seconds=0)
    lost.value, reset.value, good.value = OSError("fell off the bus"), 3, 7
    assert adder.look() == {"c": 7.0}
    assert adder.problems == [
        "a couldn't be read any more: fell off the bus",
        "b went backwards: its driver was loaded anew",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("0,-1,1", ["0"]),
        ("GPU-8f6,1", ["GPU-8f6", "1"]),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices(text, names):
    assert visible_devices({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) == names


class FakeNvml:
    """NVIDIA's library with two GPUs, of which the second has no energy counter."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.millijoules = 1000
        self.opened = 0

    def nvmlInit(self):
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return 0

    def nvmlDeviceGetIndex(self, handle):
        return handle

    def nvmlDeviceGetName(self, handle):
        return b"NVIDIA L4" if handle == 0 else "Tesla P100"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_gpus_are_counted_through_nvml(nvml, tmp_path):
    found = find_counters(use_gpu=True, powercap=tmp_path)
    (counter,) = found.counters
    assert (counter.name, counter.kind, counter.error) == ("GPU 0 (NVIDIA L4)", "gpu", 0.05)
    assert "no energy counter: Not Supported (older than Volta?)" in found.reasons[0]
    adder = Adder([counter], seconds=0)
    nvml.millijoules += 2500
    assert adder.look() == {"GPU 0 (NVIDIA L4)": 2.5}
    assert nvml.opened == 1
    found.close()
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("visible", "count"), [("", 0), ("0", 1), ("1", 0), ("GPU-1", 1), ("7", 0)]
)
def test_only_visible_gpus_are_counted(nvml, tmp_path, monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(find_counters(use_gpu=True, powercap=tmp_path).counters) == count


def test_gpus_without_the_package_or_the_driver(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = find_counters(use_gpu=True, powercap=tmp_path)
    assert "Run: pip install nvidia-ml-py" in found.reasons[0]
    broken = FakeNvml()
    broken.nvmlInit = lambda: (_ for _ in ()).throw(broken.NVMLError("Driver Not Loaded"))
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    found = find_counters(use_gpu=True, powercap=tmp_path)
    assert found.counters == []
    assert found.reasons[0] == "GPU: Driver Not Loaded"


# === The callback ===


@pytest.fixture
def source(monkeypatch):
    """Stands in for this machine's counters: `source.counters` is what the next fit finds."""
    stand_in = SimpleNamespace(counters=[], reasons=[], closed=0, use_gpu=[])

    def find(use_gpu):
        stand_in.use_gpu.append(use_gpu)
        close = lambda: setattr(stand_in, "closed", stand_in.closed + 1)  # noqa: E731
        counters, reasons = list(stand_in.counters), list(stand_in.reasons)
        return _energy_counters.Found(counters, reasons, close)

    monkeypatch.setattr(_energy, "find_counters", find)
    return stand_in


class Consume(keras.callbacks.Callback):
    """Turns a dial at each batch, and stops the training where told to."""

    def __init__(self, dial, joules=1.0, fail_at=None):
        super().__init__()
        self.dial, self.joules, self.fail_at, self.batches = dial, joules, fail_at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.dial.value += self.joules
        self.batches += 1
        if self.batches == self.fail_at:
            raise KeyboardInterrupt


def train(meter, *callbacks, epochs=2):
    """Four batches per epoch."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=[*callbacks, meter])
    return model


def test_a_fit_is_measured(source):
    gpu, cpu = Dial(100), Dial(7)
    source.counters = [
        make_counter(gpu, "GPU 0", "gpu", error=0.05, note="a note"),
        make_counter(cpu, "package-0", joules=2.0),
    ]
    source.reasons = ["another has none"]
    meter = EnergyMeter()
    assert meter.result is None
    assert meter.results == ()
    train(meter, Consume(gpu, 10), Consume(cpu, 1))
    result = meter.result
    assert (result.energy_joules, result.gpu_joules, result.cpu_joules) == (96.0, 80.0, 16.0)
    assert (result.low_joules, result.high_joules) == (92.0, 100.0)
    assert result.method == "measured: GPU 0, package-0"
    assert result.notes == ("a note", "another has none")
    assert (result.epochs, result.complete) == (2, True)
    assert dict(result.parts) == {"GPU 0": 80.0, "package-0": 16.0}
    assert 0 < result.seconds < 60
    assert source.closed == 1
    assert "energy 96 J (92 to 100 J) in " in str(result)


def test_two_fits_in_a_row_are_two_results(source):
    dial = Dial()
    source.counters = [make_counter(dial)]
    meter = EnergyMeter()
    train(meter, Consume(dial, 1))
    dial.value += 1000  # between the fits
    train(meter, Consume(dial, 5), epochs=1)
    assert [result.energy_joules for result in meter.results] == [8.0, 20.0]
    assert meter.result.energy_joules == 20.0
    assert source.closed == 2


def test_an_interrupted_fit_counts_up_to_its_last_epoch(source):
    dial = Dial()
    source.counters = [make_counter(dial)]
    meter = EnergyMeter()
    with pytest.raises(KeyboardInterrupt):
        train(meter, Consume(dial, 1, fail_at=10), epochs=5)
    dial.value += 1000  # what comes later belongs to nobody
    result = meter.result
    assert (result.energy_joules, result.epochs, result.complete) == (8.0, 2, False)
    assert "counted up to the end of the last epoch" in result.notes[0]
    assert "not complete" in str(result)
    train(meter, Consume(dial, 3), epochs=1)
    assert [(r.energy_joules, r.complete) for r in meter.results] == [(8.0, False), (12.0, True)]
    assert source.closed == 2


def test_a_fit_that_is_interrupted_in_its_first_epoch_has_an_upper_bound_only(source):
    dial = Dial()
    source.counters = [make_counter(dial)]
    meter = EnergyMeter()
    with pytest.raises(KeyboardInterrupt):
        train(meter, Consume(dial, 1, fail_at=3))
    result = meter.result
    assert (result.energy_joules, result.low_joules, result.high_joules) == (None, None, 3.0)
    assert "no epoch has ended" in result.notes[0]
    assert str(result).startswith("energy unknown in")


def test_the_result_can_be_read_during_a_fit(source):
    dial = Dial()
    source.counters = [make_counter(dial)]
    meter = EnergyMeter()
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(meter.result.energy_joules)

    train(meter, Consume(dial), Look(), epochs=3)
    assert seen == [None, 4.0, 8.0]


def test_no_thread_is_left(source):
    before = threading.active_count()
    dial = Dial()
    source.counters = [make_counter(dial)]
    train(EnergyMeter(), Consume(dial))
    meter = EnergyMeter()
    with pytest.raises(KeyboardInterrupt):
        train(meter, Consume(dial, fail_at=1))
    del meter
    keras.backend.clear_session()
    gc.collect()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_counters_that_stand_still_are_no_measurement_of_zero(source):
    source.counters = [make_counter(Dial())]
    meter = EnergyMeter()
    train(meter)
    assert meter.result.energy_joules is None
    assert meter.result.method.startswith("unknown: ")
    assert "the counters stood still" in meter.result.notes[0]
    estimated = EnergyMeter(watts=10)
    train(estimated)
    assert estimated.result.method == "estimated: time times 10.0 W, as given"


def test_estimate_by_watts(source):
    source.reasons = ["no counter here"]
    meter = EnergyMeter(watts=(20, 60), devices=2)
    train(meter)
    result = meter.result
    assert result.energy_joules == pytest.approx(80 * result.seconds)
    assert result.low_joules == pytest.approx(40 * result.seconds)
    assert result.high_joules == pytest.approx(120 * result.seconds)
    assert result.method == "estimated: time times 20.0 to 60.0 W, as given"
    assert (result.gpu_joules, result.cpu_joules) == (None, None)
    assert result.notes == ("no counter here",)


def test_estimate_by_the_rating_of_a_device(source):
    meter = EnergyMeter(on="h100-sxm")
    train(meter)
    result = meter.result
    assert result.energy_joules == pytest.approx(0.76 * 700 * result.seconds)
    assert result.low_joules == pytest.approx(0.5 * 700 * result.seconds)
    assert result.high_joules == pytest.approx(700 * result.seconds)
    assert "rated 700 W" in result.method
    assert "2506.14551" in result.method


def test_nothing_known_is_none_with_the_way_out(source):
    meter = EnergyMeter()
    train(meter)
    result = meter.result
    assert (result.energy_joules, result.low_joules, result.high_joules) == (None, None, None)
    assert "give EnergyMeter(watts=(low, high)), or on=" in result.method


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"on": "h100"}, ValueError, "Did you mean"),
        ({"on": 5}, TypeError, "`on` is 5; expected a device or its name"),
        ({"on": SimpleNamespace(name="x", power_watts=None)}, ValueError, "Give `watts` instead"),
        ({"watts": 0}, ValueError, "`watts` is 0; expected a finite number above 0"),
        ({"watts": (60, 20)}, ValueError, "`watts` is 20; expected a finite number at least 60"),
        ({"watts": (1, 2, 3)}, ValueError, "a number, or \\(low, high\\)"),
        ({"watts": "many"}, TypeError, "`watts` is 'many'"),
        ({"watts": 5, "devices": 0}, ValueError, "`devices` is 0; expected an integer at least 1"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        EnergyMeter(**arguments)


# === Beside a plan ===


def make_row(joules, seconds, epochs, **changes):
    kwh = Range(*(value / 3.6e6 for value in joules))
    hours = Range(*(value / 3600 for value in seconds))
    row = {"device": "x", "device_kwh": kwh, "hours": hours, "epochs": epochs, "reasons": ()}
    return SimpleNamespace(**{**row, **changes})


def test_a_plan_beside_the_measurement(source):
    dial = Dial()
    source.counters = [make_counter(dial, "GPU 0", "gpu"), make_counter(Dial(1), "package-0")]
    meter = EnergyMeter()
    train(meter, Consume(dial, 10))
    # The plan is for five times as many epochs.
    found = meter.compare(make_row((300, 500, 600), (1, 2, 3), epochs=10))
    assert found.measured_joules == 80.0
    assert found.planned_joules.mid == pytest.approx(100)
    assert found.error == pytest.approx(0.25)
    assert found.inside
    assert found.planned_seconds.mid == pytest.approx(0.4)
    assert found.seconds_error == pytest.approx(0.4 / meter.result.seconds - 1)
    assert "energy: planned 100 J (60 to 120 J), got 80 J: +25%, inside the range" in str(found)


def test_a_plan_that_is_too_low(source):
    dial = Dial()
    source.counters = [make_counter(dial)]
    meter = EnergyMeter()
    train(meter, Consume(dial, 10))
    found = meter.compare(make_row((10, 20, 40), (1, 2, 3), epochs=2))
    assert found.error == pytest.approx(-0.75)
    assert not found.inside
    assert "outside of the range" in str(found)


@pytest.mark.parametrize(
    ("row", "error", "text"),
    [
        (None, TypeError, "`row` is None; expected a row of a plan"),
        (make_row((1, 2, 3), (1, 2, 3), 1, hours=None), ValueError, "no energy for 'x'"),
        (
            make_row((1, 2, 3), (1, 2, 3), 1, device_kwh=None, reasons=("its power is not known",)),
            ValueError,
            "its power is not known",
        ),
    ],
)
def test_comparison_with_bad_rows(source, row, error, text):
    meter = EnergyMeter(watts=5)
    train(meter)
    with pytest.raises(error, match=text):
        meter.compare(row)


def test_comparison_without_a_measurement(source):
    row = make_row((1, 2, 3), (1, 2, 3), 1)
    with pytest.raises(ValueError, match=r"no fit was measured\. Train with this callback"):
        EnergyMeter().compare(row)
    meter = EnergyMeter()
    train(meter)
    with pytest.raises(ValueError, match="nothing to compare: unknown: no energy counter"):
        meter.compare(row)


def test_a_real_fit_on_this_machine():
    meter = EnergyMeter(watts=(5, 50))
    train(meter, epochs=3)
    result = meter.result
    assert isinstance(result, EnergyResult)
    assert result.epochs == 3
    assert result.low_joules <= result.energy_joules <= result.high_joules
    assert result.energy_joules > 0
    assert result.method.startswith(("measured: ", "estimated: "))


def test_with_bigzoo_fit():
    import bigzoo as bz

    meter = EnergyMeter(watts=10)
    model = bz.compile(bz.models.linear_regression(2), verbose=False)
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    bz.fit(model, x, x[:, :1], epochs=3, callbacks=[meter], verbose=0)
    assert (meter.result.epochs, meter.result.complete) == (3, True)
