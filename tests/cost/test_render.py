"""Reports as text, as HTML and as JSON: what stands there, how wide, and that nothing runs."""

from __future__ import annotations

import dataclasses
import html.parser
import json

import numpy as np
import pytest

from bigzoo._tables import WIDTH, Table
from bigzoo.cost._report import CostReport, Operation, Tally

MIB = 2**20


def make_report(layers=20, **changes):
    """A report by hand; `layers` is their number, or the layers themselves."""
    tallies = (
        layers
        if isinstance(layers, tuple)
        else tuple(
            Tally(f"conv{i}", "Conv2D", 1000 + i, i * 10**9, 3 * i * 10**9, 0, i * MIB, i * MIB)
            for i in range(1, layers + 1)
        )
    )
    forward = sum(layer.forward_flops for layer in tallies)
    report = CostReport(
        model="net",
        backend="tensorflow",
        batch_size=32,
        input_shapes={"image": (32, 224, 224, 3)},
        dtype="float32",
        optimizer="adam",
        training=True,
        params=25_636_712,
        trainable_params=25_583_592,
        weight_bytes=int(97.5 * MIB),
        forward_flops=forward,
        forward_macs=forward // 2,
        padding_flops=forward // 50,
        elementwise_flops=10**9,
        training_flops=3 * forward,
        gradient_bytes=97 * MIB,
        optimizer_bytes=195 * MIB,
        activation_bytes=sum(layer.activation_bytes for layer in tallies),
        input_bytes=18 * MIB,
        peak_bytes=int(1.9 * 2**30),
        peak_low_bytes=int(1.6 * 2**30),
        peak_high_bytes=int(2.4 * 2**30),
        peak_method="traced",
        bytes_moved=50 * 2**30,
        arithmetic_intensity=12.34,
        layers=tallies,
        kinds=(
            Tally("conv", forward_flops=forward, training_flops=3 * forward, bytes_moved=40 * MIB),
            Tally("elementwise", elementwise_flops=10**9, bytes_moved=10 * MIB),
        ),
        unknown_ops={},
        operations=(Operation("Conv2D", "conv", "forward", "conv1", "float32", 10, 0, 4, 4),),
        how={"params": "counted by Keras", "peak_bytes": "states and the arrays of the trace"},
    )
    return dataclasses.replace(report, **changes)


def line(text, start):
    (found,) = [row for row in text.splitlines() if row.startswith(start)]
    return " ".join(found.split())


def test_figures_with_units_and_how_they_were_obtained():
    text = str(make_report())
    assert text.startswith("net: what a training step on 32 samples costs\n")
    assert "input: image (32, 224, 224, 3); dtype: float32; optimizer: adam" in text
    expected = "parameters 25,636,712 (25,583,592 trainable) counted by Keras"
    assert line(text, "parameters") == expected
    assert line(text, "weights") == "weights 97.5 MiB"
    assert line(text, "forward") == "forward 210 GFLOP (105 GMAC); 6.56 GFLOP a sample"
    assert line(text, "training") == "training 630 GFLOP, 3.00 × forward"
    peak = "peak memory 1.9 GiB (1.6 to 2.4 GiB, traced)"
    assert line(text, "peak memory") == f"{peak} states and the arrays of the trace"
    assert line(text, "intensity") == "intensity 12.3 FLOP per byte"


def test_the_largest_layers_come_first_and_the_rest_is_summed():
    text = str(make_report())
    assert line(text, "conv20").startswith("conv20 Conv2D 1,020 20.0 GFLOP 9.5%")
    assert line(text, "conv9 ")
    assert "\nconv8 " not in text
    assert line(text, "… 8 more layers").startswith("… 8 more layers 8,036 36.0 GFLOP 17.1%")
    order = [text.index(f"\nconv{i} ") for i in range(20, 8, -1)]
    assert order == sorted(order)


def test_one_layer_too_many_is_shown_and_not_summed():
    text = str(make_report(layers=13))
    assert "more layers" not in text
    assert line(text, "conv1 ")


def test_prediction_has_no_lines_about_training():
    text = str(make_report(training=False, optimizer="", batch_size=1))
    assert text.startswith("net: what a prediction on 1 sample costs\n")
    assert "\ntraining" not in text
    assert "gradients" not in text
    assert "optimizer" not in text
    assert "a sample" not in text


def test_unknown_operations_are_always_said():
    assert "Not counted" not in str(make_report())
    report = make_report(unknown_ops={"Foo": 3, "Bar": 1})
    sentence = "Not counted, because no rule knows them: Foo (3 times), Bar (once)."
    assert sentence in str(report)
    assert sentence in report._repr_html_()


