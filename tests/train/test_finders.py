"""The range test and the search for a batch size, and that they leave no trace."""

import random

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train import _memory
from bigzoo.train._finders import _suggest
from bigzoo.train._untouched import untouched

L = keras.layers


def problem(n=128):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype("float32")
    return x, x @ np.array([[3.0], [2.0], [-1.0], [0.5]], "float32")


def network(optimizer="sgd"):
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(8, "relu"), L.BatchNormalization(), L.Dropout(0.2), L.Dense(1)]
    )
    return bz.compile(model, optimizer=optimizer, speed="keras", verbose=False)


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def test_the_suggestion_is_on_the_slope():
    x, y = problem()
    model = bz.compile(bz.models.linear_regression(4), optimizer="sgd", verbose=False)
    found = bz.find_learning_rate(model, x, y, num_steps=60)
    assert 1e-3 < found.suggestion < 0.5
    assert len(found.learning_rates) == len(found.losses) == len(found.raw_losses)
    assert (np.diff(found.learning_rates) > 0).all()
    assert str(found).startswith("suggested learning rate 0.")
    assert found.losses[0] == pytest.approx(found.raw_losses[0])


def test_it_ends_where_the_loss_rises():
    x, y = problem()
    model = bz.compile(bz.models.linear_regression(4), optimizer="sgd", verbose=False)
    found = bz.find_learning_rate(model, x, y, max_rate=10, num_steps=60)
    assert found.diverged
    assert len(found.losses) < 60
    assert np.isfinite(found.losses).all()
    assert found.suggestion < 1


def test_suggestion_ignores_noise_on_the_plateau():
    rates = np.geomspace(1e-6, 1, 100)
    losses = 1 / (1 + (rates / 1e-2) ** 2) + 0.03 * np.sin(np.arange(100.0))
    assert 3e-3 < _suggest(rates, losses) < 3e-2
    rising = np.linspace(1, 2, 100)
    assert _suggest(rates, rising) == pytest.approx(1e-7)


@pytest.mark.parametrize(
    ("finder", "trained", "optimizer"),
    [("rate", False, "sgd"), ("rate", True, None), ("size", False, None), ("size", True, "sgd")],
)
def test_leaves_no_trace(finder, trained, optimizer):
    """Training goes on bit for bit as it would have without the search."""
    x, y = problem()

    def run(search):
        keras.utils.set_random_seed(5)
        model = network(optimizer)
        if trained:
            model.train_on_batch(x, y)
        before, used = model.optimizer, values(model.optimizer.variables) if trained else None
        if search and finder == "rate":
            bz.find_learning_rate(model, x, y, num_steps=12)
        elif search:
            bz.find_batch_size(model, x, y, max_batch_size=4, verbose=False)
        assert model.optimizer is before
        if trained:
            for one, other in zip(used, values(model.optimizer.variables), strict=True):
                np.testing.assert_array_equal(one, other)
        drawn = random.random(), np.random.rand()
        model.reset_metrics()
        loss = [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for _ in range(3)]
        return values(model.variables), loss, drawn

    plain, with_search = run(False), run(True)
    assert plain[1:] == with_search[1:]
    for one, other in zip(plain[0], with_search[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_untouched_after_an_error():
    model = network()
    before = values(model.variables)
    x, y = problem()
    with pytest.raises(RuntimeError, match="stop"), untouched(model):
        model.train_on_batch(x, y)
        raise RuntimeError("stop")
    for one, other in zip(before, values(model.variables), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_and_their_epoch():
    x, y = problem()
    data = bz.data.Batches(x, y, batch_size=32, shuffle=True)
    epoch = data.epoch
    found = bz.find_learning_rate(network(), data, num_steps=10)
    assert len(found.losses) == 10
    assert data.epoch == epoch
    assert bz.find_batch_size(network(), data, max_batch_size=8, verbose=False) == 8


@pytest.mark.tensorflow
def test_tf_data():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(problem()).batch(32)
    assert len(bz.find_learning_rate(network(), data, num_steps=10).losses) == 10
    with pytest.raises(ValueError, match="got no batches; expected one or more"):
        bz.find_learning_rate(network(), data.take(0))


def test_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    model = network()
    optimizer = model.optimizer
    found = bz.find_learning_rate(model, *problem(), num_steps=12)
    assert len(found.losses) == 12
    assert model.optimizer is optimizer


def test_a_loss_that_is_not_finite(monkeypatch):
    monkeypatch.setattr("bigzoo.train._finders._train_step", lambda *_: float("nan"))
    with pytest.raises(ValueError, match=r"`loss` is nan; .*with bigzoo\.check"):
        bz.find_learning_rate(network(), *problem())


X, Y = problem(40)


def classifier():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, "softmax")])
    return bz.compile(model, optimizer="sgd", speed="keras", verbose=False)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": None}, TypeError, r"`model` is None; expected a keras\.Model"),
        (
            {"model": keras.Sequential([keras.Input((4,)), L.Dense(1)])},
            ValueError,
            r"isn't compiled; expected a compiled model. Call bigzoo\.compile",
        ),
        ({"x": None}, TypeError, "`x` is None; expected arrays with targets"),
        ({"y": None}, TypeError, "`y` is None; expected arrays with targets"),
        ({"x": "pets"}, TypeError, "`x` is 'pets'"),
        ({"y": Y[:5]}, ValueError, "have 5 and 40 samples; expected the same number"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "have 0 samples"),
        ({"x": bz.data.Batches(X, Y)}, ValueError, "expected None beside a Batches.*Leave `y` out"),
        ({"x": bz.data.Batches(X), "y": None}, ValueError, r"\(x, y\)"),
        ({"x": X[:, :3]}, ValueError, r"x: got shape \(n, 3\); expected shape \(n, 4\)"),
        ({"y": np.repeat(Y, 3, axis=1)}, ValueError, r"labels of shape \(n, 3\); expected the sh"),
        ({"y": Y * np.nan}, ValueError, "40 of 40 labels are NaN"),
        (
            {"model": classifier, "y": np.eye(3)[np.arange(40) % 3]},
            ValueError,
            'got one-hot labels.*loss="categorical_crossentropy"',
        ),
        ({"model": classifier, "y": np.arange(40) % 3 + 1}, ValueError, "labels from 1 to 3"),
        (
            {"model": classifier, "x": bz.data.Batches(X, np.arange(40) % 4), "y": None},
            ValueError,
            "labels from 0 to 3; expected 0 to 2",
        ),
    ],
)
@pytest.mark.parametrize("finder", [bz.find_learning_rate, bz.find_batch_size])
def test_bad_input(finder, arguments, error, text):
    arguments = {"model": network, "x": X, "y": Y, **arguments}
    if arguments["model"] in (network, classifier):
        arguments["model"] = arguments["model"]()
    with pytest.raises(error, match=text):
        finder(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"min_rate": 0}, ValueError, "`min_rate` is 0"),
        ({"min_rate": 0.1, "max_rate": 0.01}, ValueError, "`max_rate` is 0.01; .*above 0.1"),
        ({"max_rate": 100}, ValueError, "`max_rate` is 100; .*at most 10"),
        ({"num_steps": 5}, ValueError, "`num_steps` is 5; expected an integer at least 10"),
        ({"seed": 1.5}, TypeError, "`seed` is 1.5"),
    ],
)
def test_bad_settings_of_the_range_test(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.find_learning_rate(network(), X, Y, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_batch_size": 0}, ValueError, "`max_batch_size` is 0"),
        ({"max_batch_size": 2.5}, TypeError, "`max_batch_size` is 2.5"),
        ({"memory_limit": 0}, ValueError, "`memory_limit` is 0"),
        ({"memory_limit": 1.0}, ValueError, "Not even a batch of one sample fits"),
        ({"verbose": "no"}, TypeError, "`verbose` is 'no'"),
    ],
)
def test_bad_settings_of_the_batch_size(arguments, error, text):
    if "1.0" in str(arguments) and _memory.resident_bytes() is None:
        pytest.skip("this system doesn't tell the memory of a process")
    with pytest.raises(error, match=text):
        bz.find_batch_size(network(), X, Y, **arguments)


