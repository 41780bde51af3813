"""Attention weights: those of transformers, the tokens' names, the picture, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.plot._attention import _find, compute

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STORED = np.load(GOLDEN / "attention.npz")
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tiny model of transformers: `checkpoint("bert")`."""
    save_file = pytest.importorskip("safetensors.numpy").save_file

    def write(family):
        arrays = np.load(GOLDEN / f"{family}.npz")
        start = {"bert": "hidden_states/", "gpt": ""}[family]
        names = [name for name in arrays.files if name.startswith(f"{start}tensor/")]
        tensors = {name.removeprefix(f"{start}tensor/"): arrays[name] for name in names}
        folder = tmp_path_factory.mktemp(family)
        save_file(tensors, folder / "model.safetensors")
        config = json.loads(str(arrays[f"{start}config"]))
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return getattr(bz.models, family)(weights=folder), arrays

    return write


def difference(ours, theirs):
    return np.inf if ours.shape != theirs.shape else float(np.abs(ours - theirs).max())


def test_bert_equals_transformers(checkpoint):
    model, arrays = checkpoint("bert")
    for row in range(2):
        x = {k: arrays[f"input/{k}"][row : row + 1] for k in model.input}
        real = x["padding_mask"][0].astype(bool)
        for layer in range(2):
            ours = compute(model, _find(model, layer), x)
            theirs = STORED[f"bert/{layer}"][row]
            assert difference(ours[:, real], theirs[:, real]) < TOLERANCE
            assert (ours[:, real][:, :, ~real] == 0).all()


def test_gpt_equals_transformers(checkpoint):
    model, arrays = checkpoint("gpt")
    for layer in (0, 1):
        ours = compute(model, _find(model, layer), arrays["input"][:1])
        assert difference(ours, STORED[f"gpt/{layer}"][0]) < TOLERANCE


def test_the_comparison_sees_another_layer_and_another_text():
    first, second = STORED["bert/0"], STORED["bert/1"]
    assert difference(first[0], second[0]) > 0.01
    assert difference(first[0], first[1]) > 0.01
    assert difference(first[0], first) == np.inf
    assert difference(first[0], first[0]) == 0


def weights_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def tokens_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


class Words:
    """A tokenizer as far as the plot looks at it."""

    words = ("[PAD]", "the", "cat", "sat\n", "$x_1$")

    def __call__(self, texts):
        ids = np.array([[self.words.index(word) for word in text.split(" ")] for text in texts])
        return {"token_ids": ids, "padding_mask": np.ones_like(ids)}

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)


@pytest.fixture(scope="module")
def bert():
    return bz.models.bert("micro", vocab_size=10)


@pytest.fixture(scope="module")
def gpt():
    return bz.models.gpt("micro", vocab_size=10)


def test_a_text_with_its_tokens(bert):
    figure = bz.plot.attention(bert, "the cat sat\n $x_1$", Words())
    assert tokens_of(figure) == ["the", "cat", "sat\\n", "$x_1$"]
    np.testing.assert_allclose(weights_of(figure).sum(axis=1), 1, rtol=1e-4)
    assert figure.axes[0].get_title() == "layer1_attention, mean of 2 heads"
    figure.canvas.draw()


def test_heads_and_layers(gpt):
    ids = [1, 2, 3]
    both = [weights_of(bz.plot.attention(gpt, ids, layer=0, head=head)) for head in (0, 1)]
    mean = bz.plot.attention(gpt, ids, layer="layer0_attention")
    np.testing.assert_allclose(weights_of(mean), np.mean(both, axis=0), atol=1e-6)
    assert not weights_of(mean)[np.triu_indices(3, 1)].any()
    assert bz.plot.attention(gpt, ids, head=1).axes[0].get_title() == "layer1_attention, head 1"
    assert tokens_of(mean) == ["1", "2", "3"]


