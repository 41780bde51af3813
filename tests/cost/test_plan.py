"""Plans: whether it fits, on how many devices, for how long, and that nothing is invented."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import math
from types import SimpleNamespace

import pytest

import bigzoo as bz
from bigzoo._tables import WIDTH
from bigzoo.cost import _plan
from bigzoo.cost._device import Device, Figure
from bigzoo.cost._plan import plan
from bigzoo.cost._plan_memory import Memory
from bigzoo.cost._power import BUILDING, DEVICE_DRAW, GRID, SYSTEM_DRAW, Range
from bigzoo.cost._predict import StepEstimate
from bigzoo.cost._recommend import recommend
from bigzoo.cost._report import CostReport

GIB = 2**30
STATES = {"weight_bytes": 2 * GIB, "gradient_bytes": 2 * GIB, "optimizer_bytes": 4 * GIB}


def make_report(batch_size, sample=GIB, bend=0.0, **changes):
    """A model of 8 GiB of states, and so much for each sample; the peak is known to 25%."""
    peak = sum(STATES.values()) + int(sample * batch_size * (1 + bend * batch_size))
    report = CostReport(
        model="net",
        backend="tensorflow",
        batch_size=batch_size,
        input_shapes={"x": (batch_size, 8)},
        dtype="float32",
        optimizer="adam",
        training=True,
        params=10,
        trainable_params=10,
        **STATES,
        forward_flops=10**9 * batch_size,
        forward_macs=10**9 * batch_size // 2,
        padding_flops=0,
        elementwise_flops=0,
        training_flops=3 * 10**9 * batch_size,
        activation_bytes=sample * batch_size,
        input_bytes=8,
        peak_bytes=peak,
        peak_low_bytes=peak * 3 // 4,
        peak_high_bytes=peak * 5 // 4,
        peak_method="traced",
        bytes_moved=1,
        arithmetic_intensity=1.0,
        layers=(),
        kinds=(),
        unknown_ops={},
        operations=(),
    )
    return dataclasses.replace(report, **changes)


def figure(value):
    return Figure(value, "a sheet", "2026")


def device(name, gib=16, watts=100, peak=1e12):
    return Device(
        name=name,
        title=name.upper(),
        vendor="X",
        kind="gpu",
        flops={} if peak is None else {"float32": figure(peak)},
        memory_bytes=None if gib is None else figure(gib * GIB),
        power_watts=None if watts is None else figure(watts),
    )


@pytest.fixture
def stand_in(monkeypatch):
    """`analyze` and `predict` by formula; notes the batch sizes that were analyzed."""
    calls = SimpleNamespace(sizes=[], options=[], predictions=[], report=make_report)

    def analyze(model, batch_size, **options):
        calls.sizes.append(batch_size)
        calls.options.append(options)
        return calls.report(batch_size)

    def predict(report, on, devices=1):
        peak = on.peak(report.dtype) if hasattr(on, "peak") else on.rates["matmul"]
        if peak is None:
            raise ValueError(f"The peak of {on.name} in {report.dtype} is not known.")
        calls.predictions.append((report.batch_size, on.name, devices))
        seconds = report.training_flops / peak
        return StepEstimate(
            on=on.name,
            devices=devices,
            batch_size=report.batch_size * devices,
            step_seconds=2 * seconds,
            step_low_seconds=seconds,
            step_high_seconds=4 * seconds,
            compute_seconds=seconds,
            memory_seconds=0.0,
            overhead_seconds=0.0,
            communication_seconds=seconds if devices > 1 else 0.0,
            mfu=None,
            bound="compute",
            assumptions=("half of the peak is reached",),
        )

    monkeypatch.setattr(_plan, "analyze", analyze)
    monkeypatch.setattr(_plan, "predict", predict)
    return calls


def make_plan(on, batch_size=4, samples=1000, epochs=2, **options):
    return plan(None, samples, epochs, batch_size, on, **options)


def row_of(on, **options):
    (row,) = make_plan(on, **options).rows
    return row


# === Memory ===


@pytest.mark.parametrize(
    ("gib", "fits"),
    # 12 GiB with a batch of 4, between 9 and 15.
    [(15, "yes"), (14.9, "close"), (9, "close"), (8.9, "no")],
)
def test_whether_one_device_holds_it(stand_in, gib, fits):
    assert row_of(device("a", gib)).fits == fits


def test_the_largest_batch(stand_in):
    batch = row_of(device("a", 40)).largest_batch
    # (8 + b) x 5/4, 1 and 3/4 of a GiB are at most 40 GiB.
    assert batch == Range(24, 32, 45)
    assert 24 in stand_in.sizes, "the size that surely fits is not checked"
    assert make_report(24).peak_high_bytes <= 40 * GIB < make_report(25).peak_high_bytes


def test_the_largest_batch_is_no_larger_than_the_data(stand_in):
    assert row_of(device("a", 40), samples=20).largest_batch == Range(20, 20, 20)


def test_memory_that_grows_faster_than_a_line_is_noticed(stand_in):
    stand_in.report = lambda size: make_report(size, bend=0.01)
    batch = row_of(device("a", 40)).largest_batch
    assert stand_in.report(int(batch.low)).peak_high_bytes <= 40 * GIB
    assert batch.low >= 15


def test_not_even_one_sample(stand_in):
    row = row_of(device("a", 4))
    assert row.largest_batch.low == 0
    assert row.data_parallel_devices is None


def test_a_model_that_keeps_nothing_per_sample():
    memory = Memory(lambda size: make_report(size, sample=0), 4, None)
    assert memory.largest(10 * GIB, 500) == Range(500, 500, 500)
    assert memory.largest(9 * GIB, 500) == Range(0, 500, 500)
    assert memory.largest(GIB, 500) == Range(0, 0, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_peak_at_any_batch_is_the_reports_own(batch_size):
    memory = Memory(make_report, batch_size, None)
    for size in (1, 5, 100):
        report = make_report(size)
        assert memory.peak(size).mid == pytest.approx(report.peak_bytes, abs=4)
        assert memory.peak(size).high == pytest.approx(report.peak_high_bytes, abs=4)


def brute(gib, batch_size, sharded):
    """The least number of devices, by trying one after the other: an independent count."""
    for count in range(1, batch_size + 1):
        samples = math.ceil(batch_size / count)
        need = 1.25 * (8 + samples) - sharded * (1 - 1 / count)
        if need <= gib:
            return count
    return None


@pytest.mark.parametrize("gib", [4, 6, 8, 9, 10.5, 11.3, 12, 14, 20, 90])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_devices_that_are_needed(stand_in, gib, batch_size):
    row = row_of(device("a", gib), batch_size=batch_size)
    assert row.data_parallel_devices == brute(gib, batch_size, 0)
    assert row.sharded_optimizer_devices == brute(gib, batch_size, 4)
    assert row.sharded_devices == brute(gib, batch_size, 8)


@pytest.mark.parametrize(
    ("gib", "fits", "count", "sharding"),
    [
        (20, "yes", 1, "none"),
        (16, "close", 1, "none"),
        (11.9, "no", 8, "none"),
        (9.5, "no", 4, "optimizer"),
        (6, "no", 6, "all"),
    ],
)
def test_the_least_sharding_that_fits_is_counted_with(stand_in, gib, fits, count, sharding):
    row = row_of(device("a", gib), batch_size=8)
    assert (row.fits, row.devices, row.sharding) == (fits, count, sharding)
    assert stand_in.predictions == [(math.ceil(8 / count), "a", count)]


def test_a_given_number_of_devices(stand_in):
    row = row_of(device("a", 16), devices=4)
    assert (row.devices, row.sharding) == (4, "none")
    assert stand_in.predictions == [(1, "a", 4)]
    row = row_of(device("a", 6), devices=4)
    assert row.sharding == "all"
    row = row_of(device("a", 0.5), devices=4)
    assert (row.devices, row.hours) == (None, None)
    assert row.reasons == ("it doesn't fit on 4 a, sharded or not",)


def test_too_small_for_any_number(stand_in):
    row = row_of(device("a", 1))
    assert (row.fits, row.devices, row.hours, row.kwh, row.money) == ("no", None, None, None, None)
    assert row.reasons == ("it doesn't fit on any number of a, sharded or not",)


# === Time, energy, carbon, money ===


def test_hours_energy_carbon_and_money(stand_in):
    row = row_of(device("a", 16), price_per_hour=3)
    # 250 steps twice, of 12 GFLOP at 1 TFLOP/s: 12 ms at the least.
    low = 500 * 0.012 / 3600
    assert row.hours == Range(*(pytest.approx(low * k) for k in (1, 2, 4)))
    kilowatts = 0.1
    assert row.device_kwh.mid == pytest.approx(2 * low * kilowatts * DEVICE_DRAW.mid)
    assert row.kwh.low == pytest.approx(low * kilowatts * SYSTEM_DRAW.low * BUILDING.low)
    assert row.kwh.high == pytest.approx(4 * low * kilowatts * SYSTEM_DRAW.high * BUILDING.high)
    assert row.kg_co2e.mid == pytest.approx(row.kwh.mid * 0.458)
    assert row.kg_co2e.low == pytest.approx(row.kwh.low * 0.03)
    assert row.money == Range(*(pytest.approx(3 * low * k) for k in (1, 2, 4)))
    assert row.reasons == ()


def test_several_devices_cost_as_many_times(stand_in):
    one = row_of(device("a", 16), price_per_hour=3)
    four = row_of(device("a", 16), price_per_hour=3, devices=4)
    assert four.hours.mid == pytest.approx(one.hours.mid / 4)
    assert four.money.mid == pytest.approx(one.money.mid)
    assert four.kwh.mid == pytest.approx(one.kwh.mid)


def test_sharding_everything_sends_half_as_much_more(stand_in):
    plain = row_of(device("a", 16), devices=4)
    sharded = row_of(device("a", 6), devices=4)
    communication = plain.hours.low  # the stand-in's is one `seconds`
    assert sharded.hours.mid == pytest.approx(plain.hours.mid + communication / 2)
    assert any("1.5 times as much" in line for line in sharded.assumptions)


def test_own_grid_and_building(stand_in):
    row = row_of(device("a", 16), grid_kg_per_kwh=0.4, pue=1.2)
    assert row.kg_co2e.high == pytest.approx(row.kwh.high * 0.4)
    assert row.kwh.low == pytest.approx(row.hours.low * 0.1 * SYSTEM_DRAW.low * 1.2)
    text = str(make_plan(device("a", 16), grid_kg_per_kwh=0.4, pue=1.2))
    assert "grid: 0.4 kg CO2e per kWh, as given" in text
    assert "Ember" not in text
    assert "Uptime" not in text


def test_defaults_carry_their_source_and_date(stand_in):
    (first, *_), lines = make_plan(device("a", 16)).assumptions, make_plan(device("a")).assumptions
    text = " ".join(lines)
    for source in ("Ember, Global Electricity Review 2026", "world's average of 2025", "2024-07"):
        assert source in text
    for source in ("Uptime Institute", "2025", "2506.14551, 2025-06", "76%"):
        assert source in text
    assert first.startswith("500 steps: 1,000 samples in batches of 4, rounded up, 2 times")


def test_the_ranges_of_the_defaults():
    # 10.2 kW for 8 devices of 700 W, of which 76% is drawn.
    assert SYSTEM_DRAW.mid * 700 * 8 == pytest.approx(0.76 * 10_200)
    for figure in (DEVICE_DRAW, SYSTEM_DRAW, BUILDING, GRID):
        assert 0 < figure.low <= figure.mid <= figure.high


@pytest.mark.parametrize(
    ("samples", "batch", "steps"), [(1, 8, 2), (8, 8, 2), (9, 8, 4), (7, 1, 14)]
)
def test_steps_are_rounded_up(stand_in, samples, batch, steps):
    assert make_plan(device("a", 90), batch_size=batch, samples=samples).steps == steps


def test_nothing_is_ever_zero(stand_in):
    row = row_of(device("a", 90, watts=0.01, peak=1e18), samples=1, epochs=1, price_per_hour=0.01)
    for name in ("hours", "device_kwh", "kwh", "kg_co2e", "money"):
        assert getattr(row, name).low > 0, name


def test_what_is_unknown_is_none_with_its_reason(stand_in):
    row = row_of(device("a", gib=None, watts=None))
    assert (row.fits, row.largest_batch, row.data_parallel_devices) == (None, None, None)
    assert (row.kwh, row.device_kwh, row.kg_co2e, row.money) == (None,) * 4
    assert row.hours.mid > 0
    reasons = "; ".join(row.reasons)
    assert "the memory of a is not known" in reasons
    assert "the power of a is not known" in reasons
    assert "give price_per_hour=" in reasons
    row = row_of(device("a", peak=None))
    assert row.fits == "yes"
    assert row.hours is None
    assert "The peak of a in float32 is not known" in row.reasons[0]


def test_a_calibration_takes_the_place_of_a_device(stand_in):
    row = row_of([SimpleNamespace(name="my machine", rates={"matmul": 1e12})])
    assert row.device == "my machine"
    assert row.hours.mid == pytest.approx(2 * 500 * 0.012 / 3600)
    assert row.fits is None
    assert row.kwh is None


# === Arguments ===


def test_devices_by_name_and_as_objects(stand_in):
    rows = make_plan(["t4", device("mine", 90), "H100_SXM"]).rows
    assert [row.device for row in rows] == ["t4", "mine", "h100-sxm"]


def test_prices_by_device(stand_in):
    rows = make_plan(["t4", "h100-sxm"], price_per_hour={"t4": 0.5}).rows
    assert rows[0].money is not None
    assert rows[1].money is None


def test_options_reach_the_analysis_and_a_report_saves_one(stand_in):
    make_plan("t4", input_shape=(8,), optimizer="sgd", dtype="mixed_bfloat16")
    expected = {"input_shape": (8,), "optimizer": "sgd", "dtype": "mixed_bfloat16"}
    assert all(options == expected for options in stand_in.options)
    stand_in.sizes.clear()
    make_plan("t4", report=make_report(4))
    assert 4 not in stand_in.sizes
    assert len(stand_in.sizes) == len(set(stand_in.sizes)), "a batch size is analyzed twice"


def test_the_report_of_another_model_is_refused():
    import bigzoo as bz

    other = bz.cost.analyze(bz.models.mlp(8), 4)
    with pytest.raises(ValueError, match=r"of 'mlp' with 154,951 parameters.*one of this model"):
        bz.cost.plan(bz.models.mlp(9), 64, 1, 4, "t4", report=other)
    with pytest.raises(ValueError, match="in mixed_bfloat16"):
        bz.cost.plan(bz.models.mlp(8), 64, 1, 4, "a10", report=other, dtype="mixed_bfloat16")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"samples": 0}, ValueError, "`samples` is 0; expected an integer at least 1"),
        ({"epochs": 0}, ValueError, "`epochs` is 0; expected an integer at least 1"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0; expected an integer at least 1"),
        ({"samples": 1.5}, TypeError, "`samples` is 1.5"),
        ({"devices": 5}, ValueError, r"`devices` is 5; .* at most 4. Each device needs at least"),
        ({"devices": 0}, ValueError, "`devices` is 0"),
        ({"on": "h100"}, ValueError, "Did you mean"),
        ({"on": []}, ValueError, "at least one device"),
        ({"on": [5]}, TypeError, "`on` is 5; expected a device, its name, or a calibration"),
        ({"on": None}, TypeError, "`on` is None"),
        ({"price_per_hour": -1}, ValueError, "`price_per_hour` is -1; expected .* above 0"),
        ({"price_per_hour": {"t4": -1}}, ValueError, r"`price_per_hour\['t4'\]` is -1"),
        ({"price_per_hour": {"a10": 1}}, ValueError, "`price_per_hour` is 'a10'"),
        ({"price_per_hour": {"tee4": 1}}, ValueError, "tee4"),
        ({"price_per_hour": "cheap"}, TypeError, "`price_per_hour` is 'cheap'"),
        ({"grid_kg_per_kwh": 458}, ValueError, "in kilograms: 400 g are 0.4"),
        ({"grid_kg_per_kwh": 0}, ValueError, "above 0"),
        ({"pue": 0.9}, ValueError, "`pue` is 0.9; expected a finite number at least 1.0"),
        ({"report": 5}, TypeError, "`report` is 5; expected what bz.cost.analyze returned"),
        ({"report": make_report(4, training=False)}, ValueError, "one of a training step"),
    ],
)
def test_bad_input(stand_in, changes, error, text):
    arguments = {"samples": 100, "epochs": 1, "batch_size": 4, "on": "t4", **changes}
    with pytest.raises(error, match=text):
        plan(None, **arguments)


# === The order ===


def test_recommend_orders_by_what_is_asked(stand_in):
    slow = device("slow", 90, watts=10, peak=1e12)
    fast = device("fast", 90, watts=100, peak=4e12)
    found = make_plan([slow, fast], price_per_hour={"slow": 1, "fast": 8})
    assert [row.device for row in recommend(found, by="hours").rows] == ["fast", "slow"]
    assert [row.device for row in recommend(found, by="energy").rows] == ["slow", "fast"]
    assert [row.device for row in recommend(found, by="carbon").rows] == ["slow", "fast"]
    assert [row.device for row in recommend(found, by="money").rows] == ["slow", "fast"]
    assert recommend(found, by="money").ordered_by == "money"
    assert "least money first" in str(recommend(found, by="money"))


def test_unknown_rows_come_last_and_overlaps_are_said(stand_in):
    a, b, c = device("a", peak=None), device("b", peak=1e12), device("c", peak=1.1e12)
    found = recommend(make_plan([a, b, c]), by="hours")
    assert [row.device for row in found.rows] == ["c", "b", "a"]
    assert "c or b: their ranges overlap" in str(found)
    far = recommend(make_plan([b, device("d", peak=1e15)]), by="hours")
    assert "overlap" not in str(far)


def test_recommend_with_the_arguments_of_plan(stand_in):
    found = recommend(None, 1000, 2, 4, [device("a", 90)], by="hours", devices=2)
    assert found.rows[0].devices == 2
    assert found.steps == 500


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: recommend(p, by="speed"), ValueError, "`by` is 'speed'; expected a known name"),
        (lambda p: recommend(p, by="money"), ValueError, "nothing to order by 'money': no price"),
        (lambda p: recommend(None, 5, 5), TypeError, "recommend lacks batch_size, on"),
        (lambda p: recommend(p, 5), TypeError, "`samples` is 5; expected nothing beside a plan"),
    ],
)
def test_recommend_with_bad_input(stand_in, call, error, text):
    found = make_plan([device("a", 90)])
    with pytest.raises(error, match=text):
        call(found)


# === What is shown ===


def varied(**options):
    devices = [device("a"), device("b", 6), device("c", None, None), device("d", peak=None)]
    return make_plan([*devices, device("e", 1)], batch_size=8, **options)


def test_text_is_readable_and_not_too_wide(stand_in):
    text = str(varied(price_per_hour={"a": 2.5}))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("Training net on 1,000 samples, 2 epochs\n")
    assert "one device would need 16 GiB (12 to 20 GiB)" in " ".join(text.split())
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "a close 4 13 1 nothing" in rows
    assert "b no 0 0 6 weights, gradients, optimizer" in rows
    assert "c ? – – 1 nothing" in rows
    assert "e no 0 0 – nothing" in rows
    assert any("the memory of c is not known" in row for row in rows)


def test_costs_stand_in_one_table_where_there_is_room(stand_in):
    narrow = str(make_plan([device("a", 90)], price_per_hour=2))
    assert [line.split() for line in narrow.splitlines() if line.startswith("device")] == [
        ["device", "fits", "batch", "that", "fits", "at", "best", "devices", "sharded"],
        ["device", "time", "energy", "CO2e", "money"],
    ]
    row = next(line for line in narrow.splitlines() if line.startswith("a  ") and "Wh" in line)
    assert " ".join(row.split()) == (
        "a 12 s (6.0–24 s) 0.71 Wh (300 J–2.0 Wh) 330 mg (2.5 mg–1.4 g) 0.01 (<0.01–0.01)"
    )


def test_a_reason_that_holds_for_all_stands_there_once(stand_in):
    text = str(make_plan([device("a", 90), device("b", 90)]))
    assert text.count("no price, so no money") == 1
    assert "a, b" not in text


def test_html_is_escaped_and_json_holds_all(stand_in):
    evil = "<script>alert(1)</script>"
    stand_in.report = lambda size: make_report(size, model=evil)
    found = make_plan([device(evil, 90)])

    opened = set()
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: opened.add(tag)
    parser.feed(found._repr_html_())
    assert "script" not in opened
    assert {"table", "ul", "li"} <= opened
    data = json.loads(found.to_json())
    assert data["rows"][0]["hours"].keys() == {"low", "mid", "high"}
    assert data["steps"] == 500
    assert data["rows"][0]["reasons"]


def test_a_real_plan():
    model = bz.models.cnn((32, 32, 3), num_classes=2)
    found = plan(model, 10_000, 3, 32, ["t4", "h100-sxm"], price_per_hour=1)
    assert found.steps == 3 * 313
    for row in found.rows:
        assert row.fits == "yes"
        assert row.devices == 1
        for name in ("hours", "kwh", "kg_co2e", "money"):
            figure = getattr(row, name)
            assert 0 < figure.low <= figure.mid <= figure.high
        checked = bz.cost.analyze(model, batch_size=int(row.largest_batch.low))
        assert checked.peak_high_bytes <= row.memory_bytes
    best = recommend(found, by="hours")
    assert best.rows[0].device == "h100-sxm"
