"""The warm-up and the cosine, and how a run's length is set."""

import itertools
import math

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train import warmup_cosine
from bigzoo.train._schedule import (
    MARK,
    RunSchedule,
    extend,
    numbers_of,
    schedule_of,
    set_schedule,
)


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


def rates(schedule, steps):
    """Compiled on JAX, as in a training step: there each call by itself compiles anew."""
    if keras.backend.backend() == "jax":
        import jax

        schedule = jax.jit(schedule)
    return [rate(schedule, step) for step in steps]


def formula(numbers, step):
    warmup = max(numbers.warmup_steps, 1)
    done = step - numbers.first_step
    if done < warmup:
        return numbers.learning_rate * (done + 1) / warmup
    part = min((done - warmup + 1) / (numbers.total_steps - warmup + 1), 1)
    rest = numbers.final_fraction
    return numbers.learning_rate * (rest + (1 - rest) * (1 + math.cos(math.pi * part)) / 2)


@pytest.mark.parametrize(
    "numbers",
    [
        RunSchedule(0.2, 10, 110, 0, 0.1),
        RunSchedule(0.2, 1, 20, 0, 0.5),
        RunSchedule(2e-3, 0, 50, 0, 0.01),
        RunSchedule(2e-3, 100, 1000, 0, 0.01),
        RunSchedule(2e-3, 10, 100, 1, 0.01),
        RunSchedule(2e-3, 0, 100, 70, 0.1),
    ],
)
def test_follows_the_formula(numbers):
    schedule = warmup_cosine(**numbers.get_config())
    steps = range(numbers.first_step, numbers.first_step + numbers.total_steps + 5)
    expected = [formula(numbers, step) for step in steps]
    np.testing.assert_allclose([numbers.rate(step) for step in steps], expected, rtol=1e-12)
    found = rates(schedule, steps)
    # float32: the cosine's last values are small differences of large ones.
    error = 1e-7 * numbers.learning_rate
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=error)


@pytest.mark.parametrize("first_step", [7, 1000, 100_000, 1_000_000])
def test_training_further(first_step):
    """The warm-up is a line from step 0, of which float32 leaves less the later it begins."""
    numbers = RunSchedule(2e-3, 100, 1000, first_step, 0.01)
    schedule = warmup_cosine(**numbers.get_config())
    steps = [first_step + done for done in (0, 1, 50, 98, 99, 100, 500, 999, 1000, 2000)]
    expected = [formula(numbers, step) for step in steps]
    found = rates(schedule, steps)
    error = 1e-7 * first_step * numbers.rate(first_step)  # at 10**6 steps a tenth of the first rate
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-6, atol=error)
    np.testing.assert_allclose(found[4:], expected[4:], rtol=1e-6)


def test_without_a_length_it_stays_at_the_peak():
    schedule = warmup_cosine(0.2, warmup_steps=4)
    found = rates(schedule, (0, 3, 10**4, 10**6))
    assert found == pytest.approx([0.05, 0.2, 0.2, 0.2], rel=1e-5)
    assert schedule_of(compiled(schedule)).rate(10**6) == 0.2


def test_no_warmup_after_a_million_steps():
    first = 2**25 + 1
    schedule = warmup_cosine(1.0, 10, 1000, first_step=first)
    assert [rate(schedule, first + s) for s in (-1, 0)] == pytest.approx([1, 1])
    assert rate(schedule, first + 501) == pytest.approx(0.505, rel=0.02)
    assert rate(schedule, first + 1000) == pytest.approx(0.01)


def test_the_numbers_can_be_read_from_the_schedule():
    for values in itertools.product(
        (0.1, 3e-4, 0.1 * (10 / 37) ** 0.5),
        (0, 2, 3, 99, 100),
        (None, 101, 12345, 5 * 10**6),
        (0, 1, 2, 99, 12345, 10**6),
        (0.0, 0.01, 1.0),
    ):
        numbers = RunSchedule(*values)
        assert numbers_of(warmup_cosine(**numbers.get_config())) == numbers


def test_travels_through_a_saved_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(warmup_cosine(0.3, 5, 50, first_step=7)), "mse")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert schedule_of(loaded).get_config() == {
        "learning_rate": 0.3,
        "warmup_steps": 5,
        "total_steps": 50,
        "first_step": 7,
        "final_fraction": 0.01,
    }


