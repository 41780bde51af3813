"""Language models and taggers: one answer for each token."""

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train._outputs import describe_outputs

IDS = np.random.default_rng(0).integers(1, 50, (12, 9)).astype("int32")
NEXT = np.roll(IDS, -1, axis=1)


def texts(ids=IDS):
    ones = np.ones_like(ids)
    return {"token_ids": ids, "padding_mask": ones, "segment_ids": 0 * ids}


def gpt():
    return bz.models.gpt("micro")


def masked_lm():
    return bz.models.bert("micro", head="masked_lm")


@pytest.mark.parametrize("make", [gpt, masked_lm])
def test_tied_logits_are_known_as_such(make):
    (info,) = describe_outputs(make())
    assert info.name == "predictions"
    assert (info.kind, info.activation, info.units, info.logits) == ("linear", "linear", 50, True)


def table_of_the_same_width():
    """A last layer that only looks like the product with a table of tokens."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.ReversibleEmbedding(50, 8, name="table")(ids)
    return keras.Model(ids, keras.layers.Dense(50, name="predictions")(x))


def sum_of_two():
    x = keras.Input((4,), name="x")
    parts = [keras.layers.Dense(3, name=name)(x) for name in "ab"]
    return keras.Model(x, keras.layers.Add(name="sum")(parts))


@pytest.mark.parametrize(
    ("make", "kind"), [(table_of_the_same_width, "linear"), (sum_of_two, "unknown")]
)
def test_others_are_no_tied_logits(make, kind):
    (info,) = describe_outputs(make())
    assert (info.kind, info.logits) == (kind, False)


def direct():
    """The product with the table as the output itself, without a layer behind it."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = keras.layers.ReversibleEmbedding(50, 8, name="table")
    return keras.Model(ids, table(table(ids), reverse=True))


@pytest.mark.parametrize("make", [gpt, masked_lm, direct])
def test_compile_chooses_the_crossentropy_on_logits(make, capsys):
    model = bz.compile(make(), learning_rate=0.01)
    assert isinstance(model.loss, keras.losses.SparseCategoricalCrossentropy)
    assert model.loss.get_config()["from_logits"] is True
    assert "sparse_categorical_crossentropy(from_logits=True) + accuracy" in capsys.readouterr().out


def test_another_task_can_still_be_asked_for():
    assert bz.compile(gpt(), task="regression", verbose=False).loss == "mse"


def test_accuracy_is_per_token():
    model = bz.compile(gpt(), verbose=False)
    found = model.evaluate(IDS, NEXT, verbose=0, return_dict=True)
    right = model.predict(IDS, verbose=0).argmax(-1) == NEXT
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_tagger_gets_a_softmax_for_each_token():
    model = bz.models.bert("micro", head="token", num_classes=4)
    bz.compile(model, verbose=False)
    assert model.loss == "sparse_categorical_crossentropy"
    y = IDS % 4
    assert bz.check(model, texts(), y).ok
    history = bz.fit(model, texts(), y, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("make", "x"), [(gpt, IDS), (masked_lm, texts())])
def test_check_accepts_the_next_tokens_as_labels(make, x, compiled):
    model = make()
    if compiled:
        bz.compile(model, verbose=False)
    report = bz.check(model, x, NEXT)
    assert report.ok, report


def test_masked_lm_learns_the_gaps_by_weights():
    """One weight for each token: the loss of all others is 0."""
    model = bz.compile(masked_lm(), verbose=False, learning_rate=0.01)
    gaps = (np.arange(9) % 3 == 0) * np.ones_like(IDS)
    x = texts(np.where(gaps, 49, IDS))
    assert bz.check(model, x, IDS, sample_weight=gaps.astype("float32")).ok
    history = bz.fit(model, x, IDS, sample_weight=gaps.astype("float32"), epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("y", "code"),
    [
        (NEXT + 50, "labels-out-of-range"),
        (NEXT - 200, "labels-out-of-range"),
        (NEXT[:, 0], "label-shape"),
        (NEXT + 0.5, "labels-not-integers"),
        (keras.utils.to_categorical(NEXT, 50), "one-hot-with-sparse-loss"),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_check_finds_wrong_labels(y, code, compiled):
    model = gpt()
    if compiled:
        bz.compile(model, verbose=False)
    assert [one.code for one in bz.check(model, IDS, y).errors] == [code]
