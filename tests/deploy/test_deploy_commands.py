"""`python -m bigzoo export` and `python -m bigzoo predict`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz
from bigzoo.__main__ import main
from bigzoo.deploy._command_export import _check_source

NAMES = ("dark", "red")


def reds(shape=(8, 8, 3)):
    image = keras.Input(shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x))
    model.set_weights([np.array([[8.0], [0], [0]]), np.array([-4.0])])
    model.class_names = NAMES
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", (0, 0, 0)), ("b.png", (255, 0, 0))):
        Image.new("RGB", (20, 10), colour).save(tmp_path / name)
    bz.save(reds(), tmp_path / "reds.keras")
    return tmp_path


def run(capsys, *words):
    """(exit status, standard output, standard error)."""
    status = main(list(words))
    return status, *capsys.readouterr()


def test_predict_prints_a_table(folder, capsys):
    status, out, err = run(capsys, "predict", "reds.keras", "a.png", "b.png")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["a.png", "dark"], ["b.png", "red"]]
    assert rows[0][2] == "98.2%"


def test_predict_takes_folders_and_prints_json(folder, capsys):
    status, out, _ = run(capsys, "predict", "--json", "--top", "2", "reds.keras", ".")
    assert status == 0
    found = json.loads(out)
    assert found["note"] == ""
    assert [row["label"] for row in found["predictions"]] == ["dark", "red"]
    assert [name for name, _ in found["predictions"][1]["top"]] == ["red", "dark"]
    assert found["predictions"][1]["probabilities"]["red"] == pytest.approx(0.982, abs=1e-3)


@pytest.mark.parametrize("images", [["a.png", "bad.png"], ["bad.png"]])
def test_predict_exits_with_one_if_a_file_cannot_be_read(folder, capsys, images):
    (folder / "bad.png").write_bytes(b"no picture")
    status, out, _ = run(capsys, "predict", "reds.keras", *images)
    assert status == 1
    assert "error: no image inside" in out


def test_predict_with_a_size_and_cropped(folder, capsys):
    bz.save(reds((None, None, 3)), folder / "any.keras")
    status, out, _ = run(capsys, "predict", "any.keras", "b.png", "--image-size", "4", "6")
    assert status == 0
    assert "red" in out
    picture = np.zeros((10, 60, 3), np.uint8)
    picture[:, 25:35, 0] = 255
    Image.fromarray(picture).save(folder / "line.png")
    assert "dark" in run(capsys, "predict", "reds.keras", "line.png")[1]
    assert "red" in run(capsys, "predict", "reds.keras", "line.png", "--crop")[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["predict"], "the following arguments are required: model, IMAGE"),
        (["predict", "no.keras", "a.png"], "There is no file 'no.keras'. Near it: 'reds.keras'"),
        (["predict", "reds.keras", "no.png"], "There is no file 'no.png'. Near it"),
        (["predict", "reds.keras", "a.png", "--top", "9"], "`top` is 9; expected at most 2"),
        (["predict", "reds.keras", "a.png", "--image-size", "9", "9"], "which the model takes"),
        (["predict", "a.png", "b.png"], "'a.png' is no file of a model that is known here"),
        (["export", "reds.keras"], "the following arguments are required: target"),
        (["export", "reds.keras", "reds.pt"], "reds.pt"),
        (
            ["export", "reds.keras", "x.onnx", "--tolerance", "-1"],
            "`--tolerance` is -1.0; expected",
        ),
        (["export", "a.png", "x.onnx"], "'a.png' is no Keras model; expected a .keras file"),
        (["export", "resnet5000", "x.onnx"], "resnet50"),
        (["export", "no.keras", "x.onnx"], "There is no file 'no.keras'. Near it: 'reds.keras'"),
        (["export", "no.onnx", "x.tflite"], "There is no file 'no.onnx'"),
        (["export", "models/pets", "x.tflite"], "no folder 'models'"),
        (["exprot"], "Did you mean 'export'"),
    ],
)
def test_errors_are_one_line(folder, capsys, words, text):
    status, out, err = run(capsys, *words)
    assert status == 2
    assert out == ""
    assert text in err
    assert err.startswith("bigzoo")
    assert len(err.splitlines()) == 1


@pytest.mark.tensorflow
def test_export_writes_a_file_that_predict_reads(folder, capsys):
    words = ("export", "reds.keras", "reds.tflite", "--no-latency")
    status, out, err = run(capsys, *words)
    assert status == 0, err
    assert "reds.tflite" in out
    status, out, _ = run(capsys, "predict", "reds.tflite", "b.png")
    assert (status, out.splitlines()[-1].split()[1]) == (0, "red")
    status, out, _ = run(capsys, *words, "--json", "--fixed-batch")
    assert status == 0
    assert json.loads(out)["difference"]["relative"] < 1e-5
    assert run(capsys, "predict", "reds.tflite", "a.png", "b.png")[0] == 0


def test_a_folder_may_be_called_like_a_model(folder):
    (folder / "resnet50").mkdir()
    _check_source("resnet50")
    (folder / "resnet50" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="is no Keras model"):
        _check_source("resnet50")


@pytest.mark.tensorflow
def test_export_above_the_tolerance_leaves_nothing(folder, capsys):
    status, _, err = run(capsys, "export", "reds.keras", "reds.tflite", "--tolerance", "0")
    if status == 0:
        pytest.skip("the file gives exactly what the model gives")
    assert "expected at most 0" in err
    assert not (folder / "reds.tflite").exists()


@pytest.mark.parametrize("command", ["export", "predict", "serve"])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    assert "usage" in capsys.readouterr().out
