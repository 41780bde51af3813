"""Receipts: figures from outside, words that fit them, and no word where nothing was measured."""

import gzip
import json
import time

import keras
import numpy as np
import pytest

from bigzoo.deploy import _weigh
from bigzoo.deploy._difference import Difference
from bigzoo.deploy._latency import Latency, latency
from bigzoo.deploy._make_receipt import Subject, make_receipt, take_rows
from bigzoo.deploy._receipt import Receipt, Side, Trial


def network() -> keras.Model:
    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(8, "relu", name="hidden")(x)
    y = keras.layers.Dropout(0.5, name="drop")(y)
    return keras.Model(x, keras.layers.Dense(2, "softmax", name="out")(y), name="net")


def sleeper(seconds):
    def call(x):
        time.sleep(seconds)

    return call


# --- weights and files --------------------------------------------------------------------------


def test_sizes_are_those_of_the_file_and_of_gzip(tmp_path):
    content = bytes(range(256)) * 5000 + b"\0" * 500_000
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(content)
    (tmp_path / "sub" / "b.bin").write_bytes(content[:1000])
    plain, packed = _weigh.sizes(tmp_path / "a.bin")
    assert plain == len(content)
    assert packed == pytest.approx(len(gzip.compress(content, 6)), rel=0.001)
    assert _weigh.sizes(tmp_path)[0] == len(content) + 1000


def test_zeros_are_counted_once_per_weight():
    model = network()
    kernel = np.ones((4, 8))
    kernel[:, 0] = 0
    model.get_layer("hidden").kernel.assign(kernel)
    # Biases start at zero: 8 and 2 of them.
    assert _weigh.parameters(model) == (4 * 8 + 8 + 8 * 2 + 2, 4 + 8 + 2)


def test_the_optimizers_state_is_not_weighed():
    model = network()
    before = _weigh.model_sizes(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.ones((4, 4)), np.zeros(4), verbose=0)
    assert abs(_weigh.model_sizes(model)[0] - before[0]) < 64


def test_flops_are_those_of_the_closed_formula():
    assert _weigh.flops(network()) == 2 * 4 * 8 + 2 * 8 * 2


# --- latencies ----------------------------------------------------------------------------------


def test_a_slower_call_is_called_slower():
    found = latency(sleeper(0.002), sleeper(0.02), np.zeros((3, 1)), 3, seconds=0.3)
    assert found.verdict == "slower"
    assert found.speedup < 0.5
    assert found.after_seconds >= 0.02
    assert found.batch_size == 3


def test_a_faster_call_is_called_faster():
    assert latency(sleeper(0.02), sleeper(0.002), None, 1, seconds=0.3).verdict == "faster"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.1, 1.3, "faster"), (0.7, 0.9, "slower"), (0.9, 1.2, "alike"), (1.0, 1.5, "alike")],
)
def test_what_a_quarter_of_the_rounds_denies_is_not_claimed(low, high, verdict):
    assert Latency(1, 1.0, 1.0, (low + high) / 2, low, high).verdict == verdict


def test_rows_are_repeated_where_there_are_too_few():
    rows = take_rows({"a": np.arange(3), "b": np.arange(6).reshape(3, 2)}, 5)
    assert rows["a"].tolist() == [0, 1, 2, 0, 1]
    assert rows["b"].shape == (5, 2)


# --- the receipt --------------------------------------------------------------------------------


def make(**changes) -> Receipt:
    values = {
        "action": "quantize",
        "model": "net",
        "before": Side("Keras", 4_000_000, 3_000_000, 1_000_000, 0, 2_000_000, 0.91),
        "after": Side("LiteRT, int8", 1_000_000, 900_000, 1_000_000, None, 2_000_000, 0.89),
        "difference": Difference(0.01, 0.02, 0.995, 200),
        "latencies": (
            Latency(1, 4e-3, 1e-3, 4.0, 3.5, 4.5),
            Latency(32, 1e-2, 2e-2, 0.5, 0.4, 0.6),
        ),
        "score_name": "accuracy",
        "score_rows": 200,
        "notes": ("A remark.",),
        "machine": "a computer",
        "versions": {"keras": "3"},
    }
    return Receipt(**{**values, **changes})


