"""`calibrate` refuses where it can't tell, and times what it says; `measure` and `compare`."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import bigzoo as bz
from bigzoo.cost import CostReport, Measurement, analyze, calibrate, compare, measure
from bigzoo.cost import _calibrate as module
from bigzoo.cost._calibration import Calibration, kind_of
from bigzoo.cost._kernels import compiled, gradient, random, timed
from bigzoo.cost._probes import Probe, probes


@pytest.fixture
def steady(monkeypatch):
    """A machine that does nothing else and takes 1 ms for everything, calls counted."""
    calls = []

    def one_millisecond(function, arguments, seconds):
        calls.append(seconds)
        return 1e-3

    def without_arrays(dtype):
        return [dataclasses.replace(one, make=lambda: (None, ())) for one in probes(dtype)]

    monkeypatch.setattr(module, "timed", one_millisecond)
    monkeypatch.setattr(module, "probes", without_arrays)
    monkeypatch.setattr(module, "busy_share", lambda seconds: 0.02)
    return calls


def test_calibration_of_a_steady_machine(steady):
    machine = calibrate(seconds=2.0)
    assert isinstance(machine, Calibration)
    assert machine.load == 0.02
    assert machine.step_overhead_seconds == 1e-3
    assert machine.backend == keras.backend.backend()
    assert sum(steady) == pytest.approx(2.0, rel=0.05)
    assert {"matmul", "conv weight gradient", "depthwise", "update"} <= set(machine.samples)


def probe(kind, flops=10**6, forward=False, repeats=1):
    return Probe(kind, lambda: None, flops=flops, repeats=repeats, forward=forward)


def seconds_of(samples, kind):
    return [sample.seconds for sample in samples[kind]]


def test_the_best_pass_counts_without_the_programs_start():
    found = [probe("matmul"), probe("elementwise", repeats=4)]
    samples = module._samples(found, [[3.0, 9.0], [2.0, 8.5], [4.0, 10.0]], start=0.5)
    assert seconds_of(samples, "matmul") == [1.5]
    assert seconds_of(samples, "elementwise") == [2.0]


def test_on_torch_both_gradients_lose_the_time_of_their_forward_pass(monkeypatch):
    """There it runs within them; not the other gradient's time."""
    found = [
        probe("conv"),
        probe("conv input gradient", forward=True),
        probe("conv weight gradient", forward=True),
    ]
    times = [[2.0, 5.0, 7.0]]
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    samples = module._samples(found, times, start=1.0)
    assert seconds_of(samples, "conv") == [1.0]
    assert seconds_of(samples, "conv input gradient") == [3.0]
    assert seconds_of(samples, "conv weight gradient") == [5.0]
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert seconds_of(module._samples(found, times, 1.0), "conv weight gradient") == [6.0]


