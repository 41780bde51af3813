"""Finding and opening checkpoints: every kind of source, and every way in which one is bad."""

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import bigzoo as bz
from bigzoo.weights import open_checkpoint

TENSORS = {
    "a.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "a.bias": np.array([1.5, -2.0], "float16"),
}


def write(folder, config=None, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file(TENSORS, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_none_is_none():
    assert open_checkpoint(None) is None


@pytest.mark.parametrize("kind", ["folder", "file", "text"])
def test_tensors_are_read(tmp_path, kind):
    folder = write(tmp_path / "it", {"architecture": "resnet18"})
    source = {"folder": folder, "file": folder / "model.safetensors", "text": str(folder)}[kind]
    checkpoint = open_checkpoint(source, family="resnet")
    assert checkpoint.tensors == {"a.weight": (2, 3), "a.bias": (2,)}
    np.testing.assert_array_equal(checkpoint.read("a.weight"), TENSORS["a.weight"])
    assert checkpoint.read("a.bias").dtype == "float32"
    np.testing.assert_array_equal(checkpoint.read("a.bias"), [1.5, -2.0])
    assert checkpoint.config == ({} if kind == "file" else {"architecture": "resnet18"})
    assert checkpoint.classes("a.weight") == 2
    assert checkpoint.classes("fc.weight") is None
    assert not checkpoint.native


def test_bfloat16_is_widened(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    save_file({"x": np.array([1.0, 3.5], ml_dtypes.bfloat16)}, tmp_path / "x.safetensors")
    value = open_checkpoint(tmp_path / "x.safetensors").read("x")
    assert value.dtype == "float32"
    np.testing.assert_array_equal(value, [1.0, 3.5])


def test_checkpoint_in_several_files(tmp_path):
    names = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    for name, key in zip(names, TENSORS, strict=True):
        save_file({key: TENSORS[key]}, tmp_path / name)
    index = {"weight_map": dict(zip(TENSORS, names, strict=True))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors == {"a.weight": (2, 3), "a.bias": (2,)}
    np.testing.assert_array_equal(checkpoint.read("a.weight"), TENSORS["a.weight"])
    (tmp_path / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"not complete: 'model-2-of-2.safetensors'"):
        open_checkpoint(tmp_path)
    index["weight_map"]["a.bias"] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"no `weight_map` of file names"):
        open_checkpoint(tmp_path)


def test_renamed(tmp_path):
    checkpoint = open_checkpoint(write(tmp_path / "it"))
    short = checkpoint.renamed(lambda name: name.removeprefix("a."))
    assert set(short.tensors) == {"weight", "bias"}
    np.testing.assert_array_equal(short.read("weight"), TENSORS["a.weight"])
    with pytest.raises(ValueError, match="two tensors for one weight"):
        checkpoint.renamed(lambda name: "same")
    with pytest.raises(KeyError, match=r"has no tensor 'wieght'. Did you mean 'weight'"):
        short.read("wieght")


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_native_files_tell_their_head(tmp_path, suffix):
    model = bz.models.mlp(4, (3,), num_outputs=5, task="multiclass")
    path = tmp_path / f"m{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.native
    assert checkpoint.classes("anything") == 5
    headless = keras.Model(model.input, model.get_layer("hidden1").output)
    path = tmp_path / f"headless{suffix}"
    headless.save(path) if suffix == ".keras" else headless.save_weights(path)
    assert open_checkpoint(path).classes("anything") is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"model_type": "gpt2"}, r"is a checkpoint of 'gpt2'; expected one for 'resnet'.*gpt\("),
        ({"architecture": "vit_tiny_patch16_224.x"}, r"expected one for 'resnet'. Use.*vit\("),
        ({"model_type": "roberta"}, r"checkpoint of 'roberta'.*no converter.*Known: 'bert'"),
        ({"architecture": "resnet50d"}, r"checkpoint of 'resnet50d'.*Did you mean 'resnet'"),
    ],
)
def test_checkpoint_of_another_model(tmp_path, config, text):
    with pytest.raises(ValueError, match=text):
        open_checkpoint(write(tmp_path / "it", config), family="resnet")


def test_bad_sources(tmp_path):
    with pytest.raises(TypeError, match=r"`weights` is 3; expected None, a path"):
        open_checkpoint(3)
    with pytest.raises(FileNotFoundError, match=r"no such name. Did you mean 'minilm-l6'"):
        open_checkpoint("minilm-16")
    with pytest.raises(ValueError, match=r"expected hf://org/name"):
        open_checkpoint("hf://a/b/c")
    with pytest.raises(FileNotFoundError, match=r"It has nothing, and no model.safetensors"):
        open_checkpoint(tmp_path)
    other = tmp_path / "notes.txt"
    other.write_text("x")
    with pytest.raises(FileNotFoundError, match=r"It has 'notes.txt'"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"expected a .keras, .weights.h5"):
        open_checkpoint(other)
    legacy = tmp_path / "old.h5"
    legacy.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"bz.load\(path, trust=True\)"):
        open_checkpoint(legacy)
    for name in ("a", "b"):
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"Name one of them: 'a.safetensors', 'b.safetensors'"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_safetensors(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"damaged or no safetensors file.*fetch it again"):
        open_checkpoint(path)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_truncated_native_file(tmp_path, suffix):
    model = bz.models.mlp(4, (3,))
    path = tmp_path / f"m{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        open_checkpoint(path).classes("anything")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_config(tmp_path, text):
    folder = write(tmp_path / "it")
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json' is damaged"):
        open_checkpoint(folder)
