"""GPT-2 and its generation against transformers itself."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.deploy._sampling import Sampling, distribution

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_gpt", GOLDEN / "make_gpt.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_gpt"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "config",
    [
        {"n_embd": 24, "n_head": 2, "n_layer": 1, "n_positions": 96},
        {"n_embd": 16, "n_head": 4, "n_layer": 3, "n_inner": 20, "vocab_size": 33},
    ],
    ids=["wide", "deep"],
)
def test_logits_and_greedy_tokens_equal_transformers(config, make, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "CONFIG", {**make.CONFIG, **config})
    theirs, ids = make.build(seed=7), make.inputs()
    theirs.save_pretrained(tmp_path)
    ours = bz.models.gpt(weights=tmp_path)
    with torch.no_grad():
        logits = theirs(torch.tensor(ids).long()).logits.numpy()
    found = keras.ops.convert_to_numpy(ours(ids, training=False))
    assert np.abs(found - logits).max() < 2e-5
    new = 40 if config.get("n_positions") is None else 80
    wanted = make.greedy(theirs, ids, new)
    assert len(set(wanted[0, 7:])) > 3, "too simple a text to tell anything"
    np.testing.assert_array_equal(bz.generate(ours, ids, max_new_tokens=new, temperature=0), wanted)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.7, None, None), (1.0, 5, None), (1.3, None, 0.8), (0.5, 10, 0.6)],
)
def test_distribution_equals_that_of_transformers(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(6, 40)).astype("float32") * 3
    scores = torch.tensor(logits)
    steps = [transformers.TemperatureLogitsWarper(temperature)]
    steps += [] if top_k is None else [transformers.TopKLogitsWarper(top_k)]
    steps += [] if top_p is None else [transformers.TopPLogitsWarper(top_p)]
    for step in steps:
        scores = step(None, scores)
    wanted = torch.softmax(scores, dim=-1).numpy()
    found = distribution(logits, Sampling(temperature, top_k, top_p))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