def test_every_operation_of_every_kind_has_a_probe():
    """A kind without one would only show when a model has it."""
    kinds = {probe.kind for probe in probes("float32")}
    x = inputs = keras.Input((16, 16, 3))
    x = layers.DepthwiseConv2D(3)(layers.Conv2D(8, 3, activation="gelu")(x))
    x = layers.Dropout(0.1)(layers.MaxPooling2D()(layers.BatchNormalization()(x)))
    x = layers.Reshape((-1, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.Dense(4)(layers.LayerNormalization()(x))
    found = {kind_of(op) for op in analyze(keras.Model(inputs, x), 2).operations}
    assert found <= kinds
    assert {"depthwise weight gradient", "function", "update", "random", "pool"} <= found


# The smallest of each kind.
SMALLEST = {
    one.kind: one
    for one in sorted(probes("float32"), key=lambda one: (one.flops, one.bytes), reverse=True)
}


@pytest.mark.parametrize("one", SMALLEST.values(), ids=lambda one: one.kind)
def test_probes_run(one):
    """Each is a real computation with finite numbers in it."""
    function, arguments = one.make()
    for leaf in keras.tree.flatten(function(*arguments)):
        values = ops.convert_to_numpy(ops.cast(leaf, "float32"))
        assert np.isfinite(values).all()
    assert (one.flops > 0) != (one.bytes > 0)


def test_a_busy_machine_is_refused(monkeypatch):
    monkeypatch.setattr(module, "busy_share", lambda seconds: 0.63)
    with pytest.raises(RuntimeError, match="Other programs use 63% of the processors, and at most"):
        calibrate()


def test_a_drifting_machine_is_refused():
    module._check_drift([[1.0, 2.0, 3.0], [1.2, 2.1, 3.0]])
    module._check_drift([[1.0, 2.0, 3.0], [9.0, 2.1, 3.0]])  # one probe alone was disturbed
    with pytest.raises(RuntimeError, match=r"took 1\.50 times as long in one pass as in another"):
        module._check_drift([[1.0, 2.0, 3.0], [1.5, 3.0, 4.8]])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: calibrate(0), ValueError, "`seconds` is 0"),
        (lambda: calibrate(dtype="float"), ValueError, "`dtype` is 'float'"),
        (lambda: calibrate(max_load=2), ValueError, "`max_load` is 2"),
    ],
)
def test_bad_input_of_calibrate(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [((100, 1000), (150, 1100), 0.5), ((5, 10), (5, 20), 0.0), ((0, 10), (30, 20), 1.0)],
)
def test_busy_share(before, after, share):
    reads = iter([before, after])
    assert module.busy_share(0.0, lambda: next(reads), lambda seconds: None) == share


def test_busy_share_of_this_machine_is_a_share():
    share = module.busy_share(0.05)
    assert share is None or 0 <= share <= 1


def test_timed_takes_the_median(monkeypatch):
    import bigzoo.cost._kernels as kernels

    # Five calls: start, end of each; the third one takes ten times as long.
    clock = iter([0.0, 0, 1, 1, 2, 2, 12, 12, 13, 13, 14, 14, 100, 100, 101, 101])
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: float(next(clock)))
    assert timed(lambda: np.ones(1), (), 5) in (1.0, 2.0)


@pytest.mark.parametrize("index", [0, 1])
def test_gradient_is_the_gradient(index):
    """Of x @ w, by the closed formula."""
    x, w, upstream = random((3, 4)), random((4, 5), seed=1), random((3, 5), seed=2)
    found = ops.convert_to_numpy(gradient(ops.matmul, index)(upstream, x, w))
    x, w, upstream = (ops.convert_to_numpy(array) for array in (x, w, upstream))
    expected = upstream @ w.T if index == 0 else x.T @ upstream
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_compiled_gives_the_functions_result():
    x = random((8,))
    np.testing.assert_allclose(
        ops.convert_to_numpy(compiled(lambda y: y * 2)(x)), 2 * ops.convert_to_numpy(x)
    )


# === measure ===


def model_with_states():
    x = inputs = keras.Input((8,))
    x = layers.Dropout(0.3)(layers.BatchNormalization()(layers.Dense(16)(x)))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("training", [True, False])
def test_measure_leaves_the_model_as_it_was(training):
    model = model_with_states()
    before = [np.array(ops.convert_to_numpy(v.value)) for v in model.variables]
    found = measure(model, 4, steps=5, training=training)
    assert found.step_low_seconds <= found.step_seconds <= found.step_high_seconds
    assert (found.steps, found.batch_size, found.training) == (5, 4, training)
    assert found.samples_per_second == pytest.approx(4 / found.step_seconds)
    for one, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(variable.value))
    assert "step of 4 samples" in str(found)


