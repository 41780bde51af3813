"""BERT: sizes, heads and arguments. What its checkpoints compute: tests/weights."""

import keras
import numpy as np
import pytest

from bigzoo import models
from bigzoo.models._registry import REGISTRY
from bigzoo.models.bert import VARIANTS


def inputs(batch=2, length=7, padded=2):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 50, (batch, length)).astype("int32")
    mask = np.ones_like(ids)
    if padded:
        mask[-1, -padded:] = 0
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def count(sizes) -> int:
    """Parameters of transformers' BertModel with its pooler, by the sizes."""
    dim, inside = sizes.hidden_dim, sizes.mlp_dim
    tables = sizes.vocab_size + sizes.max_length + sizes.num_segments
    attention = 4 * (dim * dim + dim)
    dense = dim * inside + inside + inside * dim + dim
    layer = attention + dense + 4 * dim
    return tables * dim + 2 * dim + sizes.num_layers * layer + dim * dim + dim


# transformers 5.23: sum(p.numel() for p in BertModel(config).parameters()), with these sizes.
REFERENCE = {
    "tiny": 4_385_920,
    "mini": 11_170_560,
    "small": 28_763_648,
    "medium": 41_373_184,
    "minilm": 22_713_216,
    "base": 109_482_240,
    "large": 335_141_888,
}


@pytest.mark.parametrize("variant", REFERENCE)
def test_number_of_parameters(variant):
    """Counted on the model up to 50 million, by the sizes above: that is the same sum."""
    assert count(VARIANTS[variant]) == REFERENCE[variant]
    head = 2 * VARIANTS[variant].hidden_dim + 2
    assert REGISTRY["bert"].parameters[variant] == REFERENCE[variant] + head
    if REFERENCE[variant] < 50e6:
        assert models.bert(variant, num_classes=0).count_params() == REFERENCE[variant]


@pytest.mark.large
def test_number_of_parameters_of_base():
    assert models.bert("base", num_classes=0).count_params() == 109_482_240


@pytest.mark.parametrize(
    ("arguments", "shape", "last"),
    [
        ({}, (2, 2), "predictions"),
        ({"num_classes": 5}, (2, 5), "predictions"),
        ({"classifier_activation": "sigmoid"}, (2, 1), "predictions"),
        ({"num_outputs": 1}, (2, 1), "predictions"),
        ({"num_classes": 0}, (2, 16), "pooler"),
        ({"head": "token"}, (2, 7, 2), "predictions"),
        ({"head": "token", "num_classes": 9}, (2, 7, 9), "predictions"),
        ({"head": "token", "num_classes": 0}, (2, 7, 16), "hidden_states"),
        ({"head": "masked_lm"}, (2, 7, 50), "predictions"),
        ({"head": "embedding"}, (2, 16), "embedding"),
        ({"head": None}, (2, 7, 16), "hidden_states"),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_heads(arguments, shape, last, policy):
    model = models.bert("micro", dtype=policy, **arguments)
    found = model(inputs(), training=False)
    assert tuple(found.shape) == shape
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert model.layers[-1].name == last
    assert model.output.dtype == "float32"


def test_padding_changes_nothing():
    """A text in a batch of longer ones gives what it gives alone."""
    for head in ("classification", "embedding", "token"):
        model = models.bert("micro", head=head)
        x = inputs(padded=3)
        alone = {name: value[-1:, :-3] for name, value in x.items()}
        wanted, found = run(model, alone), run(model, x)[-1:]
        found = found[:, :-3] if head == "token" else found
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        # Without the mask the padding is read, so the mask is what keeps it out.
        bare = {**x, "padding_mask": np.ones_like(x["padding_mask"])}
        unmasked = run(model, bare)[-1:]
        unmasked = unmasked[:, :-3] if head == "token" else unmasked
        assert np.abs(unmasked - wanted).max() > 1e-5


def test_embeddings_have_length_one_unless_asked_not_to():
    made = [models.bert("micro", head="embedding", normalize=flag) for flag in (True, False)]
    lengths = [np.linalg.norm(run(model, inputs()), axis=1) for model in made]
    np.testing.assert_allclose(lengths[0], 1, atol=1e-5)
    assert np.abs(lengths[1] - 1).max() > 0.1


def test_segments_and_positions_matter():
    model, x = models.bert("micro", head=None), inputs(padded=0)
    base = run(model, x)
    second = {**x, "segment_ids": np.ones_like(x["segment_ids"])}
    turned = {**x, "token_ids": x["token_ids"][:, ::-1].copy()}
    assert np.abs(run(model, second) - base).max() > 1e-3
    assert np.abs(run(model, turned)[:, ::-1] - base).max() > 1e-3


def test_dropout_is_off_in_inference_and_has_no_layer_at_zero():
    model = models.bert("micro", attention_dropout=0.3)
    np.testing.assert_array_equal(run(model, inputs()), run(model, inputs()))
    plain = models.bert("micro", dropout=0.0)
    assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.Dropout)]
    attentions = [x for x in model.layers if isinstance(x, keras.layers.MultiHeadAttention)]
    assert [layer.dropout for layer in attentions] == [0.3, 0.3]


def test_sizes_can_be_given():
    model = models.bert(
        "tiny", vocab_size=99, max_length=40, num_layers=1, hidden_dim=24, num_heads=3
    )
    assert model.get_layer("token_embedding").embeddings.shape == (99, 24)
    assert model.get_layer("position_embedding").embeddings.shape == (40, 24)
    assert model.get_layer("layer0_mlp_up").units == 96
    assert "layer1_attention" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "basic"}, ValueError, r"`variant` is 'basic'.*Did you mean 'base'"),
        ({"variant": 3}, TypeError, r"`variant` is 3; expected one of"),
        ({"head": "classifier"}, ValueError, r"`head` is 'classifier'.*'classification'"),
        ({"head": "masked_lm", "num_classes": 3}, ValueError, r"`num_classes` is 3; expected None"),
        ({"head": None, "num_outputs": 1}, ValueError, r"`num_outputs` is 1; expected None"),
        ({"num_classes": 1}, ValueError, r"`num_classes` is 1; expected an integer at least 2"),
        ({"num_classes": 3, "num_outputs": 1}, ValueError, r"`num_classes`.*None with num_outputs"),
        ({"classifier_activation": "tanh"}, ValueError, r"`classifier_activation` is 'tanh'"),
        ({"dropout": 1.0}, ValueError, r"`dropout` is 1\.0; expected .*below 1"),
        ({"attention_dropout": -1}, ValueError, r"`attention_dropout` is -1"),
        ({"normalize": 1}, TypeError, r"`normalize` is 1; expected True or False"),
        ({"vocab_size": 0}, ValueError, r"`vocab_size` is 0; expected an integer at least 1"),
        ({"num_heads": 5}, ValueError, r"`num_heads` is 5; expected a divisor of hidden_dim=16"),
        ({"hidden_dim": 16.0}, TypeError, r"`hidden_dim` is 16\.0"),
        ({"weights": "no-such"}, FileNotFoundError, r"`weights` is 'no-such'.*no such file"),
        ({"weights": 3}, TypeError, r"`weights` is 3"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        models.bert(**{"variant": "micro", **arguments})
