"""The warm-up and the cosine, and how a run's length is set."""

import math

import keras
import numpy as np
import pytest

from bigzoo.train import WarmupCosine
from bigzoo.train._schedule import extend, schedule_of, set_schedule


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


def test_follows_the_formula():
    schedule = WarmupCosine(0.2, warmup_steps=10, total_steps=110, final_fraction=0.1)
    for step in range(0, 130):
        if step < 10:
            expected = 0.2 * (step + 1) / 10
        else:
            part = min((step - 10) / 100, 1)
            expected = 0.2 * (0.1 + 0.9 * (1 + math.cos(math.pi * part)) / 2)
        assert rate(schedule, step) == pytest.approx(expected, rel=1e-5)


def test_without_a_length_it_stays_at_the_peak():
    schedule = WarmupCosine(0.2, warmup_steps=4)
    assert [rate(schedule, s) for s in (0, 3, 10**6)] == pytest.approx([0.05, 0.2, 0.2])


def test_no_warmup_and_first_step():
    schedule = WarmupCosine(1.0, 0, 100, first_step=1000)
    assert rate(schedule, 0) == pytest.approx(1.0)
    assert rate(schedule, 1000) == pytest.approx(1.0)
    assert rate(schedule, 1050) == pytest.approx(0.505, rel=1e-4)
    assert rate(schedule, 1100) == pytest.approx(0.01)


def test_steps_beyond_what_float32_counts():
    schedule = WarmupCosine(1.0, 0, 10, first_step=2**25 + 1)
    assert rate(schedule, 2**25 + 1) == pytest.approx(1.0)
    assert rate(schedule, 2**25 + 6) == pytest.approx(0.505, rel=1e-4)


def test_travels_through_a_saved_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(WarmupCosine(0.3, 5, 50, first_step=7)), "mse")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert schedule_of(loaded).get_config() == {
        "learning_rate": 0.3,
        "warmup_steps": 5,
        "total_steps": 50,
        "first_step": 7,
        "final_fraction": 0.01,
    }


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
        ({"total_steps": 1.5}, TypeError, "`total_steps` is 1.5"),
        ({"first_step": -1}, ValueError, "`first_step`"),
        ({"final_fraction": 2}, ValueError, "`final_fraction` is 2"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        WarmupCosine(**{"learning_rate": 0.1, **arguments})


def compiled(learning_rate, policy=None):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype=policy)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def fit(model, steps):
    data = np.ones((4 * steps, 2), "float32")
    model.fit(data, data[:, :1], batch_size=4, epochs=1, verbose=0)


def test_extend_starts_at_the_present_step():
    model = compiled(WarmupCosine(0.1, warmup_steps=100))
    extend(model, 50)
    assert schedule_of(model).get_config()["warmup_steps"] == 5
    fit(model, 3)
    schedule = extend(model, 2000)
    config = schedule.get_config()
    assert (config["first_step"], config["total_steps"]) == (3, 2000)
    now = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert now == pytest.approx(rate(schedule, 3))


def test_extend_changes_a_step_that_was_traced():
    """The rate must take effect in a model that has trained already."""
    model = compiled(WarmupCosine(0.1, warmup_steps=0))
    fit(model, 1)
    set_schedule(model, WarmupCosine(1e-9, 0, 10).get_config())
    before = model.get_weights()[0]
    fit(model, 1)
    np.testing.assert_allclose(model.get_weights()[0], before, atol=1e-6)


def test_extend_leaves_other_rates_alone():
    for learning_rate in (0.1, keras.optimizers.schedules.CosineDecay(0.1, 10)):
        model = compiled(learning_rate)
        assert extend(model, 10) is None
        assert schedule_of(model) is None


def test_extend_finds_the_schedule_under_loss_scaling():
    model = compiled(0.1)
    inner = keras.optimizers.SGD(WarmupCosine(0.1, 1))
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    assert extend(model, 30).total_steps == 30
    assert schedule_of(model).total_steps == 30


def test_a_model_that_is_not_compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert schedule_of(model) is None
    with pytest.raises(ValueError, match=r"expected a compiled model\. Call bigzoo\.compile"):
        set_schedule(model, WarmupCosine(0.1).get_config())
    with pytest.raises(ValueError, match="`steps` is 0"):
        extend(model, 0)