def test_a_model_without_flops_or_layers():
    empty = make_report(
        layers=0, kinds=(), forward_flops=0, forward_macs=0, training_flops=0, padding_flops=0
    )
    assert line(str(empty), "training") == "training 0 FLOP"
    assert "Per layer" not in str(empty)
    zero = make_report(layers=(Tally("flatten", "Flatten"),))
    assert line(str(zero), "flatten") == "flatten Flatten 0 0 – 0 0 B –"


LONG = "backbone/stage_3/a_name_that_goes_on_and_on_{}_for_ever/depthwise_separable_convolution"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"how": dict.fromkeys(CostReport.__dataclass_fields__, "words " * 40)},
        {"model": "m" * 300, "dtype": "d" * 10, "unknown_ops": {f"Op{i}": i for i in range(99)}},
        {
            "layers": tuple(
                Tally(LONG.format(i), "T" * 50, 10**10, 10**18, 10**18, 0, 10**15, 1)
                for i in range(30)
            )
        },
    ],
    ids=["plain", "long-how", "long-names", "long-layers"],
)
def test_no_line_is_longer_than_a_terminal(changes):
    lines = str(make_report(**changes)).splitlines()
    assert max(map(len, lines)) <= WIDTH


def test_names_that_are_too_long_stay_apart():
    layers = tuple(Tally(LONG.format(i), "Conv2D", 10, 10**9) for i in range(8))
    names = [
        row.split()[0] for row in str(make_report(layers=layers)).splitlines() if "Conv2D" in row
    ]
    assert len(set(names)) == 8


def test_control_characters_do_not_reach_the_terminal():
    layers = (Tally("bad\x1b[2J\nname", "Dense\r", 1, 10**9),)
    text = str(make_report(layers=layers, model="a\x07b"))
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "bad?[2J?name" in text


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.opened, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_data(self, data):
        self.text += data


def test_html_is_tables_of_escaped_text_that_load_nothing():
    evil = "<script>alert(1)</script>"
    report = make_report(
        model=evil,
        layers=(Tally(evil, evil, 1, 10**9),),
        kinds=(Tally(evil, forward_flops=1),),
        unknown_ops={evil: 1},
        input_shapes={evil: (1, 2)},
        how={"params": evil},
    )
    tags = Tags()
    tags.feed(report._repr_html_())
    assert set(tags.opened) == {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags.text.count(evil) >= 5
    for word in ("http", "url(", "color:#", "background:#", "black", "white"):
        assert word not in report._repr_html_()


def test_dict_holds_every_field_but_the_operations():
    report = make_report()
    found = report.to_dict()
    assert set(found) == set(CostReport.__dataclass_fields__) - {"operations"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["layers"][0] == dataclasses.asdict(report.layers[0])
    assert found["input_shapes"] == {"image": [32, 224, 224, 3]}
    (operation,) = report.to_dict(operations=True)["operations"]
    assert operation["dims"] == [0, 0, 0, 0]
    assert json.loads(report.to_json()) == found
    assert "operations" in json.loads(report.to_json(operations=True, indent=None))


def test_numbers_of_numpy_and_infinities_become_json():
    report = make_report(
        params=np.int64(3), arithmetic_intensity=np.float32(0.5), peak_bytes=float("inf")
    )
    found = report.to_dict()
    assert type(found["params"]) is int
    assert type(found["arithmetic_intensity"]) is float
    assert found["peak_bytes"] is None
    json.dumps(found, allow_nan=False)


def test_operations_is_a_switch():
    with pytest.raises(TypeError, match="`operations` is 1; expected True or False"):
        make_report().to_dict(operations=1)


def test_table_without_header_and_with_wrapped_last_column():
    table = Table(("", ""), (("name", "words " * 30), ("other", "")), left=(0, 1), wrap=True)
    lines = table.text().splitlines()
    assert lines[0].startswith("name   words")
    assert lines[1].startswith("       words")
    assert lines[-1] == "other"
    assert "thead" not in table.html()


def test_report_of_a_real_model():
    keras = pytest.importorskip("keras")
    from bigzoo.cost import analyze

    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(4, name="fc")(inputs), name="small")
    report = analyze(model, batch_size=2)
    assert line(str(report), "parameters").startswith("parameters 36, all trainable")
    assert line(str(report), "fc").startswith("fc Dense 36 128 FLOP 100%")
    assert json.loads(report.to_json())["forward_flops"] == 128
