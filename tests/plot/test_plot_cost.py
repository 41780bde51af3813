"""Where the cost goes and the roofline: what is drawn, at which numbers, and what is refused."""

from __future__ import annotations

import io
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import bigzoo as bz


def layer(name, flops=0, params=0, memory=0):
    return SimpleNamespace(name=name, forward_flops=flops, params=params, activation_bytes=memory)


def operation(kind, flops, elementwise, moved, dtype="float32", count=1):
    return SimpleNamespace(
        kind=kind,
        flops=flops,
        elementwise_flops=elementwise,
        read_bytes=moved // 2,
        write_bytes=moved - moved // 2,
        dtype=dtype,
        count=count,
    )


OPERATIONS = (
    operation("conv", 1000, 0, 10),
    operation("conv", 1000, 0, 10),
    operation("elementwise", 0, 25, 100, count=3),
    operation("view", 0, 0, 0),
    operation("move", 0, 0, 100),
)


def make_report(layers, operations=OPERATIONS, model="net"):
    return SimpleNamespace(
        model=model,
        batch_size=8,
        layers=tuple(layers),
        operations=tuple(operations),
        forward_flops=sum(one.forward_flops for one in layers),
        activation_bytes=sum(one.activation_bytes for one in layers),
    )


def device(peaks, bandwidth=10.0, title="Machine X"):
    return SimpleNamespace(title=title, bandwidth_bytes_per_second=bandwidth, peak=peaks.get)


TWO = make_report([layer("a", 3e9, 10, 2**20), layer("b", 1e9, 30, 3 * 2**20)])


def bars(figure):
    """Name of a series -> the lengths of its bars, in per cent."""
    return {
        container.get_label().split(":")[0]: [bar.get_width() for bar in container]
        for container in figure.axes[0].containers
    }


def names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def written(ax):
    return [text.get_text().strip() for text in ax.texts]


def marks(ax):
    """Positions of the marks that have one; those of the legend have none."""
    found = [np.asarray(marks.get_offsets()) for marks in ax.collections]
    return np.concatenate([points for points in found if len(points)])


def test_shares_of_each_layer():
    figure = bz.plot.cost(TWO)
    assert names(figure) == ["a", "b"]
    assert bars(figure) == {
        "forward FLOPs": [75.0, 25.0],
        "parameters": [25.0, 75.0],
        "activation memory": [25.0, 75.0],
    }
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "forward FLOPs: 4.00 GFLOP in all",
        "parameters: 40 in all",
        "activation memory: 4.00 MiB in all",
    ]
    assert figure.get_suptitle() == "net, 8 samples"


def test_the_ten_largest_in_the_models_order_and_the_rest_in_words():
    sizes = [5, 1, 7, 1, 9, 1, 8, 6, 5, 9, 8, 7, 6, 1]
    letters = "abcdefghijklmn"
    figure = bz.plot.cost(
        make_report([layer(f"{n}x", s, s, s) for n, s in zip(letters, sizes, strict=True)])
    )
    assert names(figure) == [*(f"{n}x" for n in "aceghijklm"), "4 other layers"]
    assert len(bars(figure)["parameters"]) == 10
    rest = "together 5% of FLOPs, 5% of parameters, 5% of memory"
    assert rest in written(figure.axes[0])


def test_eleven_layers_are_all_drawn():
    figure = bz.plot.cost(make_report([layer(f"{n}x", 1, 1, 1) for n in "abcdefghijk"]))
    assert len(names(figure)) == 11
    assert not any("other" in name for name in names(figure))


def test_a_layer_that_is_called_like_the_rest():
    figure = bz.plot.cost(make_report([layer("a", 1, 1, 1), layer("3 other layers", 3, 3, 3)]))
    assert bars(figure)["parameters"] == [25.0, 75.0]


