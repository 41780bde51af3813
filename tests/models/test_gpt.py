"""GPT-2: sizes and arguments. What its checkpoints compute: tests/weights."""

import keras
import numpy as np
import pytest

from bigzoo import models
from bigzoo.models._registry import REGISTRY
from bigzoo.models.gpt import VARIANTS

IDS = np.random.default_rng(0).integers(0, 50, (2, 9)).astype("int32")


def run(model, ids=IDS):
    return keras.ops.convert_to_numpy(model(ids, training=False))


def count(sizes) -> int:
    """Parameters of transformers' GPT2LMHeadModel, whose last layer is its table of tokens."""
    dim, inside = sizes.hidden_dim, sizes.mlp_dim
    attention = 4 * (dim * dim + dim)
    dense = dim * inside + inside + inside * dim + dim
    tables = (sizes.vocab_size + sizes.max_length) * dim
    return tables + sizes.num_layers * (attention + dense + 4 * dim) + 2 * dim


# transformers 5.23: sum(p.numel() for p in GPT2LMHeadModel(config).parameters()) at these sizes.
REFERENCE = {
    "small": 124_439_808,
    "medium": 354_823_168,
    "large": 774_030_080,
    "xl": 1_557_611_200,
}


@pytest.mark.parametrize("variant", REFERENCE)
def test_number_of_parameters(variant):
    assert count(VARIANTS[variant]) == REFERENCE[variant]
    assert REGISTRY["gpt"].parameters[variant] == REFERENCE[variant]


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 3, "hidden_dim": 24, "num_heads": 3}])
def test_formula_counts_what_is_built(arguments):
    model = models.gpt("micro", **arguments)
    sizes = VARIANTS["micro"]
    if arguments:
        sizes = type(sizes)(3, 24, 3, 96, vocab_size=50, max_length=24)
    assert model.count_params() == count(sizes)


@pytest.mark.large
def test_number_of_parameters_of_small():
    assert models.gpt("small").count_params() == 124_439_808


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_logits_are_float32(policy):
    model = models.gpt("micro", dtype=policy)
    found = model(IDS, training=False)
    assert tuple(found.shape) == (2, 9, 50)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert model.layers[-1].name == "predictions"
    assert model.output.dtype == "float32"


def test_no_token_sees_those_behind_it():
    model = models.gpt("micro")
    changed = IDS.copy()
    changed[:, 5:] = (changed[:, 5:] + 7) % 50
    before, after = run(model), run(model, changed)
    np.testing.assert_allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert np.abs(before[:, 5:] - after[:, 5:]).min(axis=-1).max() > 1e-6


def test_input_and_output_share_one_table():
    model = models.gpt("micro")
    table = model.get_layer("token_embedding").embeddings
    shapes = [tuple(weight.shape) for weight in model.weights]
    assert sum(50 in shape for shape in shapes) == 1
    before = run(model)
    table.assign(table * 2.0)
    assert np.abs(run(model) - before).max() > 1e-3


def test_weights_on_the_residual_stream_start_smaller():
    model = models.gpt("micro", num_layers=8, hidden_dim=64, num_heads=4)
    spread = {
        name: np.std(keras.ops.convert_to_numpy(model.get_layer(name).kernel))
        for name in ("layer0_mlp_up", "layer0_mlp_down")
    }
    assert spread["layer0_mlp_up"] == pytest.approx(0.02, rel=0.1)
    assert spread["layer0_mlp_down"] == pytest.approx(0.02 / 4, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "smal"}, ValueError, r"`variant` is 'smal'.*Did you mean 'small'"),
        ({"vocab_size": 0}, ValueError, r"`vocab_size` is 0"),
        ({"max_length": 2.5}, TypeError, r"`max_length` is 2\.5"),
        ({"num_heads": 3}, ValueError, r"`num_heads` is 3; expected a divisor of hidden_dim=16"),
        ({"num_layers": True}, TypeError, r"`num_layers` is True"),
        ({"mlp_dim": -1}, ValueError, r"`mlp_dim` is -1"),
        ({"dropout": 2}, ValueError, r"`dropout` is 2"),
        ({"attention_dropout": "no"}, TypeError, r"`attention_dropout` is 'no'"),
        ({"weights": "no-such"}, FileNotFoundError, r"`weights` is 'no-such'"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        models.gpt(**{"variant": "micro", **arguments})