def test_stops_at_the_number_of_samples(capsys):
    assert bz.find_batch_size(network(), X, Y) == 32
    assert capsys.readouterr().out.startswith("bigzoo.find_batch_size: 32 (the next one is above")


def fake_memory(monkeypatch, base, per_sample):
    """A process that takes `base` bytes and `per_sample` for each sample of its largest batch."""
    state = {"peak": base}

    def step(model, x, y):
        state["peak"] = max(state["peak"], base + per_sample * len(x))
        return 0.0

    monkeypatch.setattr(_memory, "resident_bytes", lambda: base)
    monkeypatch.setattr(_memory, "peak_bytes", lambda: state["peak"])
    monkeypatch.setattr(_memory, "on_accelerator", lambda: False)
    monkeypatch.setattr("bigzoo.train._finders._train_step", step)
    return state


@pytest.mark.parametrize("limit", [10_000, 33_000, 120_000, 10**6])
def test_stays_below_the_limit(monkeypatch, limit):
    state = fake_memory(monkeypatch, base=5_000, per_sample=1_000)
    x = np.ones((4096, 4), "float32")
    found = bz.find_batch_size(network(), x, x[:, :1], memory_limit=limit, verbose=False)
    assert state["peak"] <= limit
    # Careful, but not by more than two doublings.
    assert found >= (limit - 5_000) / 1_000 / 4


def test_an_accelerator_that_runs_out(monkeypatch, capsys):
    def step(model, x, y):
        if len(x) > 16:
            raise RuntimeError("RESOURCE_EXHAUSTED: OOM when allocating tensor")
        return 0.0

    monkeypatch.setattr(_memory, "on_accelerator", lambda: True)
    monkeypatch.setattr("bigzoo.train._finders._train_step", step)
    assert bz.find_batch_size(network(), X, Y) == 16
    assert "32 runs out of the device's memory" in capsys.readouterr().out


def test_other_errors_are_not_hidden(monkeypatch):
    def step(model, x, y):
        raise RuntimeError("something else")

    monkeypatch.setattr("bigzoo.train._finders._train_step", step)
    with pytest.raises(RuntimeError, match="something else"):
        bz.find_batch_size(network(), X, Y)


def test_memory_figures():
    resident = _memory.resident_bytes()
    if resident is None:
        pytest.skip("this system doesn't tell the memory of a process")
    assert 10 * 2**20 < resident < 2**40
    assert _memory.available_bytes() > 0
    _memory.reset_peak()
    assert _memory.peak_bytes() >= 0.9 * _memory.resident_bytes()