def test_equal_blocks_of_a_deep_model_are_taken_together():
    blocks = [layer(f"block{i}_{part}", 2, 1, 1) for i in range(12) for part in "abcd"]
    figure = bz.plot.cost(make_report([layer("embed", 0, 12, 0), *blocks]))
    assert names(figure) == ["embed", *(f"block*_{part} (12)" for part in "abcd")]
    assert bars(figure)["forward FLOPs"] == [0.0, 25.0, 25.0, 25.0, 25.0]
    assert bars(figure)["parameters"] == [20.0] * 5


def test_stages_stay_apart_where_that_is_enough():
    blocks = [layer(f"conv{stage}_block{i}", 1, 1, 1) for stage in range(5) for i in range(4)]
    figure = bz.plot.cost(make_report(blocks))
    assert names(figure) == [f"conv{stage}_block* (4)" for stage in range(5)]


def test_layers_that_are_all_alike_are_not_made_one():
    figure = bz.plot.cost(make_report([layer(f"dense_{i}", 1, 1, 1) for i in range(30)]))
    assert len(names(figure)) == 11
    assert names(figure)[-1] == "20 other layers"


def test_intensities_without_hardware():
    ax = bz.plot.cost(TWO).axes[1]
    assert ax.get_title() == "arithmetic intensity"
    heights = {}
    for container in ax.containers:
        for bar in container:
            if bar.get_height():
                heights[container.get_label(), 2 ** bar.get_x()] = bar.get_height()
    # 20 of 320 bytes at 100 FLOP per byte, 300 at a quarter; what computes nothing has none.
    assert heights == {("conv", 64.0): 6.25, ("elementwise", 0.25): 93.75}
    assert len(ax.lines) == 0


def test_roofline_of_a_device():
    ax = bz.plot.cost(TWO, on=device({"float32": 500.0})).axes[1]
    assert ax.get_title() == "roofline of Machine X"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    # Intensity 100 is under the flat part, 1/4 under the slope: 1/4 FLOP/byte x 10 byte/s.
    assert sorted(map(tuple, marks(ax))) == [(0.25, 2.5), (100.0, 500.0)]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    # 300 bytes at 10 byte/s against 2,000 FLOP at 500 FLOP/s.
    assert labels == ["elementwise: 88.2% of the time", "conv: 11.8% of the time"]
    assert "float32 500 FLOP/s" in written(ax)
    assert "memory 10 B/s\nridge at 50.0 FLOP/byte" in written(ax)


def test_a_ceiling_for_each_dtype_of_the_products():
    operations = [operation("matmul", 100, 0, 10, dtype=d) for d in ("bfloat16", "float32")]
    report = make_report([layer("a", 1, 1, 1)], operations)
    ax = bz.plot.cost(report, on=device({"float32": 50.0, "bfloat16": 80.0})).axes[1]
    assert {"float32 50 FLOP/s", "bfloat16 80 FLOP/s"} <= set(written(ax))
    assert sorted(map(tuple, marks(ax))) == [(10.0, 50.0), (10.0, 80.0)]


def test_roofline_of_measured_rates():
    # The rate of elementwise work is in bytes per second: no ceiling for FLOPs.
    rates = {"matmul": 900.0, "conv": 400.0, "elementwise": 0.5}
    on = SimpleNamespace(name="", rates=rates, bandwidth_bytes_per_second=10.0)
    ax = bz.plot.cost(TWO, on=on).axes[1]
    assert ax.get_title() == "roofline of this machine"
    assert sorted(map(tuple, marks(ax))) == [(0.25, 2.5), (100.0, 400.0)]
    assert "conv 400 FLOP/s" in written(ax)
    assert not any("matmul" in text for text in written(ax))


def test_roofline_of_a_calibration():
    from bigzoo.cost._calibration import Calibration, Sample

    def sample(flops, moved):
        return Sample((1, 1, 1, 1), moved, flops, 1.0)

    samples = {"conv": (sample(400, 8),), "elementwise": (sample(0, 10), sample(0, 5))}
    on = Calibration("My CPU", "jax", "float32", "2026-11-22", 0.0, samples)
    ax = bz.plot.cost(TWO, on=on).axes[1]
    assert ax.get_title() == "roofline of My CPU"
    assert sorted(map(tuple, marks(ax))) == [(0.25, 2.5), (100.0, 400.0)]
    half = make_report([layer("a", 1, 1, 1)], [operation("conv", 10, 0, 1, dtype="bfloat16")])
    with pytest.raises(ValueError, match="My CPU was not measured in bfloat16"):
        bz.plot.cost(half, on=on)