def test_ids_get_the_other_inputs(bert):
    alone = bz.plot.attention(bert, np.array([[4, 5, 0]]))
    given = bz.plot.attention(
        bert, {"token_ids": [4, 5, 0], "padding_mask": [1, 1, 1], "segment_ids": [0, 0, 0]}
    )
    assert np.array_equal(weights_of(alone), weights_of(given))
    masked = bz.plot.attention(bert, {"token_ids": [4, 5, 0], "padding_mask": [1, 1, 0]})
    assert not weights_of(masked)[:, 2].any()


def test_the_tokenizer_of_bigzoo_and_long_texts(bert):
    tok = bz.data.text.Tokenizer.train(["the cat sat"], special_tokens=True)
    figure = bz.plot.attention(bert, "the cat", tok)
    assert tokens_of(figure) == ["[CLS]", "the", "cat", "[SEP]"]
    assert len(figure.axes[0].texts) == 16
    long = bz.plot.attention(bert, np.arange(24) % 10)
    assert not long.axes[0].texts


def test_own_axes(gpt):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert bz.plot.attention(gpt, [1, 2], ax=ax) is ax


def test_the_model_stays_as_it_was(gpt):
    config = gpt.get_config()
    bz.plot.attention(gpt, [1, 2, 3])
    assert gpt.get_config() == config
    assert gpt.get_layer("layer1_attention").output.shape[-1] == 16


@pytest.mark.parametrize(
    ("given", "options", "error", "text"),
    [
        ("the cat", {}, ValueError, "Give the model's tokenizer, or token ids"),
        ([[1, 2], [3, 4]], {}, ValueError, r"integers of shape \(length,\)"),
        ([0.5, 0.2], {}, ValueError, "the tokens of one text"),
        ([], {}, ValueError, "at least one row"),
        ({"ids": [1]}, {}, ValueError, "a dict with 'token_ids'"),
        ([1, 2], {"layer": 2}, ValueError, "at most 1. The model has 2 attention layers"),
        ([1, 2], {"layer": "layer0_atention"}, ValueError, "Did you mean 'layer0_attention'"),
        ([1, 2], {"layer": "layer0_mlp_up"}, ValueError, "one of the attention layers"),
        ([1, 2], {"head": 2}, ValueError, "The layer has 2 heads"),
        ([1, 2], {"head": -1}, ValueError, "`head` is -1"),
        ([1, 2], {"tokenizer": 3}, TypeError, "an object with `decode`"),
        ([1, 2], {"ax": 3}, TypeError, "a matplotlib Axes or None"),
    ],
)
def test_bad_input(gpt, given, options, error, text):
    with pytest.raises(error, match=text):
        bz.plot.attention(gpt, given, **options)


def test_models_without_attention_and_with_lora():
    with pytest.raises(ValueError, match="a model with MultiHeadAttention"):
        bz.plot.attention(bz.models.mlp(4), [1, 2])
    model = bz.models.gpt("micro", vocab_size=10)
    model.get_layer("layer1_attention").query_dense.enable_lora(2)
    with pytest.raises(ValueError, match="Merge LoRA first"):
        bz.plot.attention(model, [1, 2])
    with pytest.raises(TypeError, match=r"expected a keras\.Model"):
        bz.plot.attention("bert", [1, 2])


def test_a_model_that_needs_more_than_tokens():
    ids, extra = keras.Input((None,), name="token_ids"), keras.Input((2,), name="extra")
    x = keras.layers.Embedding(5, 4)(ids)
    x = keras.layers.MultiHeadAttention(1, 4)(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    merged = keras.layers.Concatenate()([x, extra])
    inputs = {"token_ids": ids, "extra": extra}
    with pytest.raises(ValueError, match="'extra'"):
        bz.plot.attention(keras.Model(inputs, merged), [1, 2])
    with pytest.raises(ValueError, match="or a dict of inputs with 'token_ids'"):
        bz.plot.attention(keras.Model([ids, extra], merged), [1, 2])
