"""Speed settings, and that they don't change what is learned."""

import random

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train import _measure, _speed
from bigzoo.train._family import family
from bigzoo.train._measure import measure_speed
from bigzoo.train._speed import Speed, auto_speed

L = keras.layers


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


class OwnConvolution(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner = L.Conv2D(2, 3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


MODELS = {
    "linear": lambda: sequential((4,), L.Dense(1)),
    "linear scaled": lambda: sequential((4, 2), L.Flatten(), L.Rescaling(0.5), L.Dense(3)),
    "mlp": lambda: sequential((4,), L.Dense(3, "relu"), L.BatchNormalization(), L.Dense(1)),
    "conv": lambda: sequential((8, 8, 3), L.Conv2D(2, 3), L.GlobalAveragePooling2D(), L.Dense(1)),
    "conv own": lambda: sequential((8, 8, 3), OwnConvolution(), L.Flatten(), L.Dense(1)),
    "conv inner": lambda: sequential((8, 8, 3), MODELS["conv"](), L.Dense(1)),
    "recurrent": lambda: sequential((5, 3), L.LSTM(2), L.Dense(1)),
    "other": lambda: sequential((5,), L.Embedding(9, 2), L.Flatten(), L.Dense(1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_family(name):
    assert family(MODELS[name]()) == name.partition(" ")[0]


def attention():
    inputs = keras.Input((5, 4))
    outputs = L.Dense(1)(L.MultiHeadAttention(1, 2)(inputs, inputs))
    return keras.Model(inputs, outputs)


def test_family_attention():
    assert family(attention()) == "attention"


@pytest.mark.tensorflow
def test_attention_on_a_cpu(monkeypatch):
    monkeypatch.setattr(_speed, "on_accelerator", lambda: False)
    assert auto_speed(attention()).jit_compile is False


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "jit", "steps"),
    [
        ("linear", False, 32),
        ("mlp", True, 32),
        ("conv", False, 1),
        ("conv own", False, 1),
        ("conv inner", False, 1),
        ("recurrent", "auto", 1),
        ("other", "auto", 1),
    ],
)
def test_auto_on_a_cpu(name, jit, steps, monkeypatch):
    monkeypatch.setattr(_speed, "on_accelerator", lambda: False)
    found = auto_speed(MODELS[name]())
    assert (found.jit_compile, found.steps_per_execution) == (jit, steps)


def test_an_accelerator_is_left_to_keras(monkeypatch):
    monkeypatch.setattr(_speed, "on_accelerator", lambda: True)
    found = auto_speed(MODELS["mlp"]())
    assert (found.jit_compile, found.steps_per_execution) == ("auto", 1)


def test_compile_sets_what_was_chosen(capsys):
    model = bz.compile(MODELS["mlp"](), speed="keras")
    assert model.steps_per_execution == 1
    assert "steps_per_execution=1 (as Keras does)" in capsys.readouterr().out
    expected = auto_speed(model)
    bz.compile(model)
    assert model.steps_per_execution == expected.steps_per_execution
    assert expected.text in capsys.readouterr().out


def trained(steps, rows, jit, epochs=2):
    """Weights and losses after training on `rows` rows in batches of 4, in a fixed order."""
    keras.utils.set_random_seed(3)
    model = sequential((3,), L.Dense(8, "relu"), L.Dropout(0.3), L.Dense(1))
    model.compile("adam", "mse", metrics=["mae"], jit_compile=jit, steps_per_execution=steps)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype("float32")
    history = model.fit(
        bz.data.Batches(x, x[:, :1], batch_size=4), epochs=epochs, shuffle=False, verbose=0
    )
    return model.get_weights(), history.history["loss"], int(model.optimizer.iterations)


@pytest.mark.parametrize("rows", [4, 26])  # one batch; 7 batches, the last one incomplete
def test_steps_per_execution_learns_the_same(rows):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on torch")
    weights, losses, steps = trained(1, rows, jit=False)
    for count in (3, 32):
        other_weights, other_losses, other_steps = trained(count, rows, jit=False)
        assert other_steps == steps == 2 * -(-rows // 4)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-6)
        for one, other in zip(weights, other_weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_measure_leaves_the_model_as_it_was():
    if keras.backend.backend() == "torch":
        pytest.skip("nothing to choose on torch")
    model = sequential((3,), L.Dense(4, "relu"), L.BatchNormalization(), L.Dropout(0.5), L.Dense(1))
    bz.compile(model, optimizer="adam", speed="keras", verbose=False)
    x = np.ones((8, 3), "float32")
    model.train_on_batch(x, x[:, :1])
    variables = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    optimizer = keras.optimizers.SGD(0.1)
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    found = measure_speed(model, optimizer, Speed("auto", 1, "guess"), budget=0.0)
    assert "measured 1 setting" in found.reason
    assert random.getstate() == python_state
    assert np.random.get_state()[1].tolist() == numpy_state
    assert not optimizer.built
    for before, variable in zip(variables, model.variables, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(variable))


def test_measure_keeps_the_fastest(monkeypatch, capsys):
    if keras.backend.backend() == "torch":
        pytest.skip("nothing to choose on torch")
    times = {1: 0.004, 8: 0.001, 32: 0.002}
    monkeypatch.setattr(_measure, "_time_step", lambda m, o, b, jit, steps: times[steps])
    model = bz.compile(MODELS["mlp"](), speed="measure")
    assert model.steps_per_execution == 8
    assert "1 to 4 ms a step" in capsys.readouterr().out
    assert model.loss == "mse"
    x = np.ones((8, 4), "float32")
    model.fit(x, x[:, :1], verbose=0)


def test_a_slow_step_needs_fewer_trials(monkeypatch):
    if keras.backend.backend() == "torch":
        pytest.skip("nothing to choose on torch")
    tried = []

    def fake(model, optimizer, batch, jit, steps):
        tried.append((jit, steps))
        return 0.5

    monkeypatch.setattr(_measure, "_time_step", fake)
    bz.compile(MODELS["conv"](), speed="measure", verbose=False)
    assert [steps for _, steps in tried] == [1]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: sequential((None, 3), L.GlobalAveragePooling1D(), L.Dense(1)), "isn't fixed"),
        (lambda: keras.Sequential([L.Dense(1)]), "isn't built"),
    ],
)
def test_what_cannot_be_measured_falls_back(model, reason, capsys):
    if keras.backend.backend() == "torch":
        pytest.skip("nothing to choose on torch")
    bz.compile(model(), speed="measure")
    line = capsys.readouterr().out
    assert "not measured" in line
    assert reason in line
