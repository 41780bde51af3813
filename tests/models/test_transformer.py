"""bigzoo.models.transformer: parameters by formula, masks, positions, bad input."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from bigzoo.models import transformer
from bigzoo.models._registry import REGISTRY
from bigzoo.models.transformer import VARIANTS, sinusoids


def output(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def attention(d):
    return 4 * (d + 1) * d  # query, key, value, output, with biases


def encoder_parameters(sizes):
    d, m = sizes.hidden_dim, sizes.mlp_dim
    block = attention(d) + (d + 1) * m + (m + 1) * d + 2 * 2 * d
    return sizes.num_layers * block + 2 * d


def decoder_parameters(sizes):
    d = sizes.hidden_dim
    return encoder_parameters(sizes) + sizes.num_layers * (attention(d) + 2 * d)


SMALLER = {"num_layers": 2, "vocab_size": 100}  # the numbers go up in a straight line


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_of_the_encoder(variant):
    sizes = dataclasses.replace(VARIANTS[variant], **SMALLER)
    tokens, head = sizes.vocab_size * sizes.hidden_dim, 2 * (sizes.hidden_dim + 1)
    expected = tokens + encoder_parameters(sizes) + head
    assert transformer(variant, **SMALLER).count_params() == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_of_encoder_and_decoder(variant):
    sizes = dataclasses.replace(VARIANTS[variant], **SMALLER)
    both = encoder_parameters(sizes) + decoder_parameters(sizes)
    # One table serves both texts and the logits.
    shared = transformer(variant, kind="encoder_decoder", **SMALLER)
    assert shared.count_params() == sizes.vocab_size * sizes.hidden_dim + both
    own = transformer(variant, kind="encoder_decoder", target_vocab_size=70, **SMALLER)
    assert own.count_params() == shared.count_params() + 70 * sizes.hidden_dim


def test_parameters_at_the_defaults():
    entry = REGISTRY["transformer"].parameters
    for variant, sizes in VARIANTS.items():
        head = 2 * (sizes.hidden_dim + 1)
        total = sizes.vocab_size * sizes.hidden_dim + encoder_parameters(sizes) + head
        assert entry[variant] == total
    assert transformer().count_params() == entry["base"] == 37_860_354


def test_parameters_equal_those_of_torch_and_of_the_paper():
    base, big = VARIANTS["base"], VARIANTS["big"]
    # sum(p.numel() for p in torch.nn.Transformer().parameters()), torch 2.15: the same sizes.
    assert encoder_parameters(base) + decoder_parameters(base) == 44_140_544
    # Table 3: 65 and 213 million, with a vocabulary of "about 37000".
    for sizes, millions in ((base, 65), (big, 213)):
        total = encoder_parameters(sizes) + decoder_parameters(sizes)
        total += sizes.vocab_size * sizes.hidden_dim
        assert abs(total / 1e6 / millions - 1) < 0.035


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_padding_changes_nothing(positions):
    model = transformer("tiny", positions=positions, classifier_activation=None)
    token_ids = np.random.default_rng(0).integers(1, 50, (3, 6))
    alone = output(model, token_ids)
    padded = output(model, np.pad(token_ids, ((0, 0), (0, 7))))
    np.testing.assert_allclose(padded, alone, atol=2e-6)
    longer = output(model, np.pad(token_ids, ((0, 0), (0, 1)), constant_values=9))
    assert np.abs(longer - alone).max() > 1e-3


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_order_matters(positions):
    model = transformer("tiny", positions=positions, classifier_activation=None)
    one, other = np.array([[1, 2, 3, 4]]), np.array([[4, 2, 3, 1]])
    assert np.abs(output(model, one) - output(model, other)).max() > 1e-5


def test_a_row_of_padding_alone_is_finite():
    assert np.isfinite(output(transformer("tiny"), np.zeros((2, 4), int))).all()


@pytest.fixture
def translator():
    model = transformer("tiny", kind="encoder_decoder", positions="learned")
    rng = np.random.default_rng(0)
    source, target = rng.integers(1, 50, (3, 6)), rng.integers(1, 50, (3, 5))
    return model, source, target


def test_no_place_sees_a_later_one(translator):
    model, source, target = translator
    before = output(model, {"token_ids": source, "target_ids": target})
    assert before.shape == (3, 5, 50)
    changed = target.copy()
    changed[:, 3] = 1 + changed[:, 3] % 49
    after = output(model, {"token_ids": source, "target_ids": changed})
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=2e-6)
    assert (np.abs(after - before).max(axis=(0, 2))[3:] > 1e-3).all()


def test_padding_of_either_text_changes_nothing(translator):
    model, source, target = translator
    before = output(model, {"token_ids": source, "target_ids": target})
    padded = {
        "token_ids": np.pad(source, ((0, 0), (0, 4))),
        "target_ids": np.pad(target, ((0, 0), (0, 2))),
    }
    np.testing.assert_allclose(output(model, padded)[:, :5], before, atol=2e-6)


def test_every_part_of_the_source_is_seen(translator):
    model, source, target = translator
    before = output(model, {"token_ids": source, "target_ids": target})
    for place in range(source.shape[1]):
        changed = source.copy()
        changed[:, place] = 1 + changed[:, place] % 49
        after = output(model, {"token_ids": changed, "target_ids": target})
        assert (np.abs(after - before).max(axis=2) > 1e-5).all()


def test_sinusoids_are_those_of_the_paper():
    where = np.arange(40)[None]
    found = keras.ops.convert_to_numpy(sinusoids(where, 16))[0]
    for place in (0, 1, 7, 39):
        angles = place / 10_000 ** (2 * np.arange(8) / 16)
        wanted = np.concatenate([np.sin(angles), np.cos(angles)])
        np.testing.assert_allclose(found[place], wanted, atol=1e-5)


def test_gradient_reaches_every_weight_of_encoder_and_decoder(translator):
    model, source, target = translator
    x = {"token_ids": source, "target_ids": target}
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=keras.backend.backend() == "jax")
    model.train_on_batch(x, target)
    after = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    pairs = zip(model.trainable_weights, before, after, strict=True)
    # A bias of the keys adds the same to all scores of a row, and so has no effect on a softmax.
    same = [weight.path for weight, one, two in pairs if np.array_equal(one, two)]
    assert [path for path in same if "key/bias" not in path] == []


@pytest.mark.large
def test_learns_to_copy():
    """Encoder, decoder, masks and the shared table together: targets that can be read off."""
    keras.utils.set_random_seed(0)
    model = transformer("tiny", kind="encoder_decoder", vocab_size=12, dropout=0, num_layers=1)
    rng = np.random.default_rng(0)
    source = rng.integers(3, 12, (256, 3))
    start = np.full((256, 1), 1)
    x = {"token_ids": source, "target_ids": np.concatenate([start, source[:, :-1]], axis=1)}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(0.02), loss)
    history = model.fit(x, source, epochs=25, batch_size=64, verbose=0).history["loss"]
    assert history[0] > 1.5
    assert history[-1] < 0.5 * np.log(9), "the loss of guessing is log(9)"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"variant": "bas"}, ValueError, "`variant` is 'bas'.*Did you mean 'base'"),
        ({"kind": "decoder"}, ValueError, "`kind` is 'decoder'.*'encoder_decoder'"),
        ({"positions": "rotary"}, ValueError, "`positions` is 'rotary'"),
        ({"hidden_dim": 10, "num_heads": 4}, ValueError, "`hidden_dim` is 10; expected even, and"),
        ({"hidden_dim": 9, "num_heads": 3}, ValueError, "`hidden_dim` is 9; expected even"),
        ({"vocab_size": 1}, ValueError, "`vocab_size` is 1; expected an integer at least 2"),
        ({"target_vocab_size": 9}, ValueError, "`target_vocab_size` is 9; expected None"),
        ({"kind": "encoder_decoder", "num_classes": 3}, ValueError, "`num_classes` is 3; expected"),
        ({"kind": "encoder_decoder", "num_outputs": 3}, ValueError, "`num_outputs` is 3; expected"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1"),
        ({"dropout": -0.1}, ValueError, "`dropout` is -0.1"),
        ({"max_length": 0}, ValueError, "`max_length` is 0"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        transformer(**{"variant": "tiny", **arguments})
