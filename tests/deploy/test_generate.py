"""Continuing texts: the reference's tokens, with a cache and without, on any decoder."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from safetensors.numpy import save_file

import bigzoo as bz
from bigzoo.deploy import _decoder
from bigzoo.deploy._decoder import CachedDecoder, PlainDecoder, decoder_for, longest
from bigzoo.deploy._sampling import Sampling, distribution, next_tokens

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "gpt.npz")
PROMPT, GREEDY = GOLDEN["input"], GOLDEN["greedy"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The reference's tiny GPT-2, with its weights."""
    folder = tmp_path_factory.mktemp("gpt")
    tensors = {name[7:]: GOLDEN[name] for name in GOLDEN.files if name.startswith("tensor/")}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(str(GOLDEN["config"]), encoding="utf-8")
    return bz.models.gpt(weights=folder)


def worst_difference(model, ids, known: int) -> float:
    """Largest difference between the cache's logits and those of the whole text, at each token."""
    decoder = decoder_for(model, ids[:, :known], ids.shape[1], longest(model))
    whole = np.zeros((len(ids), decoder.length), "int32")
    whole[:, : ids.shape[1]] = ids
    wanted = keras.ops.convert_to_numpy(model(ids, training=False))
    found = [decoder.start(whole, known)]
    found += [decoder.next(whole, n) for n in range(known + 1, ids.shape[1] + 1)]
    return float(np.abs(np.stack(found, 1) - wanted[:, known - 1 :]).max())


# --- the reference --------------------------------------------------------------------------


def test_greedy_tokens_equal_the_reference(model):
    found = bz.generate(model, PROMPT, max_new_tokens=40, temperature=0)
    assert found.dtype == "int32"
    np.testing.assert_array_equal(found, GREEDY)
    assert isinstance(decoder_for(model, PROMPT, 47, 48), CachedDecoder)


def test_one_text_equals_its_row_in_a_batch(model):
    found = bz.generate(model, PROMPT[1].tolist(), max_new_tokens=20, temperature=0)
    np.testing.assert_array_equal(found, GREEDY[1, :27])


@pytest.mark.parametrize("known", [1, 2, 3, 7, 30])
def test_cached_logits_equal_those_of_the_whole_text(model, known):
    assert worst_difference(model, GREEDY[:, :40], known) < 1e-5


def test_a_second_text_starts_with_an_empty_memory(model):
    first = bz.generate(model, PROMPT[0], max_new_tokens=30, temperature=0)
    bz.generate(model, PROMPT[1], max_new_tokens=30, temperature=0)
    again = bz.generate(model, PROMPT[0], max_new_tokens=30, temperature=0)
    np.testing.assert_array_equal(first, again)


def test_new_weights_are_used_at_once():
    small = bz.models.gpt("micro")
    ids = np.tile(np.arange(1, 11, dtype="int32"), (1, 2))
    assert worst_difference(small, ids, 2) < 1e-5
    first = decoder_for(small, ids, 20, 24)
    rng = np.random.default_rng(1)
    for weight in small.weights:
        weight.assign(rng.normal(size=weight.shape))
    assert decoder_for(small, ids, 20, 24) is first
    assert worst_difference(small, ids, 2) < 1e-4  # the logits are about 10 now


def test_nothing_is_compiled_anew_for_a_token(model):
    decoder = decoder_for(model, PROMPT, 47, 48)
    bz.generate(model, PROMPT, max_new_tokens=5, seed=0)
    readers = dict(decoder._readers)
    function = decoder._step.predict_function
    bz.generate(model, PROMPT, max_new_tokens=40, seed=1)
    assert decoder_for(model, PROMPT, 40, 48) is decoder
    assert decoder._readers == readers
    assert decoder._step.predict_function is function
    if keras.backend.backend() == "tensorflow":
        assert function.experimental_get_tracing_count() == 1


def test_the_model_stays_as_it_was(model):
    small = bz.compile(bz.models.gpt("micro"), verbose=False)
    ids = PROMPT % 50
    before, layer_names = small.predict(ids, verbose=0), [layer.name for layer in small.layers]
    bz.generate(small, ids, max_new_tokens=3, seed=0)
    np.testing.assert_array_equal(small.predict(ids, verbose=0), before)
    assert [layer.name for layer in small.layers] == layer_names
    assert small.compiled
    assert len(small.weights) == len(bz.models.gpt("micro").weights)


# --- other decoders ---------------------------------------------------------------------------


