"""GPT-2 checkpoints of transformers: the same logits come out."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models

LOADED = np.load(Path(__file__).resolve().parents[1] / "golden" / "gpt.npz")
TENSORS = {
    name.removeprefix("tensor/"): LOADED[name] for name in LOADED.files if name[:6] == "tensor"
}
TOLERANCE = 2e-5


def write(folder: Path, change=dict, **more) -> Path:
    config = {**json.loads(str(LOADED["config"])), **more}
    save_file(change(TENSORS), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def difference(model) -> float:
    found = keras.ops.convert_to_numpy(model(LOADED["input"], training=False))
    return float(np.abs(found - LOADED["output"]).max())


def without_prefix(state):
    """As the published gpt2 is: no prefix, with buffers and the table a second time."""
    plain = {name.removeprefix("transformer."): value for name, value in state.items()}
    buffers = {
        f"h.{i}.attn.{name}": np.ones((1, 1, 4, 4), "float32")
        for i in range(2)
        for name in ("bias", "masked_bias")
    }
    return {**plain, **buffers, "lm_head.weight": plain["wte.weight"].copy()}


@pytest.mark.parametrize("change", [dict, without_prefix])
def test_logits_equal_the_reference(change, tmp_path):
    assert difference(models.gpt(weights=write(tmp_path, change))) < TOLERANCE


def test_difference_sees_other_weights():
    config = {"vocab_size": 40, "hidden_dim": 12, "num_heads": 3, "max_length": 48}
    assert difference(models.gpt("micro", **config)) > 0.1


def test_query_key_and_value_are_not_mixed_up(tmp_path):
    """Each third in its place: with the thirds turned around, the logits differ."""

    def turned(state):
        return {
            name: np.roll(value, 12, axis=-1) if "c_attn" in name else value
            for name, value in state.items()
        }

    assert difference(models.gpt(weights=write(tmp_path, turned))) > 0.1


def without(name):
    return lambda state: {key: value for key, value in state.items() if name not in key}


def with_score(state):
    return {**state, "score.weight": np.zeros((3, 12), "float32")}


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (without("h.1.mlp.c_fc.bias"), {}, {}, r"missing.*h\.1\.mlp\.c_fc\.bias"),
        (with_score, {}, {}, r"no weight for: score\.weight \(3, 12\)"),
        (dict, {"n_layer": 1}, {}, r"no weight for: h\.1\."),
        (dict, {"n_embd": 24}, {}, r"of another shape"),
        (dict, {"model_type": "bert"}, {}, r"checkpoint of 'bert'.*bz\.models\.bert"),
        (dict, {"activation_function": "relu"}, {}, r"activation_function = 'gelu_new'"),
        (dict, {"scale_attn_by_inverse_layer_idx": True}, {}, r"scale_attn_by_inverse"),
        (dict, {}, {"variant": "small"}, r"`variant` is 'small'; expected of other sizes"),
        (dict, {}, {"num_layers": 3}, r"`num_layers` is 3; expected 2, as in the checkpoint"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        models.gpt(weights=write(tmp_path, change, **more), **arguments)


def test_own_formats_are_read(tmp_path):
    model = models.gpt("micro")
    wanted = model.predict(LOADED["input"], verbose=0)
    for name in ("m.keras", "m.weights.h5"):
        (model.save if name == "m.keras" else model.save_weights)(tmp_path / name)
        again = models.gpt("micro", weights=tmp_path / name)
        np.testing.assert_array_equal(again.predict(LOADED["input"], verbose=0), wanted)
