"""split: no row on both sides, exact shares, groups whole, time in order."""

import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Batches, split


def rows_of(part):
    return np.asarray(part).reshape(-1).astype(int)


def assert_divides(train, val, count):
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(count))


@pytest.mark.parametrize("count", [2, 3, 10, 101, 1003])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.95])
def test_random(count, fraction):
    train, val = split(np.arange(count), val_fraction=fraction)
    assert_divides(train, val, count)
    assert len(val) == min(count - 1, max(1, round(count * fraction)))
    assert list(train) == sorted(train) and list(val) == sorted(val)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes, fraction", [(2, 0.2), (3, 0.25), (7, 0.1), (20, 0.33), (2, 0.9)])
def test_stratified_shares_are_exact_to_within_a_row(seed, classes, fraction):
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, 300, p=rng.dirichlet(np.ones(classes)))
    (train, y_train), (val, y_val) = split(
        np.arange(300), y, val_fraction=fraction, stratify=True, seed=seed
    )
    assert_divides(train, val, 300)
    np.testing.assert_array_equal(y[train], y_train)
    sizes = np.bincount(y, minlength=classes)
    shares = np.bincount(y_val, minlength=classes)
    assert np.all(np.abs(shares - sizes * fraction) < 1)
    if sizes[sizes > 0].min() > 1 / (1 - fraction):
        assert len(val) == round(300 * fraction)
    assert set(y_val) <= set(y_train)


def test_exact_shares_where_they_are_whole():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    (_, y_train), (_, y_val) = split(np.zeros(100), y, val_fraction=0.2)
    assert np.bincount(y_val).tolist() == [10, 6, 4]
    assert np.bincount(y_train).tolist() == [40, 24, 16]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0] * 90 + [1] * 10),
        np.array([0] * 90 + [1] * 10)[:, None],
        np.array([0.0] * 90 + [1.0] * 10),
        np.array([False] * 90 + [True] * 10),
        np.array(["no"] * 90 + ["yes"] * 10),
        np.array(["no"] * 90 + ["yes"] * 10, dtype=object),
        np.eye(2)[[0] * 90 + [1] * 10],
    ],
    ids=["int", "column", "float", "bool", "text", "object", "one-hot"],
)
def test_class_labels_of_every_form_are_stratified(labels):
    for seed in range(5):
        _, (rows, _) = split(np.arange(100), labels, seed=seed)
        assert np.sum(rows >= 90) == 2


def test_amounts_are_not_stratified_by_themselves():
    for y in (np.arange(100), np.linspace(0, 1, 100), np.ones((100, 3)), {"a": np.zeros(100)}):
        (train, _), (val, _) = split(np.arange(100), y)
        assert_divides(train, val, 100)


def test_stratify_by_an_array_and_not_at_all():
    strata, y = np.array([0] * 95 + [1] * 5), np.arange(100) % 2
    for seed in range(9):
        _, (rows, _) = split(np.arange(100), y, stratify=strata, seed=seed)
        assert np.sum(rows >= 95) == 1
    parts = [split(np.arange(100), strata, stratify=False, seed=seed)[1][0] for seed in range(9)]
    assert len({np.sum(rows >= 95) for rows in parts}) > 1


def test_a_class_with_one_row_stays_in_training():
    y = np.array([0] * 10 + [1])
    for seed in range(20):
        (_, y_train), _ = split(np.arange(11), y, val_fraction=0.5, stratify=True, seed=seed)
        assert 1 in y_train


def test_groups_stay_whole_and_the_share_is_near():
    groups = np.random.default_rng(0).integers(0, 40, 500)
    for ids in (groups, np.array([f"patient {i}" for i in groups])):
        for seed in range(5):
            train, val = split(np.arange(500), val_fraction=0.2, groups=ids, seed=seed)
            assert_divides(train, val, 500)
            assert not set(ids[train]) & set(ids[val])
            assert abs(len(val) - 100) <= 10