def test_measured_steps_train(monkeypatch):
    """Were the steps empty, the time would mean nothing."""
    import contextlib

    import bigzoo.cost._measure as measuring

    monkeypatch.setattr(measuring, "_unchanged", lambda model: contextlib.nullcontext())
    model = bz.models.mlp(8)
    before = [np.array(ops.convert_to_numpy(v.value)) for v in model.trainable_variables]
    taken = []
    original = measuring._training

    def spy(*arguments):
        step = original(*arguments)
        return lambda x: taken.append(float(ops.convert_to_numpy(step(x)))) or taken[-1]

    monkeypatch.setattr(measuring, "_training", spy)
    monkeypatch.setattr(measuring, "wait", lambda result: None)
    measure(model, 4, steps=30, optimizer=keras.optimizers.Adam(0.01))
    assert taken[-1] < 0.5 * taken[0]
    if keras.backend.backend() != "jax":  # there the states are copies
        after = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
        assert any(not np.array_equal(one, two) for one, two in zip(before, after, strict=True))


def test_measure_takes_token_ids():
    found = measure(bz.models.gpt("micro"), 2, (16,), steps=2, training=False)
    assert found.step_seconds > 0


@pytest.mark.parametrize("training", [True, False])
def test_measured_mfu_is_the_models_flops_over_the_peak(training):
    model, device = bz.models.mlp(8), bz.cost.hardware.get("t4")
    found = measure(model, 4, steps=2, training=training, on="t4")
    report = analyze(model, 4, training=training)
    flops = report.training_flops if training else report.forward_flops
    expected = flops / found.step_seconds / device.peak("float32")
    assert found.mfu == pytest.approx(expected) and found.on == "t4"
    assert "of the peak of t4" in str(found)
    assert found.to_dict()["mfu"] == found.mfu


def test_measured_mfu_is_unknown_without_a_peak():
    assert measure(bz.models.mlp(8), 4, steps=1).mfu is None
    found = measure(bz.models.mlp(8), 4, steps=1, on="cpu-amx")
    assert (found.mfu, found.on) == (None, "cpu-amx")


class Whole(layers.Layer):
    """Gives the place of the largest value."""

    def call(self, x):
        return ops.argmax(x, axis=-1)


class Failing(layers.Layer):
    """Knows its shape, and nothing else."""

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        raise ZeroDivisionError("no reason")


class Places(layers.Layer):
    """The place of each token."""

    def call(self, x):
        return ops.arange(ops.shape(x)[1], dtype=x.dtype) + 0 * x


def model_with(layer):
    inputs = keras.Input((8,))
    return keras.Model(inputs, layer(layers.Dense(4)(inputs)), name="odd")


