"""TextBatches: pure functions of (seed, epoch, index), buckets by length, every sample once."""

from __future__ import annotations

import pickle

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Batches, TextBatches, drawn_reviews
from bigzoo.data._text_batches import bucket_order
from bigzoo.data.text import BUCKETS, Tokenizer

TEXTS, LABELS = drawn_reviews(203)
TOKENS = Tokenizer.train(TEXTS, vocab_size=300)
ROWS = [TOKENS.encode(text) for text in TEXTS]


def make(**more) -> TextBatches:
    options = {"tokenizer": TOKENS, "batch_size": 8, "class_names": bz.data.REVIEW_NAMES}
    return TextBatches(TEXTS, LABELS, **{**options, **more})


def real_rows(batch) -> list[list[int]]:
    """The tokens of each row without padding."""
    masks = batch["padding_mask"].astype(bool)
    return [ids[mask].tolist() for ids, mask in zip(batch["token_ids"], masks, strict=True)]


def padding(batches) -> float:
    """Share of what an epoch hands out that is padding."""
    masks = [x["padding_mask"] for x, _ in batches]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("size", [1, 8, 29, 203, 500])
def test_every_sample_once_with_its_label(shuffle, size):
    batches = make(shuffle=shuffle, batch_size=size)
    for epoch in (0, 1):
        batches.epoch = epoch
        found = list(batches)
        assert len(found) == len(batches) == -(-203 // size)
        assert all(len(y) == size for _, y in found[:-1])
        order = batches.order(epoch)
        assert sorted(order) == list(range(203))
        rows = [row for x, _ in found for row in real_rows(x)]
        assert rows == [ROWS[i] for i in order]
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), LABELS[order])


def test_lengths_are_few_and_just_enough():
    widths = set()
    for x, _ in make(shuffle=True):
        width, longest = x["token_ids"].shape[1], int(x["padding_mask"].sum(axis=1).max())
        assert width in BUCKETS and longest <= width
        assert width == min(bucket for bucket in BUCKETS if bucket >= longest)
        widths.add(width)
    assert len(widths) > 2


def test_buckets_save_work():
    assert padding(make(shuffle=True)) < 0.45 < 0.6 < padding(make())


def test_masks_and_segments():
    x, _ = make().batch(0, 0)
    assert {key: (part.dtype, part.shape) for key, part in x.items()} == {
        key: (np.dtype("int32"), x["token_ids"].shape)
        for key in ("token_ids", "padding_mask", "segment_ids")
    }
    np.testing.assert_array_equal(x["padding_mask"], x["token_ids"] != 0)
    assert x["segment_ids"].max() == 0
    pairs = TextBatches(["a film", "a"], pairs=["b", "a film"], tokenizer=TOKENS)
    np.testing.assert_array_equal(pairs[0][0]["segment_ids"][:, :4], [[0, 0, 1, 0], [0, 1, 1, 0]])


def test_token_ids_alone():
    batches = make(inputs="token_ids")
    assert isinstance(batches.x, object) and not isinstance(batches.x, dict)
    np.testing.assert_array_equal(batches.batch(0, 1)[0], make().batch(0, 1)[0]["token_ids"])


def test_order_depends_on_seed_and_epoch_alone():
    one, same = make(shuffle=True, seed=3), make(shuffle=True, seed=3)
    list(one)
    np.testing.assert_array_equal(one.order(4), same.order(4))
    orders = [tuple(one.order(epoch)) for epoch in range(4)]
    orders += [tuple(one.replace(seed=seed).order(0)) for seed in (0, 1)]
    assert len(set(orders)) == len(orders)


def test_the_order_is_a_stable_format():
    """A resumed run must see the order that the first run saw, also after an update."""
    buckets = np.array([0, 1, 0, 2, 1, 0, 0, 1])
    order = bucket_order(buckets, 3, np.random.default_rng(5))
    assert order.tolist() == [2, 0, 7, 4, 1, 3, 5, 6]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 8), (8, 8), (9, 4), (100, 7), (3, 1)])
def test_bucket_order_is_a_permutation_of_batches_of_like_rows(count, size):
    bucket = np.random.default_rng(count).integers(0, 3, count)
    order = bucket_order(bucket, size, np.random.default_rng(0))
    assert sorted(order) == list(range(count))
    full = count // size
    batches = bucket[order[: full * size]].reshape(full, size)
    # At most one batch per border between two buckets is mixed.
    assert sum(len(set(row)) > 1 for row in batches.tolist()) <= 2


def test_the_last_smaller_batch_is_of_any_length():
    bucket = np.repeat([0, 1, 2], 33)
    last = {
        int(bucket[bucket_order(bucket, 10, np.random.default_rng(seed))[-1]]) for seed in range(30)
    }
    assert last == {0, 1, 2}


def test_take_select_replace_and_arrays():
    batches = make(shuffle=True)
    few = batches.take(10)
    assert (few.num_samples, few.shuffle) == (10, False)
    x, y = few.arrays()
    assert x["token_ids"].shape[1] in BUCKETS
    assert real_rows(x) == ROWS[:10]
    np.testing.assert_array_equal(y, LABELS[:10])
    some = batches.select([5, 2, 77])
    assert isinstance(some, TextBatches) and some.lengths.tolist() == [
        len(ROWS[i]) for i in (5, 2, 77)
    ]
    assert some.token_range == (
        min(min(ROWS[i]) for i in (5, 2, 77)),
        max(max(ROWS[i]) for i in (5, 2, 77)),
    )
    assert batches.replace(batch_size=50).batch(0, 0)[1].shape == (50,)
    train, val = bz.data.split(batches, val_fraction=0.25)
    assert (train.num_samples, val.num_samples) == (152, 51)
    assert not val.shuffle and train.shuffle