@pytest.mark.parametrize("sizes", [[5, 5], [1, 99], [99, 1], [1, 1, 1], [50, 30, 20]])
def test_few_groups_leave_no_part_empty(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for fraction in (0.01, 0.2, 0.99):
        train, val = split(np.arange(len(groups)), groups=groups, val_fraction=fraction)
        assert len(train) and len(val)
        assert not set(groups[train]) & set(groups[val])


@pytest.mark.parametrize(
    "times",
    [
        np.arange(50)[::-1],
        np.datetime64("2024-01-01") + np.arange(50)[::-1],
        np.array([f"2024-01-01 {i:02d}" for i in range(50)][::-1]),
    ],
    ids=["numbers", "dates", "texts"],
)
def test_time_takes_the_latest(times):
    train, val = split(np.arange(50), time=times, val_fraction=0.2)
    assert val.tolist() == list(range(10))
    assert max(times[train]) < min(times[val])


def test_equal_times_stay_together():
    times = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    train, val = split(np.arange(10), time=times, val_fraction=0.2)
    assert times[train].max() == 1 and times[val].min() == 2


def test_the_same_for_a_seed_and_the_stored_rows_for_ever():
    first, second = split(np.arange(20), seed=3)[1], split(np.arange(20), seed=3)[1]
    np.testing.assert_array_equal(first, second)
    assert first.tolist() == [0, 4, 7, 9]
    assert split(np.arange(20), seed=4)[1].tolist() != first.tolist()


def test_batches_keep_their_settings_and_validation_is_plain():
    def same(x, y, rng):
        return x, y

    batches = Batches(
        np.arange(10), np.arange(10) % 2, np.arange(10), batch_size=3, shuffle=True, seed=4,
        augment=same, class_names=["a", "b"], encoder="kept",
    )  # fmt: skip
    train, val = split(batches, val_fraction=0.4)
    assert_divides(train.x, val.x, 10)
    assert (train.shuffle, train.augment, val.shuffle, val.augment) == (True, same, False, None)
    for part in (train, val):
        assert part.class_names == ("a", "b") and part.batch_size == 3 and part.seed == 4
        assert part.encoder == "kept" and part.num_samples == len(part.x)
        np.testing.assert_array_equal(part.x, part.sample_weight)
        assert np.bincount(part.y).tolist() == [part.num_samples // 2] * 2


def test_dicts_are_divided_alike():
    (train, _), (val, y_val) = split({"a": np.arange(10), "b": np.arange(10) * 2}, np.arange(10))
    np.testing.assert_array_equal(val["a"] * 2, val["b"])
    np.testing.assert_array_equal(val["a"], y_val)
    assert_divides(train["a"], val["a"], 10)


X, Y = np.arange(10.0), np.arange(10) % 2
BAD = {
    "fraction 0": ({"val_fraction": 0}, ValueError, "`val_fraction` is 0; expected .* above 0"),
    "fraction 1": ({"val_fraction": 1.0}, ValueError, "below 1"),
    "fraction text": ({"val_fraction": "a fifth"}, TypeError, "`val_fraction` is 'a fifth'"),
    "seed": ({"seed": 1.5}, TypeError, "`seed` is 1.5"),
    "lengths": ({"y": Y[:9]}, ValueError, "`x` has 10 rows and `y` has 9"),
    "one row": ({"x": X[:1]}, ValueError, "1 sample; expected at least 2"),
    "two ways": ({"groups": Y, "time": Y}, ValueError, "More than one of"),
    "strata and groups": ({"y": Y, "stratify": True, "groups": Y}, ValueError, "More than one of"),
    "stratify without y": ({"stratify": True}, ValueError, "there is no `y`"),
    "stratify amounts": ({"y": X / 3, "stratify": True}, ValueError, "holds no class labels"),
    "stratify length": ({"stratify": Y[:3]}, ValueError, r"expected one value per sample"),
    "nothing left": ({"y": np.arange(10), "stratify": True}, ValueError, "would be empty"),
    "one group": ({"groups": np.zeros(10)}, ValueError, "one group"),
    "groups length": ({"groups": [1, 2]}, ValueError, r"an array of shape \(10,\)"),
    "groups NaN": ({"groups": [np.nan, *range(9)]}, ValueError, "no value in row 0"),
    "groups None": ({"groups": [*"abcdefghi", None]}, ValueError, "no value in row 9"),
    "groups 2-D": ({"groups": np.zeros((10, 2))}, TypeError, "one value per sample"),
    "one time": ({"time": np.zeros(10)}, ValueError, "at least 2 different times"),
    "no time": (
        {"time": np.array(["2024-01-01"] * 9 + ["NaT"], "datetime64[D]")},
        ValueError,
        "`time` has no value in row 9",
    ),
    "batches and y": ({"x": Batches(X, Y), "y": Y}, TypeError, "in the Batches already"),
}


@pytest.mark.parametrize("arguments, error, text", BAD.values(), ids=BAD)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.data.split(**{"x": X, **arguments})