def test_table_says_what_was_gained_and_lost():
    text = str(make())
    for part in (
        "net: quantize",
        "LiteRT, int8",
        "0.250 ×",
        "accuracy, 200 rows",
        "-2.0 points",
        "99.5%",
        "1.00 ms",
        "4.0 × as fast (3.5 to 4.5)",
        "slower: 0.50 × (0.40 to 0.60)",
        "It got slower at batch 32.",
        "A remark.",
        "a computer",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_nothing_is_said_of_what_was_not_measured():
    bare = make(latencies=(), difference=None, before=Side("a"), after=Side("b"))
    text = str(bare)
    for word in ("fast", "slow", "latency", "FLOPs", "accuracy", "difference", "bytes"):
        assert word not in text


def test_trials_have_a_table():
    trials = (
        Trial("dynamic", 1000, 0.5, {1: 0.3}, "refused: 50.0% agree"),
        Trial("int8", None, None, {}, "failed"),
    )
    text = str(make(tried=trials))
    assert "dynamic" in text
    assert "refused: 50.0% agree" in text


def test_json_holds_every_figure():
    found = json.loads(make().to_json())
    assert found["after"]["file_bytes"] == 1_000_000
    assert found["latencies"][0]["speedup"] == 4.0
    assert found["difference"]["agreement"] == 0.995
    assert json.loads(make(difference=Difference(np.inf, np.inf, 0.0, 1)).to_json())


def test_html_escapes():
    html = make(model="<script>", notes=("<b>",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;" in html


def test_unknown_action():
    with pytest.raises(ValueError, match="Did you mean 'export'"):
        make(action="exports")


def test_make_receipt_compares_weighs_and_times():
    model = network()
    other = keras.models.clone_model(model)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")

    def call(which):
        return lambda rows: keras.ops.convert_to_numpy(which(rows, training=False))

    receipt = make_receipt(
        "distill",
        Subject("teacher", call(model), model),
        Subject("student", call(other), other),
        x,
        kind="softmax",
        score=("accuracy", 1.0, 0.5, 6),
    )
    # The same weights; the configurations differ in names.
    assert abs(receipt.before.file_bytes - receipt.after.file_bytes) < 200
    assert receipt.before.flops == 2 * 4 * 8 + 2 * 8 * 2
    assert [one.batch_size for one in receipt.latencies] == [1, 32]
    assert receipt.difference.samples == 6
    assert 0 < receipt.difference.largest < 1
    assert receipt.versions["keras"] == keras.__version__
    again = make_receipt(
        "distill",
        Subject("a", call(model), model),
        Subject("b", call(model), model),
        x,
        measure=False,
    )
    assert again.difference.largest == 0.0
    assert not again.latencies
    assert again.before.flops is None


def test_open_inputs_by_name_take_the_shapes_of_the_rows():
    inputs = {name: keras.Input((None, 3), name=name) for name in "ab"}
    x = keras.layers.Add()([keras.layers.Dense(4)(tensor) for tensor in inputs.values()])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    rows = {name: np.ones((2, 5, 3), "float32") for name in "ab"}

    def call(x):
        return keras.ops.convert_to_numpy(model(x, training=False))

    subject = Subject("net", call, model)
    other = Subject("file", call, model, exact=False)
    receipt = make_receipt("compare", subject, other, rows, times=())
    assert receipt.before.flops == 2 * (2 * 5 * 3 * 4)
    # After quantisation neither the zeros nor the floating-point operations are the model's.
    assert receipt.after.flops is None and receipt.after.zero_params is None
    assert receipt.before.zero_params == 8
