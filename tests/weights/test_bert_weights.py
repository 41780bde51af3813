"""BERT checkpoints of transformers: the same numbers come out, and no head is lost."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "bert.npz"
LOADED = np.load(GOLDEN)
X = {name.removeprefix("input/"): LOADED[name] for name in LOADED.files if name[:5] == "input"}
MASK = X["padding_mask"].astype(bool)
FORMS = ("hidden_states", "classification", "token", "masked_lm")
TOLERANCE = 2e-5


def tensors(form: str) -> dict[str, np.ndarray]:
    start = f"{form}/tensor/"
    return {name.removeprefix(start): LOADED[name] for name in LOADED.files if start in name}


def config(form: str) -> dict:
    return json.loads(str(LOADED[f"{form}/config"]))


def write(folder: Path, form: str, change=dict, **more) -> Path:
    """A checkpoint as transformers saves it; `change` may rename or drop tensors."""
    save_file(change(tensors(form)), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config(form), **more}), encoding="utf-8")
    return folder


def output(model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(X, training=False))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, on tokens that aren't padding where there is one row for each token."""
    if ours.shape != theirs.shape:
        return np.inf
    return float(np.abs(ours - theirs)[MASK if ours.ndim == 3 else ...].max())


def load(folder: Path, form: str, **more):
    if form in ("classification", "token"):
        more = {"classifier_activation": None, **more}
    return models.bert(weights=folder, **more)


@pytest.mark.parametrize("form", FORMS)
def test_outputs_equal_the_reference(form, tmp_path):
    model = load(write(tmp_path, form), form)
    assert difference(output(model), LOADED[f"{form}/output"]) < TOLERANCE


def test_difference_sees_a_swap_and_a_shape():
    theirs = LOADED["token/output"]
    assert difference(theirs, theirs) == 0
    assert difference(theirs[:, ::-1], theirs) > 0.1
    assert difference(theirs[:1], theirs) == np.inf
    padded = np.where(MASK[..., None], theirs, 99.0)
    assert difference(padded, theirs) == 0


def old_names(state: dict) -> dict:
    """As checkpoints of 2018 name them: gamma and beta, and all of it under "bert."."""
    changed = {}
    for name, value in state.items():
        new = name if name.startswith("bert.") else f"bert.{name}"
        if "LayerNorm" in name:
            new = new.replace(".weight", ".gamma").replace(".bias", ".beta")
        changed[new] = value
    return {**changed, "bert.embeddings.position_ids": np.arange(16)}


def test_old_names_and_prefix_are_read(tmp_path):
    model = load(write(tmp_path, "hidden_states", old_names), "hidden_states")
    assert difference(output(model), LOADED["hidden_states/output"]) < TOLERANCE


def test_sixteen_bit_tensors_are_widened(tmp_path):
    def half(state):
        return {name: value.astype("float16") for name, value in state.items()}

    model = load(write(tmp_path, "hidden_states", half), "hidden_states")
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert difference(output(model), LOADED["hidden_states/output"]) < 0.02


# --- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["classification", "token"])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_classifier_of_the_checkpoint_is_kept(form, num_classes, tmp_path):
    model = models.bert(weights=write(tmp_path, form), num_classes=num_classes)
    kernel = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    np.testing.assert_array_equal(kernel, tensors(form)["classifier.weight"].T)
    logits = LOADED[f"{form}/output"]
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert difference(output(model), wanted) < TOLERANCE


@pytest.mark.parametrize("form", ["classification", "token", "hidden_states", "masked_lm"])
def test_another_number_of_classes_gets_a_new_layer(form, tmp_path):
    folder = write(tmp_path, form)
    one, two = (models.bert(weights=folder, num_classes=5) for _ in range(2))
    assert one.output_shape[-1] == 5
    assert len(one.output_shape) == (3 if form == "token" else 2)
    kernels = [keras.ops.convert_to_numpy(m.get_layer("predictions").kernel) for m in (one, two)]
    assert not np.array_equal(*kernels)
    body = [keras.ops.convert_to_numpy(m.get_layer("layer1_mlp_down").kernel) for m in (one, two)]
    np.testing.assert_array_equal(*body)