def test_plain_keras_loads_and_trains_what_was_saved(tmp_path, run_python):
    """After compile, after fit, and after training further: no class of bigzoo in the file."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = x[:, :1]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="out")])
    bz.compile(model, verbose=False)
    model.save(tmp_path / "compiled.keras")
    for name in ("once", "twice"):
        bz.fit(model, x, y, epochs=5, batch_size=8, verbose=0)
        model.save(tmp_path / f"{name}.keras")
    assert schedule_of(model).first_step == 40
    code = f"""
import pathlib, sys
import keras, numpy as np
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
for name in ("compiled", "once", "twice"):
    model = keras.models.load_model(pathlib.Path({str(tmp_path)!r}) / (name + ".keras"))
    before = model.evaluate(x, x[:, :1], verbose=0)[0]
    model.fit(x, x[:, :1], epochs=3, verbose=0)
    assert model.evaluate(x, x[:, :1], verbose=0)[0] < before
    print(name, int(model.optimizer.iterations), type(model.optimizer).__name__)
assert "bigzoo" not in sys.modules
"""
    lines = run_python(code, keras.backend.backend()).splitlines()
    assert lines == ["compiled 6 Adam", "once 46 Adam", "twice 86 Adam"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"learning_rate": 0}, ValueError, "`learning_rate` is 0; expected a finite number"),
        ({"learning_rate": -1.0}, ValueError, "above 0"),
        ({"learning_rate": float("nan")}, ValueError, "finite"),
        ({"learning_rate": 100.0}, ValueError, "at most 10"),
        ({"learning_rate": "fast"}, TypeError, "`learning_rate` is 'fast'"),
        ({"warmup_steps": -1}, ValueError, "`warmup_steps` is -1"),
        ({"warmup_steps": 10, "total_steps": 10}, ValueError, "`total_steps` is 10.* at least 11"),
        ({"total_steps": 10**9}, ValueError, "`total_steps` is 1000000000"),
        ({"total_steps": 1.5}, TypeError, "`total_steps` is 1.5"),
        ({"first_step": -1}, ValueError, "`first_step`"),
        ({"final_fraction": 2}, ValueError, "`final_fraction` is 2"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        warmup_cosine(**{"learning_rate": 0.1, **arguments})


def compiled(learning_rate, policy=None):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype=policy)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def fit(model, steps):
    data = np.ones((4 * steps, 2), "float32")
    model.fit(data, data[:, :1], batch_size=4, epochs=1, verbose=0)


def test_extend_starts_at_the_present_step():
    model = compiled(warmup_cosine(0.1, warmup_steps=100))
    extend(model, 50)
    assert schedule_of(model).get_config()["warmup_steps"] == 5
    fit(model, 3)
    schedule = extend(model, 2000)
    config = schedule.get_config()
    assert (config["first_step"], config["total_steps"]) == (3, 2000)
    now = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert now == pytest.approx(0.1 / 5)


def test_extend_changes_a_step_that_was_traced():
    """The rate must take effect in a model that has trained already."""
    model = compiled(warmup_cosine(0.1, warmup_steps=0))
    fit(model, 1)
    set_schedule(model, RunSchedule(1e-9, 0, 10, 0, 0.01).get_config())
    before = model.get_weights()[0]
    fit(model, 1)
    np.testing.assert_allclose(model.get_weights()[0], before, atol=1e-6)


def test_extend_leaves_other_rates_alone():
    cosine = keras.optimizers.schedules.CosineDecay
    edited = {**warmup_cosine(0.1, 10, 100).get_config(), "initial_learning_rate": 0.05}
    for learning_rate in (
        0.1,
        cosine(0.1, 10),
        cosine(0.0, 90, 0.01, warmup_target=0.1, warmup_steps=9),
        cosine(**edited),
        cosine(0.0, 10, name=MARK),
        keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9, name=MARK),
    ):
        model = compiled(learning_rate)
        assert extend(model, 10) is None
        assert schedule_of(model) is None


def test_extend_finds_the_schedule_under_loss_scaling():
    model = compiled(0.1)
    inner = keras.optimizers.SGD(warmup_cosine(0.1, 1))
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    assert extend(model, 30).total_steps == 30
    assert schedule_of(model).total_steps == 30


def test_a_model_that_is_not_compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert schedule_of(model) is None
    with pytest.raises(ValueError, match=r"expected a compiled model\. Call bigzoo\.compile"):
        set_schedule(model, RunSchedule(0.1, 100, None, 0, 0.01).get_config())
    with pytest.raises(ValueError, match="`steps` is 0"):
        extend(model, 0)