def attention(x, name, **more):
    return layers.MultiHeadAttention(2, 4, name=name, **more)(x, x, use_causal_mask=True)


def own_decoder(length=None):
    """Another order of layers than GPT's, with dense logits and operations between the layers."""
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = layers.Embedding(30, 8, name="words")(ids)
    places = ops.cumsum(ops.ones_like(ids), axis=1) + 1  # the first row that is used is row 2
    x = x + layers.Embedding(34, 8, name="places")(places)
    for index in range(2):
        y = attention(x, f"attention{index}")
        x = layers.LayerNormalization(name=f"norm{index}")(layers.Add(name=f"add{index}")([x, y]))
        y = layers.Dense(16, activation="relu", name=f"up{index}")(x)
        x = ops.tanh(x + keras.Sequential([layers.Dense(8)], name=f"down{index}")(y))
    return keras.Model(ids, layers.Dense(30, name="scores")(x))


def compiled_decoder():
    decoder = own_decoder()
    decoder.compile(loss="mse")
    return decoder


def named_input():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = attention(layers.Embedding(30, 8, name="words")(ids), "attention")
    return keras.Model({"ids": ids}, layers.Dense(30, name="scores")(x))


def probabilities():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = attention(layers.Embedding(30, 8, name="words")(ids), "attention")
    return keras.Model(ids, layers.Dense(30, activation="softmax", name="scores")(x))


def recurrent():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.GRU(8, return_sequences=True, name="gru")(layers.Embedding(30, 8, name="words")(ids))
    return keras.Model(ids, layers.Dense(30, name="scores")(x))


def masked():
    """Padding is left out by a mask that Keras passes beside the tensors."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = attention(layers.Embedding(30, 8, mask_zero=True, name="words")(ids), "attention")
    return keras.Model(ids, layers.Dense(30, name="scores")(x))


def windowed():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(30, 8, name="words")(ids)
    return keras.Model(
        ids, layers.Dense(30, name="scores")(attention(x, "attention", sliding_window=2))
    )


def bidirectional():
    """Each token sees those behind it: a poor language model, but one that must not be changed."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(30, 8, name="words")(ids)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(ids, layers.Dense(30, name="scores")(x))


