"""The curve of a learning-rate range test."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import bigzoo as bz

RATES = np.logspace(-5, 0, 20)
LOSSES = np.r_[np.linspace(2.0, 0.5, 15), 3.0, 30.0, 300.0, np.inf, np.nan]
CURVE = {"learning_rates": RATES, "losses": LOSSES, "suggestion": 1e-2}


@pytest.mark.parametrize("result", [CURVE, SimpleNamespace(**CURVE)])
def test_curve_and_suggestion(result):
    ax = bz.plot.learning_rate(result).axes[0]
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "suggested learning rate 0.01"
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), RATES[:18])
    assert ax.get_lines()[-1].get_xdata()[0] == 1e-2
    # the explosion at the end is cut off, so that the descent is seen
    assert ax.get_ylim()[1] < 4.0


def test_without_suggestion_with_the_losses_of_single_batches():
    curve = {"learning_rates": RATES[:3], "losses": [3.0, 2.5, 2.0]}
    ax = bz.plot.learning_rate({**curve, "raw_losses": [3.0, 2.0, 1.0]}).axes[0]
    assert ax.get_title() == ""
    assert [line.get_ydata().tolist() for line in ax.get_lines()] == [[3, 2, 1], [3, 2.5, 2]]


def test_the_result_of_the_finder():
    finders = pytest.importorskip("bigzoo.train._finders")
    found = finders.LearningRateSearch(1e-2, RATES[:18], LOSSES[:18], LOSSES[:18], True)
    ax = bz.plot.learning_rate(found).axes[0]
    assert len(ax.get_lines()) == 3


def test_own_axes():
    ax = Figure().add_subplot()
    assert bz.plot.learning_rate(CURVE, ax=ax) is ax


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (None, TypeError, "a result of `bz.find_learning_rate`"),
        (0.01, TypeError, "a result of `bz.find_learning_rate`"),
        ({"learning_rates": [1.0], "losses": []}, ValueError, "1 learning rates and 0 losses"),
        ({"learning_rates": ["a"], "losses": [1.0]}, TypeError, "expected numbers"),
        ({"learning_rates": [1.0], "losses": [np.nan]}, ValueError, "no finite loss"),
    ],
)
def test_bad_input(result, error, text):
    with pytest.raises(error, match=text):
        bz.plot.learning_rate(result)