def test_a_tagger_has_no_classes_of_texts(tmp_path):
    folder = write(tmp_path, "token")
    model = models.bert(weights=folder, head="classification", num_classes=3)
    kernel = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    assert not np.allclose(kernel, tensors("token")["classifier.weight"].T)


def test_pooled_features_without_last_layer(tmp_path):
    folder = write(tmp_path, "classification")
    model = models.bert(weights=folder, num_classes=0)
    assert model.layers[-1].name == "pooler"
    state = tensors("classification")
    pooled = output(model)
    logits = pooled @ state["classifier.weight"].T + state["classifier.bias"]
    assert difference(logits, LOADED["classification/output"]) < TOLERANCE


def test_regression_head_beside_a_checkpoint(tmp_path):
    model = models.bert(weights=write(tmp_path, "hidden_states"), num_outputs=1)
    assert model.output_shape == (None, 1)
    assert model.layers[-1].activation is keras.activations.linear


def test_a_score_of_one_unit_is_kept(tmp_path):
    def one_label(state):
        return {
            name: value[:1] if name.startswith("classifier") else value
            for name, value in state.items()
        }

    model = models.bert(weights=write(tmp_path, "classification", one_label))
    assert difference(output(model), LOADED["classification/output"][:, :1]) < TOLERANCE


@pytest.mark.parametrize("marker", ["modules.json", "sentence_bert_config.json"])
def test_sentence_transformers_folder_gives_embeddings(marker, tmp_path):
    folder = write(tmp_path, "hidden_states")
    (folder / marker).write_text("[]", encoding="utf-8")
    model = models.bert(weights=folder)
    hidden = LOADED["hidden_states/output"]
    mean = (hidden * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    wanted = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    assert difference(output(model), wanted) < TOLERANCE
    plain = models.bert(weights=folder, head="embedding", normalize=False)
    assert difference(output(plain), mean) < TOLERANCE


# --- bad checkpoints -------------------------------------------------------------------------


def without(name):
    return lambda state: {key: value for key, value in state.items() if name not in key}


def with_more(state):
    return {**state, "qa_outputs.weight": np.zeros((2, 12), "float32")}


def transposed(state):
    return {
        name: np.ascontiguousarray(value.T) if "intermediate.dense.weight" in name else value
        for name, value in state.items()
    }


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (without("layer.1.output.dense.bias"), {}, {}, r"missing.*encoder\.layer\.1\.output"),
        (with_more, {}, {}, r"no weight for: qa_outputs\.weight \(2, 12\)"),
        (transposed, {}, {}, r"of another shape: encoder\.layer\.0\.intermediate"),
        (dict, {"model_type": "gpt2"}, {}, r"checkpoint of 'gpt2'.*bz\.models\.gpt"),
        (dict, {"hidden_act": "relu"}, {}, r"hidden_act = 'gelu'.*says 'relu'"),
        (dict, {"position_embedding_type": "relative_key"}, {}, r"position_embedding_type"),
        (dict, {"hidden_size": None}, {}, r"config\.json that gives all sizes.*hidden_size"),
        (dict, {"num_hidden_layers": True}, {}, r"Not there, or no number.*num_hidden_layers"),
        (dict, {}, {"variant": "mini"}, r"`variant` is 'mini'; expected of other sizes.*Leave"),
        (dict, {}, {"vocab_size": 41}, r"`vocab_size` is 41; expected 40"),
        (dict, {}, {"head": "masked_lm"}, r"missing.*cls\.predictions\.bias"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    folder = write(tmp_path, "hidden_states", change, **more)
    with pytest.raises(ValueError, match=text):
        models.bert(weights=folder, **arguments)


def test_own_formats_are_read(tmp_path):
    model = models.bert("micro", num_classes=3)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    x = {name: value % 50 for name, value in X.items()}
    wanted = model.predict(x, verbose=0)
    for name in ("m.keras", "m.weights.h5"):
        again = models.bert("micro", num_classes=3, weights=tmp_path / name)
        np.testing.assert_array_equal(again.predict(x, verbose=0), wanted)
        other = models.bert("micro", num_classes=4, weights=tmp_path / name)
        np.testing.assert_array_equal(
            *(
                keras.ops.convert_to_numpy(m.get_layer("layer0_mlp_up").kernel)
                for m in (model, other)
            )
        )