def test_figures_with_their_source_are_read():
    figure = SimpleNamespace(value=10.0, source="a sheet")
    ax = bz.plot.cost(TWO, on=device({"float32": 500.0}, bandwidth=figure)).axes[1]
    assert (0.25, 2.5) in set(map(tuple, marks(ax)))


@pytest.mark.parametrize(
    "report",
    [
        make_report([]),
        make_report([], operations=[]),
        make_report([layer("flatten")], operations=[]),
        make_report([layer("only", 5, 5, 5)]),
        make_report([layer("$x_1^2$ \n\x1b" + "long" * 60 + str(i), 1, 1, 1) for i in range(20)]),
        make_report([layer("", 1, 1, 1), layer("名前", 1, 1, 1)], model="$\\frac" * 50),
        make_report([layer("big", 10**30, 10**15, 10**18)]),
    ],
    ids=["no-layers", "nothing", "all-zero", "one-layer", "long-names", "odd-names", "huge"],
)
@pytest.mark.parametrize("on", [None, device({"float32": 1e12}, 1e11)], ids=["bars", "roofline"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_each_report_can_be_drawn(report, on):
    buffer = io.BytesIO()
    bz.plot.cost(report, on=on).savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_names_do_not_run_into_each_other():
    many = [layer("a/very/long/name_" * 8 + n, 1, 1, 1) for n in "abcdefghijkl"]
    figure = bz.plot.cost(make_report(many))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len({*names(figure)}) == len(names(figure))
    assert all(below.y1 <= above.y0 + 1 for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


@pytest.mark.parametrize(
    ("report", "on", "error", "text"),
    [
        (None, None, TypeError, "`report` is None; expected a cost report. Call bz.cost.analyze"),
        ({"layers": []}, None, TypeError, "expected a cost report"),
        (TWO, "h100-sxm", TypeError, r"`on` is 'h100-sxm'; expected a device or a calibration"),
        (TWO, 5, TypeError, "`on` is 5; expected a device"),
        (TWO, device({}), ValueError, "The peak of Machine X in float32 is not known"),
        (TWO, device({"float32": 1.0}, None), ValueError, "bandwidth of Machine X isn.t known"),
        (TWO, SimpleNamespace(rates={"conv": 1.0}), ValueError, "has no rate for memory"),
        (TWO, SimpleNamespace(rates={}), ValueError, "has no rate for conv"),
    ],
)
def test_bad_input(report, on, error, text):
    with pytest.raises(error, match=text):
        bz.plot.cost(report, on=on)


def test_a_real_report_on_a_real_device():
    pytest.importorskip("keras")
    from bigzoo.cost import analyze, hardware

    report = analyze(bz.models.cnn((32, 32, 3), num_classes=2), batch_size=8)
    figure = bz.plot.cost(report, on=hardware.get("a100-80"))
    # The layers' numbers are shares of the report's own; a few small layers are among the others.
    (legend,) = figure.legends
    assert legend.get_texts()[1].get_text() == f"parameters: {report.params:,} in all"
    drawn = {name: sum(lengths) for name, lengths in bars(figure).items()}
    assert 95 < drawn["forward FLOPs"] < 100.001
    assert 95 < drawn["parameters"] < 100.001
    assert 50 < drawn["activation memory"] < 100.001
    points = marks(figure.axes[1])
    device = hardware.get("a100-80")
    assert points[:, 1].max() <= device.peak("float32")
    assert np.all(points[:, 1] <= points[:, 0] * device.bandwidth_bytes_per_second.value * 1.001)
