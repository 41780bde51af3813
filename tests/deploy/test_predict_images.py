"""Labels for image files: right for every kind of output, robust against bad files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz

NAMES = ["dark", "red", "blue"]


def model_of(kernel, bias, activation, shape=(8, 8, 3)):
    """A model that knows how to look at the mean colour only, with given weights."""
    kernel = np.asarray(kernel, "float32")
    image = keras.Input(shape, name="image")
    x = keras.layers.Rescaling(1 / 255, name="preprocess")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(kernel.shape[1], activation=activation, name="predictions")(x)
    model = keras.Model(image, x)
    model.set_weights([kernel, np.asarray(bias, "float32")])
    return model


def colours(activation="softmax", shape=(8, 8, 3)):
    return model_of([[0, 8, 0], [0, 0, 0], [0, 0, 8]], [2, 0, 0], activation, shape)


def reds(activation="sigmoid"):
    return model_of([[8], [0], [0]], [-4], activation)


@pytest.fixture
def folder(tmp_path):
    def write(name, colour):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), colour).save(path)

    write("a.png", (0, 0, 0))
    write("b.PNG", (255, 0, 0))
    write("sub/c.bmp", (0, 0, 255))
    write(".hidden.png", (0, 0, 0))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_with_its_subfolders(folder):
    table = bz.predict_images(colours(), folder, NAMES)
    assert [row.label for row in table] == NAMES
    assert [row.path for row in table] == [str(folder / f) for f in ("a.png", "b.PNG", "sub/c.bmp")]
    scores = np.exp([2.0, 0.0, 0.0])
    assert table[0].probability == pytest.approx(scores[0] / scores.sum(), rel=1e-5)
    assert table[0].probabilities == pytest.approx(
        dict(zip(NAMES, scores / scores.sum(), strict=True))
    )
    assert len(table) == 3
    assert table[:2][1].label == "red"


def test_one_file_a_list_and_batches_give_the_same(folder):
    model = colours()
    whole = bz.predict_images(model, folder, NAMES)
    for size in (1, 2):
        table = bz.predict_images(model, [folder / "a.png", str(folder)], NAMES, size)
        assert [row.label for row in table] == ["dark", *NAMES]
    assert bz.predict_images(model, folder / "b.PNG", NAMES)[0] == whole[1]


def test_logits_count_as_logits(folder):
    plain = bz.predict_images(colours(), folder, NAMES)
    logits = bz.predict_images(colours(None), folder, NAMES)
    for a, b in zip(plain, logits, strict=True):
        assert a.label == b.label
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_sigmoid_unit(folder, activation):
    table = bz.predict_images(reds(activation), folder, ["other", "red"], top=2)
    assert [row.label for row in table] == ["other", "red", "other"]
    p = 1 / (1 + np.exp(-4.0))
    assert [row.probability for row in table] == pytest.approx([p, p, p])
    assert table[1].probabilities == pytest.approx({"other": 1 - p, "red": p}, abs=1e-6)
    assert [name for name, _ in table[0].top] == ["other", "red"]


def test_half_is_class_one(folder):
    model = model_of(np.zeros((3, 1)), [0], "sigmoid")
    assert bz.predict_images(model, folder / "a.png", ["no", "yes"])[0].label == "yes"


def test_multilabel(folder):
    model = model_of([[8, 8, 0], [0, 0, 0], [0, 4, 8]], [-4, -3, -9], "sigmoid")
    table = bz.predict_images(model, folder, ["red", "bright", "blue"])
    assert [row.label for row in table] == ["(none)", "bright, red", "bright"]
    sigmoid = 1 / (1 + np.exp(-np.array([-3.0, 4.0, 1.0])))
    assert [row.probability for row in table] == pytest.approx(sigmoid.tolist())
    assert "bright, red" in str(table)


@pytest.mark.parametrize("last", ["Activation", "Softmax", "nested", "op"])
def test_the_activation_is_found_where_it_stands(folder, last):
    base = colours(None)
    if last == "op":
        model = keras.Model(base.input, keras.ops.softmax(base.output))
    elif last == "nested":
        model = keras.Sequential([keras.Input((8, 8, 3)), colours()])
    else:
        extra = keras.layers.Softmax() if last == "Softmax" else keras.layers.Activation("softmax")
        model = keras.Sequential([keras.Input((8, 8, 3)), base, extra])
    expected = bz.predict_images(colours(), folder, NAMES)[0].probability
    assert bz.predict_images(model, folder, NAMES)[0].probability == pytest.approx(expected)


def test_size_channels_and_pixels_are_those_the_model_takes(folder, monkeypatch):
    seen = []
    grey = keras.Input((5, 7, 1))
    model = keras.Model(grey, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(grey)))
    monkeypatch.setattr(
        "bigzoo.deploy._classifier.answer",
        lambda model, x: seen.append(x) or np.full((len(x), 2), 0.5),
    )
    bz.predict_images(model, folder / "b.PNG")
    assert seen[0].shape == (1, 5, 7, 1)
    assert seen[0].dtype == np.float32
    assert seen[0].max() == 76.0  # the grey of pure red, 0–255


@pytest.mark.parametrize(("crop", "label"), [(False, "dark"), (True, "red")])
def test_the_sides_are_cut_off_if_asked(tmp_path, crop, label):
    """Red in the middle, black at both sides: the stretched picture is mostly black."""
    picture = np.zeros((10, 60, 3), np.uint8)
    picture[:, 25:35] = (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (row,) = bz.predict_images(colours(), tmp_path / "a.png", NAMES, crop_to_aspect_ratio=crop)
    assert row.label == label


def test_the_error_of_an_unreadable_file_is_public(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(bz.deploy.UnreadableImage, match="no image inside"):
        bz.predict_images(colours(), tmp_path / "a.png", NAMES)


def test_any_size(folder):
    model = colours(shape=(None, None, 3))
    assert bz.predict_images(model, folder, NAMES, image_size=(4, 6))[1].label == "red"
    with pytest.raises(ValueError, match="takes images of any size; expected `image_size`"):
        bz.predict_images(model, folder, NAMES)


def test_names_come_from_the_model_or_its_file(folder, tmp_path):
    path = bz.save(colours(), tmp_path / "colours.keras", NAMES)
    table = bz.predict_images(str(path), folder / "b.PNG")
    assert table[0].label == "red"
    assert table.note == ""
    unnamed = bz.predict_images(colours(), folder / "b.PNG")
    assert unnamed[0].label == "1"
    assert "no class names" in str(unnamed)
    assert "no class names" in unnamed._repr_html_()


def test_unreadable_files_are_rows(folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    files = [folder / "a.png", folder / "broken.jpg", folder / "no.png", folder / "b.PNG"]
    table = bz.predict_images(colours(), files, NAMES, batch_size=2)
    assert [row.label for row in table] == ["dark", None, None, "red"]
    assert table[1].error
    assert table[2].error == "no such file"
    assert table[1].probabilities == {}
    assert "error: no such file" in str(table)
    with pytest.raises(ValueError, match=r"'.*broken.jpg' can't be read as an image"):
        bz.predict_images(colours(), [folder / "broken.jpg"], NAMES)
    only_bad = bz.predict_images(colours(), files[1:3], NAMES)
    assert [row.label for row in only_bad] == [None, None]
    assert only_bad.to_dict()["probability"] == [None, None]


def test_to_dict(folder):
    (folder / "z.jpg").write_bytes(b"broken")
    columns = bz.predict_images(colours(), folder, NAMES).to_dict()
    expected = ["path", "label", "probability", "p(dark)", "p(red)", "p(blue)", "error"]
    assert list(columns) == expected
    assert columns["label"] == ["dark", "red", "blue", None]
    assert {len(column) for column in columns.values()} == {4}
    pandas = pytest.importorskip("pandas")
    assert pandas.DataFrame(columns).shape == (4, 7)


def test_the_table_is_aligned_and_harmless(tmp_path):
    for name in ("a.png", "<b>long name.png", "esc\x1b[31m.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    table = bz.predict_images(colours(), tmp_path, ["dark <i>", "red", "blue"])
    lines = str(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["file", "label", "probability"]
    assert "\x1b" not in str(table)
    assert repr(table) == str(table)
    html = table._repr_html_()
    assert "&lt;b&gt;long" in html
    assert "<i>" not in html
    many = bz.deploy.Predictions([table[0]] * 100)
    assert str(many).endswith("… and 40 more rows")


def test_saved_model_predicts_the_same(folder, tmp_path):
    model = bz.models.cnn((16, 16, 3), num_classes=2)
    model.class_names = ("a", "b")
    before = bz.predict_images(model, folder)
    after = bz.predict_images(bz.save(model, tmp_path / "m.keras"), folder)
    for a, b in zip(before, after, strict=True):
        assert a.label == b.label
        assert a.probability == pytest.approx(b.probability, abs=1e-6)


@pytest.mark.parametrize(
    ("paths", "options", "error", "text"),
    [
        ("no.png", {}, FileNotFoundError, r"There is no file '.*no.png'. Near it"),
        ("empty", {}, ValueError, r"The folder '.*empty' has no image files; expected .jpg"),
        ("notes.txt", {}, ValueError, r"notes.txt' can't be read as an image: no image inside"),
        ([], {}, ValueError, "expected at least one file"),
        (None, {}, TypeError, "expected a file, a folder, or a list of them"),
        (b"a.png", {}, TypeError, "expected a file, a folder"),
        (np.zeros((1, 8, 8, 3)), {}, TypeError, "For images in memory, use `model.predict`"),
        ([7], {}, TypeError, "`paths` is 7; expected a path"),
        ("a.png", {"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ("a.png", {"top": 0}, ValueError, "`top` is 0"),
        ("a.png", {"top": 4}, ValueError, "at most 3, the number of classes"),
        ("a.png", {"class_names": ["cat"]}, ValueError, "1 names; expected 3"),
        ("a.png", {"class_names": "abc"}, TypeError, "`class_names` is 'abc'"),
        ("a.png", {"image_size": (9, 9)}, ValueError, r"\(8, 8\), which the model takes"),
        ("a.png", {"image_size": 8}, TypeError, r"a pair \(height, width\)"),
        ("a.png", {"image_size": ("8", 8)}, TypeError, "expected an integer"),
        ("a.png", {"crop_to_aspect_ratio": 1}, TypeError, "`crop_to_aspect_ratio` is 1; expected"),
    ],
)
def test_bad_input(folder, paths, options, error, text):
    (folder / "empty").mkdir()
    where = folder / paths if isinstance(paths, str) else paths
    with pytest.raises(error, match=text):
        bz.predict_images(colours(), where, **options)


def vectors():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])


def channels_first():
    image = keras.Input((3, 8, 8))
    return keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(image)))


def maps():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1, activation="softmax")(image))


def two_outputs():
    model = colours()
    return keras.Model(model.input, [model.output, model.output])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (vectors, ValueError, r"input shape \(None, 3\); expected one input"),
        (channels_first, ValueError, "with 1, 3 or 4 channels"),
        (maps, ValueError, "one answer per image"),
        (two_outputs, ValueError, "expected one output"),
        (lambda: colours("relu"), ValueError, "activation 'relu'; expected softmax, sigmoid"),
        (lambda: reds("softmax"), ValueError, "softmax over one unit"),
        (lambda: 7, TypeError, "`model` is 7; expected a keras.Model"),
        (lambda: "no.keras", FileNotFoundError, "There is no file"),
        (lambda: model_of(np.full((3, 2), np.nan), [0, 0], None), ValueError, "NaN or infinite"),
    ],
)
def test_bad_models(folder, make, error, text):
    with pytest.raises(error, match=text):
        bz.predict_images(make(), folder)
