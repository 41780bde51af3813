"""Curves of a training: what is drawn, where, and what is refused."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import bigzoo as bz

LOG = {
    "accuracy": [0.5, 0.7, 0.8, 0.85],
    "loss": [1.0, 0.6, 0.4, 0.3],
    "val_accuracy": [0.5, 0.65, 0.7, 0.69],
    "val_loss": [1.1, 0.7, 0.5, 0.6],
    "learning_rate": [1e-3] * 4,
}


def line(ax, label):
    return next(item for item in ax.get_lines() if item.get_label() == label)


def test_one_panel_each_with_both_curves_and_epochs_from_one():
    figure = bz.plot.history(LOG)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy", "learning rate"]
    loss = figure.axes[0]
    assert line(loss, "training").get_xdata().tolist() == [1, 2, 3, 4]
    assert line(loss, "training").get_ydata().tolist() == LOG["loss"]
    assert line(loss, "validation").get_ydata().tolist() == LOG["val_loss"]
    labels = figure.axes[2].get_legend_handles_labels()[1]
    assert "validation" not in labels


def test_best_epoch_is_that_of_the_lowest_validation_loss():
    figure = bz.plot.history(LOG)
    assert line(figure.axes[0], "best epoch 3: 0.5").get_xdata()[0] == 3
    assert line(figure.axes[1], "best epoch 3: 0.7").get_xdata()[0] == 3
    only_training = bz.plot.history({"loss": [3.0, 1.0, 2.0]})
    assert line(only_training.axes[0], "best epoch 2: 1")


def test_history_of_keras_and_of_a_resumed_run():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.zeros((4, 2), "float32"), np.zeros((4, 1), "float32")
    figure = bz.plot.history(model.fit(x, y, epochs=2, verbose=0))
    assert line(figure.axes[0], "training").get_xdata().tolist() == [1, 2]
    resumed = SimpleNamespace(history={"loss": [0.2, 0.1]}, epoch=[5, 6])
    figure = bz.plot.history(resumed)
    assert line(figure.axes[0], "training").get_xdata().tolist() == [6, 7]


def test_validation_at_every_second_epoch():
    figure = bz.plot.history({"loss": [5.0, 4, 3, 2, 1], "val_loss": [4.0, 2.0]})
    assert line(figure.axes[0], "validation").get_xdata().tolist() == [2, 4]
    assert line(figure.axes[0], "best epoch 4: 2")


def test_not_finite_values_are_said():
    figure = bz.plot.history({"loss": [1.0, float("nan"), float("inf")]})
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "training: NaN or infinite in 2" in labels
    assert "best epoch 1: 1" in labels
    assert bz.plot.history({"loss": [float("nan")] * 3}).axes


def test_one_epoch_and_many_epochs():
    assert bz.plot.history({"loss": [1.0]}).axes[0].get_lines()[0].get_marker() == "o"
    assert bz.plot.history({"loss": list(range(500))}).axes[0].get_lines()[0].get_markersize() == 0


def test_own_axes_and_metric():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert bz.plot.history(LOG, metric="accuracy", ax=ax) is ax
    assert ax.get_title() == "accuracy"
    assert len(bz.plot.history(LOG, metric="loss").axes) == 1


def test_the_figure_saves_shows_in_a_notebook_and_stays_out_of_pyplot(run_python):
    figure = bz.plot.history(LOG)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    with pytest.raises(RuntimeError, match=r"no window. Save it with `figure.savefig"):
        figure.show()
    code = "import sys, bigzoo as bz; bz.plot.history({'loss': [1.0]})._repr_png_();"
    assert run_python(code + "print('matplotlib.pyplot' in sys.modules)").split() == ["False"]


@pytest.mark.parametrize(
    ("history", "options", "error", "text"),
    [
        (None, {}, TypeError, "`history` is None; expected a History"),
        ([1.0, 2.0], {}, TypeError, "expected a History"),
        ({}, {}, ValueError, "expected at least one epoch. Train first."),
        ({"loss": []}, {}, ValueError, "at least one epoch"),
        ({"loss": 1.0}, {}, TypeError, "a list, one number per epoch"),
        ({"loss": "0.5"}, {}, TypeError, "a list, one number per epoch"),
        ({"loss": ["a"]}, {}, TypeError, "one number per epoch"),
        (LOG, {"metric": "los"}, ValueError, "`metric` is 'los'; expected one of"),
        (LOG, {"ax": object()}, TypeError, "a matplotlib Axes or None"),
    ],
)
def test_bad_input(history, options, error, text):
    with pytest.raises(error, match=text):
        bz.plot.history(history, **options)


def test_one_axes_for_several_panels_is_refused():
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match='Choose one, such as `metric="loss"`'):
        bz.plot.history(LOG, ax=Figure().add_subplot())