def test_whole_number_outputs_are_measured_in_inference():
    assert measure(model_with(Whole()), 2, steps=1, training=False).step_seconds > 0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: measure(model_with(Whole()), 2), ValueError, "no float output.*training=False"),
        (
            lambda: measure(model_with(Failing()), 2),
            RuntimeError,
            "first training step of the model 'odd' failed on inputs of shape .2, 8.: .*no reason",
        ),
        (
            lambda: measure(model_with(Failing()), 2, training=False),
            RuntimeError,
            "first inference step",
        ),
        (lambda: measure(bz.models.mlp(8), 2, on="t5"), ValueError, "Did you mean"),
        (lambda: measure(bz.models.mlp(8), 2, on=3), TypeError, "`on` is 3"),
    ],
)
def test_what_cannot_be_measured_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_strings_cannot_be_measured():
    from bigzoo.cost._measure import _random_input
    from bigzoo.cost._program import Spec

    with pytest.raises(ValueError, match="takes strings, and `measure` makes up numbers"):
        _random_input(Spec((2, 1), "string"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_models_of_a_strategy_cannot_be_measured():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = model_with(layers.ReLU())
    with pytest.raises(
        ValueError, match=r"'odd' is made for several devices.*outside the strategy"
    ):
        measure(model, 2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others clip such positions")
def test_more_tokens_than_positions_are_said():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layers.Embedding(4, 2)(Places()(inputs)))
    with pytest.raises(
        RuntimeError, match=r"of shape \(2, 9\): indices\[.*not in \[0, 4\).*no more tokens"
    ):
        measure(model, 2, (9,))


def measurement(**fields):
    base = {
        "batch_size": 4,
        "steps": 3,
        "step_seconds": 0.1,
        "step_low_seconds": 0.09,
        "step_high_seconds": 0.12,
        "peak_bytes": None,
        "backend": "any",
        "training": True,
    }
    return Measurement(**{**base, **fields})


def test_compare_is_signed():
    estimate = bz.cost.predict(analyze(bz.models.mlp(8), 4), on="t4")
    found = compare(estimate, measurement(step_seconds=estimate.step_seconds * 2))
    assert found.errors == {"step_seconds": pytest.approx(-0.5)}
    high = compare(estimate, measurement(step_seconds=estimate.step_seconds / 2))
    assert high.errors["step_seconds"] == pytest.approx(1.0)
    assert compare(estimate, measurement(step_seconds=estimate.step_seconds)).inside
    assert not compare(estimate, measurement(step_seconds=estimate.step_high_seconds * 2)).inside
    assert "-50.0%" in str(found)


def test_compare_all_fields_of_an_estimate():
    estimate = bz.cost.predict(analyze(bz.models.mlp(8), 4), on="t4")
    real = {"peak_bytes": 2 * estimate.peak_bytes, "mfu": estimate.mfu / 4}
    found = compare(estimate, measurement(on="t4", **real))
    assert list(found.errors) == ["step_seconds", "peak_bytes", "mfu"]
    assert found.errors["peak_bytes"] == pytest.approx(-0.5)
    assert found.errors["mfu"] == pytest.approx(3.0)
    assert "+300.0%" in str(found)
    # A share of another peak is another figure.
    other = compare(estimate, measurement(on="h100-sxm", **real))
    assert list(other.errors) == ["step_seconds", "peak_bytes"]


@pytest.mark.parametrize(("training", "text"), [(True, "training"), (False, "inference")])
def test_compare_refuses_another_kind_of_step(training, text):
    report = analyze(bz.models.mlp(8), 4, training=not training)
    for estimate in (report, bz.cost.predict(report, on="t4")):
        with pytest.raises(ValueError, match=f"expected one for {text}, which was measured"):
            compare(estimate, measurement(training=training, peak_bytes=1))
        compare(estimate, measurement(training=not training, peak_bytes=1))


def test_compare_memory():
    report = analyze(bz.models.mlp(8), 4)
    assert isinstance(report, CostReport)
    found = compare(report, measurement(peak_bytes=2 * report.peak_bytes))
    assert found.errors == {"peak_bytes": pytest.approx(-0.5)}
    assert found.inside is (report.peak_high_bytes >= 2 * report.peak_bytes)
    assert "The measured memory is" in str(found)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda r: compare(r, 3), TypeError, "Call bz.cost.measure"),
        (lambda r: compare(3, measurement()), TypeError, "a StepEstimate or a CostReport"),
        (
            lambda r: compare(bz.cost.predict(r, "t4", 2), measurement(batch_size=8)),
            ValueError,
            "for 2 devices.*for one device",
        ),
        (lambda r: compare(r, measurement(batch_size=8)), ValueError, "the same batch"),
        (lambda r: compare(r, measurement()), ValueError, "no field in common"),
        (lambda r: measure(bz.models.mlp(8), 4, steps=0), ValueError, "`steps` is 0"),
    ],
)
def test_bad_input_of_measure_and_compare(call, error, text):
    with pytest.raises(error, match=text):
        call(analyze(bz.models.mlp(8), 4))


@pytest.mark.large
def test_calibrate_for_real():
    """On whatever load there is: rates are above 0 and below what any processor reaches."""
    module_limit = module._MAX_DRIFT
    try:
        module._MAX_DRIFT = math.inf
        machine = calibrate(seconds=3, max_load=1.0)
    finally:
        module._MAX_DRIFT = module_limit
    for kind, rate in machine.rates.items():
        assert 1e5 < rate < 1e16, kind
    assert 0 < machine.overhead_seconds < 1e-2
