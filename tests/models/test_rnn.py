"""bigzoo.models.rnn: sizes, padding, directions, heads, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import rnn


def output(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def cell_parameters(cell, inputs, units):
    """Gates × (inputs + state + biases): LSTM has 4 gates, GRU 3 with two biases each."""
    gates, biases = (4, 1) if cell == "lstm" else (3, 2)
    return gates * units * (inputs + units + biases)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_parameters(cell, num_layers, bidirectional):
    model = rnn(
        cell, vocab_size=40, embedding_dim=6, hidden_dim=5, num_layers=num_layers,
        bidirectional=bidirectional, num_classes=3,
    )  # fmt: skip
    ways = 2 if bidirectional else 1
    expected = 40 * 6 + ways * cell_parameters(cell, 6, 5)
    expected += (num_layers - 1) * ways * cell_parameters(cell, ways * 5, 5)
    assert model.count_params() == expected + (ways * 5 + 1) * 3


def test_defaults():
    assert rnn().count_params() == 1_411_842
    assert rnn("gru").count_params() == 1_379_330
    assert rnn().output_shape == (None, 2)
    assert [layer.name for layer in rnn().layers] == [
        "token_ids",
        "token_embedding",
        "layer0_lstm",
        "predictions",
    ]


@pytest.mark.parametrize(("variant", "bidirectional"), [("lstm", True), ("gru", False)])
def test_padding_changes_nothing(variant, bidirectional):
    model = rnn(
        variant, vocab_size=50, bidirectional=bidirectional, classifier_activation=None,
        hidden_dim=8, num_layers=2,
    )  # fmt: skip
    token_ids = np.random.default_rng(0).integers(1, 50, (3, 6))
    alone = output(model, token_ids)
    padded = output(model, np.pad(token_ids, ((0, 0), (0, 5))))
    np.testing.assert_allclose(padded, alone, atol=1e-6)
    # In one batch with a longer text.
    both = np.zeros((2, 9), int)
    both[0, :6], both[1] = token_ids[0], np.arange(1, 10)
    np.testing.assert_allclose(output(model, both)[:1], alone[:1], atol=1e-6)
    # The same test sees a token more.
    assert (
        np.abs(output(model, np.pad(token_ids, ((0, 0), (0, 1)), constant_values=9)) - alone).max()
        > 1e-4
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_order_matters_in_both_directions(cell):
    model = rnn(cell, vocab_size=20, hidden_dim=8, bidirectional=True, classifier_activation=None)
    one, other = np.array([[1, 2, 3, 4]]), np.array([[4, 2, 3, 1]])
    assert np.abs(output(model, one) - output(model, other)).max() > 1e-4


def test_series_and_heads():
    x = np.random.default_rng(0).normal(size=(2, 11, 3)).astype("float32")
    forecast = rnn("tiny", num_features=3, horizon=5)
    assert forecast.output_shape == (None, 5, 3)
    assert output(forecast, x).shape == (2, 5, 3)
    assert forecast.input.name == "series"
    assert rnn("tiny", num_features=3, num_outputs=4).output_shape == (None, 4)
    assert rnn("tiny", num_features=3, num_classes=4).output_shape == (None, 4)
    assert rnn("tiny", num_classes=2, classifier_activation="sigmoid").output_shape == (None, 1)
    features = rnn("tiny", num_features=3, num_classes=0)
    assert features.layers[-1].name == "layer1_gru" and features.output_shape == (None, 8)


def test_dropout_layers_only_where_there_is_dropout():
    names = [layer.name for layer in rnn("tiny", dropout=0.2).layers]
    assert [name for name in names if "dropout" in name] == ["layer0_dropout", "layer1_dropout"]
    assert not [layer for layer in rnn("tiny").layers if "dropout" in layer.name]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"variant": "lstn"}, ValueError, "`variant` is 'lstn'.*Did you mean 'lstm'"),
        ({"vocab_size": 1}, ValueError, "`vocab_size` is 1; expected an integer at least 2"),
        ({"num_features": 0}, ValueError, "`num_features` is 0"),
        ({"num_features": 2, "vocab_size": 9}, ValueError, "`vocab_size` is 9; expected None with"),
        ({"num_features": 2, "embedding_dim": 9}, ValueError, "`embedding_dim` is 9; expected"),
        ({"horizon": 2}, ValueError, "`horizon` is 2; expected None for texts. Give num_features"),
        ({"num_features": 2, "horizon": 0}, ValueError, "`horizon` is 0"),
        ({"num_features": 2, "horizon": 2, "num_classes": 2}, ValueError, "`num_classes` is 2; ex"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1; expected an integer at least 2"),
        ({"num_classes": 2, "num_outputs": 1}, ValueError, "`num_classes` is 2; expected None"),
        ({"bidirectional": 2}, TypeError, "`bidirectional` is 2; expected True or False"),
        ({"hidden_dim": 0}, ValueError, "`hidden_dim` is 0"),
        ({"num_layers": 1.5}, TypeError, "`num_layers` is 1.5"),
        ({"dropout": 1.0}, ValueError, "`dropout` is 1.0"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        rnn(**arguments)