def test_own_buckets_fixed_length_and_truncation():
    fixed = make(buckets=(64,), length=64, truncate=True)
    assert {x["token_ids"].shape[1] for x, _ in fixed} == {64}
    short = make(length=20, truncate=True)
    assert max(x["token_ids"].shape[1] for x, _ in short) == 20


def test_pickles():
    batches = pickle.loads(pickle.dumps(make(shuffle=True)))
    for got, wanted in zip(
        batches.batch(1, 2)[0].values(), make(shuffle=True).batch(1, 2)[0].values(), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_augment_sees_padded_ids_and_its_own_numbers():
    def drop(x, y, rng):
        keep = rng.random(x["token_ids"].shape) > 0.5
        return {**x, "token_ids": x["token_ids"] * keep}, y

    batches = make(augment=drop)
    one = batches.batch(0, 0)[0]["token_ids"]
    np.testing.assert_array_equal(one, batches.batch(0, 0)[0]["token_ids"])
    assert (one == 0).sum() > (make().batch(0, 0)[0]["token_ids"] == 0).sum()


def classifier():
    """The mean of word vectors: order doesn't matter to it, but it trains in no time."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(TOKENS.vocab_size, 4, mask_zero=True),
        layers.GlobalAveragePooling1D(),
        # On torch it draws from torch's own random numbers, which no checkpoint has.
        layers.Dropout(0.0 if keras.backend.backend() == "torch" else 0.2),
        layers.Dense(2, "softmax"),
    ]
    model = keras.Sequential(stack)
    bz.compile(model, learning_rate=0.01, verbose=False)
    return model


def test_fit_and_exact_resume(tmp_path):
    batches = make(shuffle=True, inputs="token_ids", batch_size=24, buckets=(16, 64))
    train = batches.select(np.flatnonzero(batches.lengths <= 64)).take(120).replace(shuffle=True)
    assert {x.shape[1] for x, _ in train} == {16, 64}
    whole = classifier()
    bz.fit(whole, train, epochs=2, verbose=0)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 7:
                raise KeyboardInterrupt

    parts = classifier()
    options = {"epochs": 2, "verbose": 0, "resume": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        bz.fit(parts, train, callbacks=[Stop()], **options)
    again = classifier()
    bz.fit(again, train, **options)
    for one, two in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_plain_keras_takes_it():
    model = classifier()
    batches = make(shuffle=True, inputs="token_ids", batch_size=64, buckets=(32, 256))
    model.fit(batches, epochs=1, shuffle=False, verbose=0)
    scores = model.predict(batches.replace(shuffle=False), verbose=0)
    alone = model.predict(TOKENS(TEXTS[7:8])["token_ids"], verbose=0)
    np.testing.assert_allclose(scores[7:8], alone, atol=1e-5)


LENGTHS = {
    "all of one bucket": [9] * 40,
    "short ones first": [9] * 30 + [100] * 10,
    "long ones first": [100] * 20 + [9] * 20,
    "one long": [9] * 39 + [100],
    "one short": [100] * 39 + [9],
    "many": [5 + 3 * i for i in range(40)],
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("limit", [None, 100, 124])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("size", [8, 7, 30, 64])
@pytest.mark.parametrize("name", LENGTHS)
def test_keras_takes_the_first_two_lengths_for_all(name, size, shuffle, limit):
    """What Keras' adapter does, without a model: shapes of batches 0 and 1, then all epochs."""
    texts = ["a " * min(length, limit or 1000) for length in LENGTHS[name]]
    tok = Tokenizer.train(["a"], max_length=limit)
    for seed in range(3):
        batches = TextBatches(
            texts, tokenizer=tok, batch_size=size, shuffle=shuffle, seed=seed, inputs="token_ids"
        )
        first = {batches[i][0].shape[1] for i in range(min(2, len(batches)))}
        for epoch in range(4):
            batches.epoch = epoch
            widths = {batches[i][0].shape[1] for i in range(len(batches))}
            assert limit is None or max(widths) <= limit
            assert len(first) == 2 or widths == first


def test_repr_names_the_class():
    assert repr(make()).startswith("TextBatches(203 samples, x['token_ids']: (203, ")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tokenizer": str}, TypeError, r"`tokenizer` is .*expected a bigzoo.data.text.Tokenizer"),
        ({"inputs": "ids"}, ValueError, r"`inputs` is 'ids'"),
        ({"buckets": (32, 16)}, ValueError, r"`buckets` is \(32, 16\); expected lengths that rise"),
        ({"buckets": 16}, TypeError, r"`buckets` is 16"),
        ({"buckets": ()}, ValueError, r"expected lengths that rise"),
        ({"length": 0}, ValueError, r"`length` is 0"),
        ({"length": 4}, ValueError, r"`texts\[\d+\]` has \d+ tokens; expected at most 4"),
        ({"batch_size": 0}, ValueError, r"`batch_size` is 0"),
        ({"class_names": ["a"]}, ValueError, r"labels from 0 to 1 and `class_names` has 1"),
    ],
)
def test_bad_arguments(change, error, text):
    with pytest.raises(error, match=text):
        make(**change)


def test_no_texts_and_uneven_labels():
    with pytest.raises(ValueError, match="`texts` has no rows"):
        TextBatches([], tokenizer=TOKENS)
    with pytest.raises(ValueError, match=r"has 2 rows and `y` has 1"):
        TextBatches(["a", "b"], [1], tokenizer=TOKENS)
    assert issubclass(TextBatches, Batches)
