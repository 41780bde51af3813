"""`calibrate` refuses where it can't tell, and times what it says; `measure` and `compare`."""

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
from bigzoo.cost._probes import probes


@pytest.fixture
def steady(monkeypatch):
    """A machine that does nothing else and takes 1 ms for everything, calls counted."""
    calls = []

    def one_millisecond(function, arguments, seconds):
        calls.append(seconds)
        return 1e-3

    monkeypatch.setattr(module, "timed", one_millisecond)
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


@pytest.mark.parametrize("probe", list(probes("float32")), ids=lambda probe: probe.kind)
def test_probes_run(probe):
    """Each is a real computation with finite numbers in it."""
    if probe.flops > 2e9 or probe.bytes > 2**27:
        pytest.skip("too long for an everyday test; the others of its kind run")
    function, arguments = probe.make()
    for leaf in keras.tree.flatten(function(*arguments)):
        values = ops.convert_to_numpy(ops.cast(leaf, "float32"))
        assert np.isfinite(values).all()
    assert (probe.flops > 0) != (probe.bytes > 0)


def test_a_busy_machine_is_refused(monkeypatch):
    monkeypatch.setattr(module, "busy_share", lambda seconds: 0.63)
    with pytest.raises(RuntimeError, match="Other programs use 63% of the processors, and at most"):
        calibrate()


def test_a_drifting_machine_is_refused(monkeypatch):
    times = iter(range(1, 1000))
    monkeypatch.setattr(module, "busy_share", lambda seconds: 0.0)
    monkeypatch.setattr(module, "timed", lambda *_: 1e-3 * next(times))
    with pytest.raises(RuntimeError, match="times as long at one end of the calibration"):
        calibrate()


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


def test_compare_memory():
    report = analyze(bz.models.mlp(8), 4)
    assert isinstance(report, CostReport)
    found = compare(report, measurement(peak_bytes=2 * report.peak_bytes))
    assert found.errors == {"peak_bytes": pytest.approx(-0.5)}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda r: compare(r, 3), TypeError, "Call bz.cost.measure"),
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
