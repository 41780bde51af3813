"""arrays: the function that makes Batches, and its defaults."""

import inspect

import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Batches


def test_shuffles_by_default_and_carries_everything():
    x, y = np.arange(8.0).reshape(8, 1), np.array([0, 1] * 4)
    batches = bz.data.arrays(x, y, batch_size=3, seed=5, class_names=["a", "b"])
    assert isinstance(batches, Batches) and batches.shuffle
    assert (batches.batch_size, batches.seed, batches.class_names) == (3, 5, ("a", "b"))
    assert batches.x is x  # no copy


def test_every_setting_of_batches_is_there():
    ours = set(inspect.signature(bz.data.arrays).parameters)
    assert set(inspect.signature(Batches).parameters) - ours == {"name", "encoder"}


def test_weights_and_augmentation_arrive():
    batches = bz.data.arrays(
        np.zeros((2, 1)), np.zeros(2), sample_weight=[1, 2], augment=lambda x, y, rng: (x + 1, y)
    )
    x, _, weight = batches.batch(0, 0)
    assert x.tolist() == [[1], [1]] and sorted(weight) == [1, 2]


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, ValueError, "`x` has 3 rows and `y` has 2"),
        ({"x": np.zeros((3, 2)), "y": ["a", "b", "a"]}, TypeError, "np.unique"),
        ({"x": np.zeros((3, 2)), "batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"x": np.zeros((3, 2)), "shuffle": 1}, TypeError, "True or False"),
        ({"x": "folder"}, TypeError, "expected an array"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.data.arrays(**arguments)


def test_the_room_names_all_its_functions():
    assert set(bz.data.__all__) == set(dir(bz.data))
    with pytest.raises(AttributeError, match="Did you mean 'arrays'"):
        bz.data.array  # noqa: B018
