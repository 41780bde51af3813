"""check on token ids: what no Embedding has a row for, padding alone, sequences too long."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data.text import Tokenizer

TEXTS, LABELS = bz.data.drawn_reviews(64)
TOKENS = Tokenizer.train(TEXTS, special_tokens=True)


def embedding_model(rows=50, length=None, dtype="int32"):
    layers = keras.layers
    stack = [keras.Input((length,), dtype=dtype, name="token_ids"), layers.Embedding(rows, 4)]
    stack += [layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax")]
    model = keras.Sequential(stack)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def position_model(rows=12, learned=True):
    model = bz.models.transformer(
        "tiny",
        vocab_size=500,
        max_length=rows,
        positions="learned" if learned else "sinusoidal",
        num_layers=1,
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def ids(shape=(64, 9), high=50):
    return np.random.default_rng(0).integers(1, high, shape)


def one_changed(value, dtype="int64"):
    x = ids().astype(dtype)
    x[40, 3] = value
    return x


def codes(report):
    return [finding.code for finding in report.errors]


def test_right_ids_are_no_finding():
    assert bz.check(embedding_model(), ids(), LABELS).ok
    assert bz.check(embedding_model(), ids().astype("float32"), LABELS).ok
    assert bz.check(position_model(), ids(high=500), LABELS).ok


@pytest.mark.parametrize(
    ("x", "code", "text"),
    [
        (one_changed(50), "token-range", r"tokens from 1 to 50; expected integers from 0 to 49"),
        (one_changed(77), "token-range", r"Embedding\(78, ...\)  # vocab_size=78"),
        (one_changed(-1), "token-range", r"tokens from -1 to 49; .*np.maximum\(x, 0\)"),
        (
            one_changed(3.5, "float32"),
            "token-fractions",
            "not whole, first in row 40; expected int",
        ),
    ],
)
def test_ids_without_a_row(x, code, text):
    report = bz.check(embedding_model(), x, LABELS)
    assert codes(report) == [code]
    with pytest.raises(ValueError, match=text):
        bz.fit(embedding_model(), x, LABELS, verbose=0)


def test_all_rows_in_memory_count():
    """Also the one that an even selection of rows passes over."""
    x = np.tile(ids((1000, 64)), (40, 1))
    x[12_345, 7] = 99
    with pytest.raises(ValueError, match="tokens from 1 to 99"):
        bz.fit(embedding_model(), x, np.zeros(len(x), int), verbose=0)


def test_all_texts_of_batches_count():
    words = ["good film"] * 40 + ["rare zebra"] + ["good film"] * 23
    tok = Tokenizer.train(words)
    batches = bz.data.TextBatches(words, LABELS, tokenizer=tok, inputs="token_ids", batch_size=8)
    text = rf"tokens from 2 to {tok.vocab_size - 1}; expected integers from 0 to 3"
    with pytest.raises(ValueError, match=text):
        bz.fit(embedding_model(4), batches, verbose=0)
    assert codes(bz.check(embedding_model(tok.vocab_size), batches)) == []


@pytest.mark.parametrize("rows", [12, 200])
def test_sequences_longer_than_the_table_of_positions(rows):
    report = bz.check(position_model(rows), ids((64, 20), 500), LABELS)
    if rows == 200:
        assert codes(report) == []
        return
    (finding,) = report.errors
    assert finding.code == "sequence-too-long"
    assert finding.got == "sequences of 20 tokens"
    assert "at most 12" in finding.expected
    assert "x = x[:, :12]" in finding.fix
    assert codes(bz.check(position_model(rows, learned=False), ids((64, 20), 500), LABELS)) == []


def test_long_validation_texts_are_found_too():
    val = (ids((20, 20), 500), LABELS[:20])
    report = bz.check(position_model(), ids(high=500), LABELS, validation_data=val)
    assert [(one.code, one.where) for one in report.errors] == [
        ("sequence-too-long", "validation x")
    ]


@pytest.mark.parametrize(("empty", "level"), [(1, "warning"), (40, "error")])
def test_rows_of_padding_alone(empty, level):
    x = ids()
    x[5 : 5 + empty] = 0
    found = [
        one for one in bz.check(embedding_model(), x, LABELS).findings if one.code == "all-padding"
    ]
    assert [one.level for one in found] == [level]
    assert found[0].got == f"{empty} of 64 rows that are padding alone, first row 5"


def mask_model():
    """Takes all three inputs, as bert does."""
    layers = keras.layers
    given = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask", "segment_ids")
    }
    x = layers.Embedding(600, 4)(given["token_ids"])
    x = layers.Add()([x, layers.Embedding(2, 4)(given["segment_ids"])])
    mask = keras.ops.cast(keras.ops.expand_dims(given["padding_mask"], -1), "float32")
    x = keras.ops.sum(x * mask, axis=1) / keras.ops.maximum(keras.ops.sum(mask, axis=1), 1.0)
    model = keras.Model(given, layers.Dense(2, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_masks_and_segments_that_are_the_same_everywhere_are_no_finding():
    texts = ["one two three", "two three one"] * 16
    batches = bz.data.TextBatches(texts, LABELS[:32], tokenizer=TOKENS, buckets=(5,))
    assert codes(bz.check(mask_model(), batches)) == []
    report = bz.check(mask_model(), bz.data.TextBatches(TEXTS, LABELS, tokenizer=TOKENS))
    assert report.findings == []


def test_an_empty_mask_is_found():
    x = TOKENS(["good film"] * 8)
    x["padding_mask"][2] = 0
    x["token_ids"][4:, 1] = 7
    report = bz.check(mask_model(), x, LABELS[:8])
    assert [(one.code, one.where) for one in report.warnings] == [
        ("all-padding", "x['padding_mask']")
    ]


def test_fit_on_texts_of_all_lengths():
    batches = bz.data.TextBatches(TEXTS, LABELS, tokenizer=TOKENS, shuffle=True, batch_size=16)
    history = bz.fit(mask_model(), batches, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
