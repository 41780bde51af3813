"""Batches: pure functions of (seed, epoch, index), every sample once, clear errors."""

import pickle
import threading

import keras
import numpy as np
import pytest

from bigzoo.data import Batches
from bigzoo.data._batches import block_order
from bigzoo.data._rows import Rows, check_fits_in_memory


def rows_and_labels(n=10):
    x = np.arange(n * 2, dtype="float32").reshape(n, 2)
    return x, np.arange(n)


def test_every_sample_comes_once_and_rows_stay_together():
    x, y = rows_and_labels()
    batches = Batches(x, y, batch_size=4, shuffle=True)
    got = list(batches)
    assert [len(labels) for _, labels in got] == [4, 4, 2]
    labels = np.concatenate([labels for _, labels in got])
    assert sorted(labels) == list(range(10))
    assert list(labels) != list(range(10))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in got]), x[labels])


def test_without_shuffle_the_stored_order():
    x, y = rows_and_labels(5)
    batches = Batches(x, y, batch_size=2)
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]
    np.testing.assert_array_equal(batches.order(7), np.arange(5))


def test_order_depends_on_seed_and_epoch_alone():
    x, y = rows_and_labels(50)
    one, same = (
        Batches(x, y, shuffle=True, seed=3),
        Batches(x, y, shuffle=True, seed=3, batch_size=7),
    )
    np.testing.assert_array_equal(one.order(4), same.order(4))
    assert one.order(4).dtype == np.int64
    orders = [tuple(one.order(epoch)) for epoch in range(5)]
    orders += [tuple(one.replace(seed=seed).order(0)) for seed in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


def test_the_order_is_a_stable_format():
    """A resumed run must see the order that the first run saw, also after an update."""
    x, y = rows_and_labels(8)
    assert Batches(x, y, shuffle=True, seed=1).order(2).tolist() == [3, 6, 1, 7, 0, 4, 5, 2]


def test_a_batch_does_not_depend_on_the_current_epoch_or_on_what_was_read_before():
    x, y = rows_and_labels(20)
    batches = Batches(x, y, batch_size=3, shuffle=True, augment=add_noise)
    wanted = batches.batch(5, 2)
    batches.epoch = 9
    for _ in batches:
        pass
    for got, expected in zip(batches.batch(5, 2), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    batches.epoch = 5
    np.testing.assert_array_equal(batches[2][0], wanted[0])


def add_noise(x, y, rng):
    return x + rng.random(x.shape, dtype="float32"), y


def test_augmentation_has_its_own_numbers_in_each_batch_and_epoch():
    batches = Batches(np.zeros((4, 3), "float32"), np.zeros(4), batch_size=2, augment=add_noise)
    noise = [batches.batch(epoch, index)[0] for epoch in (0, 1) for index in (0, 1)]
    assert len({part.tobytes() for part in noise}) == 4


def test_augmentation_and_order_do_not_share_numbers():
    seen = []

    def record(x, y, rng):
        seen.append(rng.permutation(8).tolist())
        return x, y

    x, y = rows_and_labels(8)
    batches = Batches(x, y, shuffle=True, augment=record)
    batches.batch(0, 0)
    assert seen[0] != batches.order(0).tolist()


def test_threads_get_what_one_thread_gets():
    x, y = rows_and_labels(200)
    batches = Batches(x, y, batch_size=16, shuffle=True, augment=add_noise)
    keys = [(epoch, index) for epoch in range(6) for index in range(len(batches))]
    wanted = {key: batches.batch(*key)[0].tobytes() for key in keys}
    got = {}

    def read(part):
        for key in part:
            got[key] = batches.batch(*key)[0].tobytes()

    threads = [threading.Thread(target=read, args=(keys[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == wanted


def test_handed_out_batches_are_copies():
    x, y = rows_and_labels(4)
    for x_batch, y_batch in Batches(x, y):
        x_batch += 100
        y_batch += 100
    assert x.max() < 100 and y.max() < 100


def test_dtypes_are_kept_but_float64_becomes_keras_float():
    images = np.zeros((3, 2, 2, 3), "uint8")
    x_batch, y_batch = Batches(images, np.zeros(3, "float64"))[0]
    assert x_batch.dtype == np.uint8
    assert y_batch.dtype == np.dtype(keras.backend.floatx())
    assert Batches(images, np.zeros(3)).arrays()[1].dtype == np.float64


def test_sample_weight_and_missing_y():
    x, y = rows_and_labels(3)
    assert len(Batches(x)[0]) == 1
    _, y_batch, weight = Batches(x, y, [1.0, 2.0, 3.0], batch_size=2, shuffle=True)[0]
    np.testing.assert_array_equal(weight, y_batch + 1)


def test_dicts_and_tuples_of_arrays():
    x, y = rows_and_labels(5)
    batches = Batches({"a": x, "b": y}, (y, y * 2), batch_size=2, shuffle=True)
    inputs, targets = batches[0]
    np.testing.assert_array_equal(inputs["a"], x[inputs["b"]])
    np.testing.assert_array_equal(targets[1], 2 * targets[0])
    assert list(inputs) == ["a", "b"] and isinstance(targets, tuple)


def test_sources_are_read_by_integer_arrays_only():
    x, y = rows_and_labels(6)

    class Source:
        shape, dtype = x.shape, x.dtype

        def __len__(self):
            return len(x)

        def __getitem__(self, rows):
            assert isinstance(rows, np.ndarray) and rows.dtype == np.int64
            return x[rows]

    batches = Batches(Source(), y, batch_size=4, shuffle=True)
    x_batch, y_batch = batches[0]
    np.testing.assert_array_equal(x_batch, x[y_batch])
    np.testing.assert_array_equal(batches.arrays()[0], x)
    part = batches.select([4, 1])
    assert isinstance(part.x, Rows)
    np.testing.assert_array_equal(part.arrays()[0], x[[4, 1]])
    np.testing.assert_array_equal(part.select([1]).arrays()[0], x[[1]])


def test_take_is_the_first_samples_as_they_are():
    x, y = rows_and_labels(6)
    part = Batches(x, y, batch_size=4, shuffle=True, augment=add_noise, name="toys").take(5)
    assert (part.num_samples, len(part), part.name) == (5, 2, "toys")
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in part]), np.arange(5))
    np.testing.assert_array_equal(part[0][0], x[:4])
    assert part.take(99).num_samples == 5


def test_replace_makes_a_copy():
    x, y = rows_and_labels(6)
    first = Batches(x, y, batch_size=2, shuffle=True, encoder="kept")
    first.epoch = 3
    second = first.replace(batch_size=4, shuffle=False, seed=5, augment=add_noise, name="new")
    assert (second.batch_size, second.shuffle, second.seed, second.name) == (4, False, 5, "new")
    assert second.augment is add_noise and second.encoder == "kept" and second.epoch == 0
    assert (first.batch_size, first.shuffle, first.seed, first.epoch) == (2, True, 0, 3)
    assert second.replace(augment=None).augment is None
    assert second.x is first.x


def test_pickle():
    x, y = rows_and_labels(6)
    batches = Batches(x, y, batch_size=4, shuffle=True, augment=add_noise)
    copy = pickle.loads(pickle.dumps(batches))
    np.testing.assert_array_equal(copy.batch(2, 1)[0], batches.batch(2, 1)[0])


def test_index_past_the_end():
    batches = Batches(np.zeros((5, 1)), batch_size=2)
    with pytest.raises(IndexError, match="batch 3 of 3"):
        batches[3]
    np.testing.assert_array_equal(batches[-1][0].shape, (1, 1))
    with pytest.raises(
        ValueError, match="`index` is -1; expected an integer at least 0 and at most"
    ):
        batches.batch(0, -1)


def test_plain_fit_goes_on_to_the_next_epoch_and_keras_takes_every_form():
    x, y = rows_and_labels(12)
    batches = Batches(x, y[:, None], batch_size=5, shuffle=True)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1e-6), loss="mse")
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert batches.epoch >= 2
    assert model.predict(Batches(x), verbose=0).shape == (12, 1)
    # The mean over all samples: each came exactly once.
    loss = np.mean((model.predict(x, verbose=0) - y[:, None]) ** 2)
    assert model.evaluate(batches, verbose=0) == pytest.approx(loss, rel=1e-4)


def test_block_order_is_a_permutation_that_keeps_blocks_near():
    rng = np.random.default_rng(0)
    order = block_order(1003, 10, 50, rng)
    np.testing.assert_array_equal(np.sort(order), np.arange(1003))
    for start in range(0, 1003, 50):
        assert len(np.unique(order[start : start + 50] // 10)) <= 6
    assert len(np.unique(np.diff(order))) > 50


def test_arrays_refuses_what_would_not_fit():
    class Huge:
        shape, dtype = (2**40, 1000), np.dtype("float32")

    with pytest.raises(MemoryError, match="GiB; expected at most half"):
        check_fits_in_memory([("x", Huge())])


def test_repr_names_shapes_and_classes():
    text = repr(Batches(np.zeros((3, 2)), np.array([0, 1, 1]), class_names=["a", "b"]))
    assert "3 samples" in text and "(3, 2) float64" in text and "('a', 'b')" in text


X, Y = np.zeros((4, 2)), np.array([0, 1, 1, 0])
BAD = {
    "lengths": ({"x": X, "y": Y[:3]}, ValueError, "`x` has 4 rows and `y` has 3"),
    "lengths in a dict": ({"x": {"a": X, "b": X[:2]}}, ValueError, r"`x\['b'\]` has 2"),
    "weights length": (
        {"x": X, "y": Y, "sample_weight": [1, 2]},
        ValueError,
        "`sample_weight` has 2",
    ),
    "weights negative": ({"x": X, "y": Y, "sample_weight": [1, -2, 1, 1]}, ValueError, "negative"),
    "weights 2-D": ({"x": X, "y": Y, "sample_weight": X}, ValueError, "one number per sample"),
    "weights alone": ({"x": X, "sample_weight": [1] * 4}, ValueError, "without `y`"),
    "no rows": ({"x": X[:0]}, ValueError, "`x` has no rows"),
    "scalar": ({"x": 3.0}, TypeError, "one row per sample"),
    "None": ({"x": None}, TypeError, "`x` is None; expected an array"),
    "text": ({"x": "images/"}, TypeError, "expected an array with one row"),
    "empty dict": ({"x": {}}, ValueError, "at least one array in the dict"),
    "set": ({"x": {1, 2}}, TypeError, "expected an array"),
    "object": ({"x": object()}, TypeError, "expected an array"),
    "ragged": ({"x": [[1, 2], [3]]}, TypeError, "`x` is"),
    "complex": ({"x": X.astype(complex)}, TypeError, "dtype complex128; expected numbers"),
    "masked": ({"x": np.ma.masked_equal(X, 1)}, ValueError, "without a mask"),
    "text labels": ({"x": X, "y": np.array(list("abab"))}, TypeError, "np.unique"),
    "text features": ({"x": np.array(list("abab"))}, TypeError, "bigzoo.data.csv"),
    "batches": ({"x": Batches(X)}, TypeError, "replace"),
    "batch_size 0": ({"x": X, "batch_size": 0}, ValueError, "`batch_size` is 0"),
    "batch_size 2.5": ({"x": X, "batch_size": 2.5}, TypeError, "`batch_size` is 2.5"),
    "shuffle": ({"x": X, "shuffle": "yes"}, TypeError, "True or False"),
    "seed": ({"x": X, "seed": -1}, ValueError, "`seed` is -1"),
    "augment": ({"x": X, "augment": True}, TypeError, "a function augment"),
    "one name": ({"x": X, "y": Y, "class_names": "cat"}, TypeError, "names of the classes"),
    "names twice": ({"x": X, "y": Y, "class_names": ["a", "a"]}, ValueError, "'a' is there twice"),
    "numbers as names": (
        {"x": X, "y": Y, "class_names": [0, 1]},
        TypeError,
        "names of the classes",
    ),
    "label too high": (
        {"x": X, "y": Y + 1, "class_names": ["a", "b"]},
        ValueError,
        "labels from 1 to 2",
    ),
    "label negative": (
        {"x": X, "y": -Y, "class_names": ["a", "b"]},
        ValueError,
        "labels from -1 to 0",
    ),
    "one-hot": ({"x": X, "y": np.eye(4), "class_names": ["a", "b"]}, ValueError, "4 columns"),
}


@pytest.mark.parametrize("arguments, error, text", BAD.values(), ids=BAD)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        Batches(**arguments)


@pytest.mark.parametrize(
    "augment, error, text",
    [
        (lambda x, y, rng: x, TypeError, r"expected a tuple \(x, y\)"),
        (lambda x, y, rng: (x[:1], y), ValueError, "expected 4 samples"),
        (lambda x, y, rng: (None, y), TypeError, "expected an array"),
    ],
)
def test_bad_augment(augment, error, text):
    with pytest.raises(error, match=text):
        Batches(X, Y, augment=augment).batch(0, 0)


@pytest.mark.parametrize("rows", [[], [0, 0], [4], [-1], [0.5], 2, [[0]]])
def test_bad_selection(rows):
    with pytest.raises((TypeError, ValueError), match=r"`rows` is .*expected"):
        Batches(X, Y).select(rows)


def test_one_hot_boolean_and_multilabel_targets_are_let_through():
    for y in (
        np.eye(2)[Y],
        Y.astype(bool),
        Y[:, None],
        Y.astype("float32"),
        np.eye(2, dtype=int)[Y],
    ):
        assert Batches(X, y, class_names=["a", "b"]).class_names == ("a", "b")


def test_data_frames_and_tensors():
    pandas = pytest.importorskip("pandas")
    batches = Batches(pandas.DataFrame({"a": [1.0, 2.0]}), pandas.Series([0, 1]))
    assert batches[0][0].tolist() == [[1.0], [2.0]]
    assert Batches(keras.ops.ones((3, 2)))[0][0].shape == (3, 2)
    with pytest.raises(TypeError, match="text or objects"):
        Batches(pandas.DataFrame({"a": ["u", "v"]}))