def shifted():
    """Adds to each token the one behind it: must not be taken for a part that works by token."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(30, 8, name="words")(ids)
    x = x + ops.roll(x, -1, axis=1)
    return keras.Model(ids, layers.Dense(30, name="scores")(attention(x, "attention")))


CACHED = [own_decoder, compiled_decoder, named_input, probabilities]
PLAIN = [recurrent, masked, windowed, bidirectional, shifted]


def by_hand(model, ids: list[int], count: int) -> list[int]:
    """Greedy, the slow way: the whole text at its own length for each token."""
    ids = list(ids)
    for _ in range(count):
        x = np.array([ids], "int32")
        scores = model({"ids": x} if isinstance(model.input, dict) else x, training=False)
        ids.append(int(keras.ops.convert_to_numpy(scores)[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("make", CACHED + PLAIN)
def test_any_decoder_gives_its_own_tokens(make):
    keras.utils.set_random_seed(3)
    decoder = make()
    for weight in decoder.weights:  # large enough for answers that differ from token to token
        weight.assign(weight * 3.0)
    found = bz.generate(decoder, [5, 0, 7], max_new_tokens=4, temperature=0)
    assert found.tolist() == by_hand(decoder, [5, 0, 7], 4)
    kind = type(decoder_for(decoder, np.array([[5, 0, 7]]), 7, longest(decoder)))
    assert kind is (CachedDecoder if make in CACHED else PlainDecoder)


def test_a_fixed_length_is_kept():
    decoder = own_decoder(12)
    assert longest(decoder) == 12
    found = bz.generate(decoder, [1, 2], max_new_tokens=10, temperature=0)
    free = own_decoder()
    free.set_weights(decoder.get_weights())
    assert found.tolist() == bz.generate(free, [1, 2], max_new_tokens=10, temperature=0).tolist()


def test_bfloat16(model):
    small = bz.models.gpt("micro", dtype="mixed_bfloat16")
    found = bz.generate(small, [1, 2, 3], max_new_tokens=8, temperature=0)
    assert found.shape == (11,)
    assert worst_difference(small, found[None], 3) < 0.02


def test_weights_that_are_added_later_count():
    small = bz.models.gpt("micro")
    ids = np.array([[1, 2, 3]], "int32")
    first = decoder_for(small, ids, 9, 24)
    small.get_layer("layer0_mlp_up").enable_lora(2)
    for weight in small.get_layer("layer0_mlp_up").trainable_weights:
        weight.assign(weight + 0.5)
    assert decoder_for(small, ids, 9, 24) is not first
    assert worst_difference(small, np.tile(ids, 3), 3) < 1e-4


def test_few_decoders_are_kept():
    small = bz.models.gpt("micro")
    for batch in (1, 2, 3, 4):
        bz.generate(small, np.ones((batch, 2), "int32"), max_new_tokens=1, seed=0)
    assert len(_decoder._DECODERS[small]) == 2


# --- longest text -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "limit"),
    [(lambda: bz.models.gpt("micro"), 24), (own_decoder, 32), (named_input, None)],
)
def test_longest_is_read_from_the_table_of_positions(make, limit):
    assert longest(make()) == limit


def test_a_text_of_the_longest_length_is_fine_and_one_more_is_not():
    small = bz.models.gpt("micro")
    assert bz.generate(small, [1, 2], max_new_tokens=22, seed=0).shape == (24,)
    with pytest.raises(ValueError, match=r"2 tokens .* max_new_tokens=23 are 25.*at most 24"):
        bz.generate(small, [1, 2], max_new_tokens=23, seed=0)


# --- sampling ---------------------------------------------------------------------------------


def test_same_seed_same_text(model):
    one, two = (bz.generate(model, PROMPT, max_new_tokens=20, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = bz.generate(model, PROMPT, max_new_tokens=20, seed=5)
    assert not np.array_equal(one, other)


def test_no_seed_draws_anew(model):
    made = [bz.generate(model, PROMPT[0], max_new_tokens=30).tolist() for _ in range(3)]
    assert len({tuple(ids) for ids in made}) > 1


def test_the_text_of_a_seed_is_the_same_on_every_backend(model):
    found = bz.generate(model, PROMPT[0], max_new_tokens=12, seed=0, top_k=10)
    assert found[7:].tolist() == SEEDED


SEEDED = [27, 27, 7, 7, 38, 39, 33, 33, 28, 36, 33, 0]


def test_distribution_by_hand():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    cases = [
        (Sampling(1.0, None, None), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(1.0, 2, None), [0.625, 0.375, 0, 0]),
        (Sampling(1.0, 9, None), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(1.0, None, 0.7), [0.625, 0.375, 0, 0]),
        (Sampling(1.0, None, 0.1), [1, 0, 0, 0]),
        (Sampling(1.0, 3, 0.8), [0.625, 0.375, 0, 0]),
        (Sampling(0.5, None, None), np.array([25, 9, 2.25, 0.25]) / 36.5),
    ]
    for how, wanted in cases:
        np.testing.assert_allclose(distribution(logits, how)[0], wanted, atol=1e-12)


def test_draws_follow_the_distribution():
    logits = np.tile(np.log([[0.6, 0.0001, 0.3, 0.0999]]), (20_000, 1))
    drawn = next_tokens(logits, Sampling(1.0, 3, None), np.random.default_rng(0))
    share = np.bincount(drawn, minlength=4) / len(drawn)
    wanted = np.array([0.6, 0, 0.3, 0.0999]) / 0.9999
    np.testing.assert_allclose(share, wanted, atol=0.015)
    assert share[1] == 0


# --- end of text ------------------------------------------------------------------------------


def test_stop_id_ends_each_text(model):
    stop = int(GREEDY[0, 12])
    first = [int(np.argmax(row[7:] == stop)) if stop in row[7:] else 40 for row in GREEDY]
    found = bz.generate(model, PROMPT, max_new_tokens=40, temperature=0, stop_id=stop)
    assert found.shape[1] == min(47, 7 + max(first) + 1)
    for row, wanted, end in zip(found, GREEDY, first, strict=True):
        np.testing.assert_array_equal(row[: 7 + end], wanted[: 7 + end])
        assert (row[7 + end :] == stop).all()


def test_stop_id_cuts_a_single_text(model):
    stop = int(GREEDY[0, 12])
    found = bz.generate(model, PROMPT[0], max_new_tokens=40, temperature=0, stop_id=stop)
    assert found.tolist() == GREEDY[0, : 8 + GREEDY[0, 7:].tolist().index(stop)].tolist()


# --- text -------------------------------------------------------------------------------------


class Letters:
    """A tokenizer: a is 1, b is 2, …"""

    def encode(self, text):
        return [ord(letter) - 96 for letter in text]

    def decode(self, ids):
        return "".join(chr(96 + number) for number in ids)


class Encoding:
    def __init__(self, ids):
        self.ids = ids


class LikeThePackage(Letters):
    """The package tokenizers gives an object with `ids`."""

    def encode(self, text):
        return Encoding(super().encode(text))


class WithMarks(Letters):
    """Frames texts by marks unless asked not to, as `bz.data.text.Tokenizer` can."""

    def encode(self, text, *, special_tokens=True):
        ids = super().encode(text)
        return [25, *ids, 26] if special_tokens else ids


@pytest.mark.parametrize("tokenizer", [Letters(), LikeThePackage(), WithMarks()])
def test_text_in_text_out(tokenizer):
    small = bz.models.gpt("micro", vocab_size=27)
    ids = bz.generate(small, [1, 2, 3], max_new_tokens=6, seed=2)
    text = bz.generate(small, "abc", tokenizer=tokenizer, max_new_tokens=6, seed=2)
    assert text == tokenizer.decode(ids)
    assert text.startswith("abc")
    both = bz.generate(small, ["abc", "z"], tokenizer=tokenizer, max_new_tokens=6, temperature=0)
    assert [len(one) for one in both] == [9, 7]


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"prompt": "abc"}, ValueError, r"`tokenizer` is None; expected a tokenizer"),
        ({"prompt": "abc", "tokenizer": 3}, TypeError, r"`tokenizer` is 3; expected an object"),
        ({"prompt": "", "tokenizer": Letters()}, ValueError, r"at least one token"),
        ({"prompt": ["a", 3], "tokenizer": Letters()}, TypeError, r"texts only"),
        ({"prompt": "a~", "tokenizer": Letters()}, ValueError, r"`prompt` is 30; .* 0 to 29"),
        ({"prompt": []}, ValueError, r"`prompt` is \[\]"),
        ({"prompt": [[1, 2], [3]]}, ValueError, r"ids of equal length.*one by one"),
        ({"prompt": [0.5]}, TypeError, r"`prompt` is \[0\.5\]"),
        ({"prompt": np.ones((1, 1, 1), int)}, ValueError, r"`prompt` is an array of shape"),
        ({"prompt": [3, 30]}, ValueError, r"`prompt` is 30; expected token ids from 0 to 29"),
        ({"prompt": [-1]}, ValueError, r"`prompt` is -1; expected token ids from 0"),
        ({"max_new_tokens": 0}, ValueError, r"`max_new_tokens` is 0"),
        ({"max_new_tokens": 99}, ValueError, r"are 101; expected at most 24.*max_new_tokens=22"),
        ({"prompt": [1] * 30}, ValueError, r"Cut the prompt, such as to its last 14 tokens"),
        ({"temperature": -0.1}, ValueError, r"`temperature` is -0\.1"),
        ({"temperature": float("nan")}, ValueError, r"`temperature` is nan"),
        ({"top_k": 0}, ValueError, r"`top_k` is 0"),
        ({"top_p": 0}, ValueError, r"`top_p` is 0"),
        ({"top_p": 1.5}, ValueError, r"`top_p` is 1\.5"),
        ({"seed": -1}, ValueError, r"`seed` is -1"),
        ({"stop_id": 30}, ValueError, r"`stop_id` is 30; expected .*at most 29"),
        ({"model": 3}, TypeError, r"`model` is 3; expected a keras\.Model"),
    ],
)
def test_bad_arguments(arguments, error, text, monkeypatch):
    small = bz.models.gpt("micro", vocab_size=30)
    monkeypatch.setattr("bigzoo.deploy._generate.decoder_for", None)  # nothing may be computed
    full = {"model": small, "prompt": [1, 2], "max_new_tokens": 10, **arguments}
    model, prompt = full.pop("model"), full.pop("prompt")
    with pytest.raises(error, match=text):
        bz.generate(model, prompt, **full)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"a model from \(None, 1000\) to \(None, 1\)"):
        bz.generate(bz.models.mlp(), [1, 2])
    with pytest.raises(ValueError, match=r"expected a language model"):
        bz.generate(bz.models.bert("micro"), [1, 2])


def test_config_of_the_golden_file_is_the_one_that_is_tested():
    assert json.loads(str(GOLDEN["config"]))["n_positions"] == 48
