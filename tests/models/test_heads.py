"""The head that every model's arguments ask for."""

import keras
import numpy as np
import pytest

from bigzoo.models._heads import plan_head


def plan(num_classes=None, num_outputs=None, activation="softmax", checkpoint=None):
    return plan_head(
        num_classes, num_outputs, activation, default=1000, checkpoint_classes=checkpoint
    )


@pytest.mark.parametrize(
    ("given", "units", "activation", "loaded"),
    [
        ({}, 1000, "softmax", False),
        ({"checkpoint": 7}, 7, "softmax", True),
        ({"checkpoint": 0}, 1000, "softmax", False),
        ({"checkpoint": 1}, 1, "linear", True),
        ({"num_classes": 7, "checkpoint": 7}, 7, "softmax", True),
        ({"num_classes": np.int64(3), "checkpoint": 7}, 3, "softmax", False),
        ({"num_classes": 0, "checkpoint": 7}, 0, "linear", False),
        ({"num_classes": 2, "activation": "sigmoid"}, 1, "sigmoid", False),
        ({"num_classes": 2, "activation": "sigmoid", "checkpoint": 2}, 1, "sigmoid", False),
        ({"num_classes": 5, "activation": "sigmoid", "checkpoint": 5}, 5, "sigmoid", True),
        ({"activation": None, "checkpoint": 4}, 4, "linear", True),
        ({"num_outputs": 2, "checkpoint": 2}, 2, "linear", False),
    ],
)
def test_plan(given, units, activation, loaded):
    head = plan(**given)
    assert (head.units, head.activation, head.from_checkpoint) == (units, activation, loaded)


def test_call_adds_one_float32_layer_or_none():
    x = keras.Input((3,))
    assert plan(num_classes=0)(x) is x
    y = keras.Model(x, plan(num_classes=4)(x))
    assert y.layers[-1].name == "predictions"
    assert y.output_shape == (None, 4)
    assert y.output.dtype == "float32"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"num_classes": 3, "num_outputs": 1}, ValueError, r"expected None with num_outputs"),
        ({"num_outputs": 0}, ValueError, r"`num_outputs` is 0; expected an integer at least 1"),
        ({"num_classes": 1}, ValueError, r"`num_classes` is 1.*gives one unit"),
        ({"num_classes": False}, TypeError, r"`num_classes` is False"),
        ({"activation": "softmx"}, ValueError, r"Did you mean 'softmax'"),
    ],
)
def test_bad_arguments(given, error, text):
    with pytest.raises(error, match=text):
        plan(**given)
