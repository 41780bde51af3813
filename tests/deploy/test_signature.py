"""Signatures, flat arrays, made-up inputs, and the notes in files."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest

from bigzoo.deploy._notes import Notes, parse_notes, read_notes, write_notes
from bigzoo.deploy._signature import (
    Signature,
    TensorSpec,
    example_inputs,
    from_flat,
    nest_inputs,
    signature_of,
    to_flat,
)


def two_inputs(form=list):
    a, b = keras.Input((4,), name="a"), keras.Input((2, 3), dtype="int32", name="b")
    y = keras.layers.Dense(2, name="y")(a)
    z = keras.layers.Flatten(name="z")(b)
    if form is dict:
        return keras.Model({"a": a, "b": b}, {"first": y, "rest": [z]})
    return keras.Model([a, b], [y, z])


def arrays(batch=2):
    return np.ones((batch, 4), "float32"), np.ones((batch, 2, 3), "int32")


# --- of models -------------------------------------------------------------------------------


def test_signature_of_one_input():
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    signature = signature_of(model)
    assert signature.inputs == (TensorSpec("x", (None, 4), "float32"),)
    assert signature.outputs == (TensorSpec("y", (None, 2), "float32"),)
    assert (signature.input_form, signature.output_form) == (0, 0)


@pytest.mark.parametrize(
    ("form", "inputs", "outputs"),
    [(list, [0, 1], [0, 1]), (dict, {"a": 0, "b": 1}, {"first": 0, "rest": [1]})],
)
def test_signature_keeps_the_form(form, inputs, outputs):
    signature = signature_of(two_inputs(form))
    assert signature.input_form == inputs
    assert signature.output_form == outputs
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    flat = to_flat(signature, nest_inputs(signature, arrays()))
    np.testing.assert_array_equal(flat[1], arrays()[1])
    given = from_flat(signature, ["y", "z"])
    assert given == (["y", "z"] if form is list else {"first": "y", "rest": ["z"]})


def test_an_output_that_is_given_twice():
    x = keras.Input((2,))
    y = keras.layers.Dense(2, name="y")(x)
    signature = signature_of(keras.Model(x, {"a": y, "b": [y, x]}))
    assert sorted([signature.output_form["a"], *signature.output_form["b"]]) == [0, 1, 2]
    assert signature_of(keras.Model(x, [y, y])).output_form == [0, 1]
    assert Signature.from_json(signature.to_json()) == signature


def test_names_fit_every_format_and_differ():
    x = keras.Input((2,), name="my-input.1")
    layer = keras.layers.Dense(2, name="2nd")
    signature = signature_of(keras.Model(x, [layer(x), layer(layer(x))]))
    names = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    assert names == ["my_input_1", "tensor_2nd", "tensor_2nd_2"]


def test_reloaded_sequential(tmp_path):
    """Trap: the `input` of a reloaded Sequential may raise; its `inputs` don't."""
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert signature_of(loaded).inputs[0].shape == (None, 4)
    assert example_inputs(loaded, 3)[0].shape == (3, 4)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(2)]), ValueError, "is not built: .*Start"),
        (Subclassed, ValueError, r"is subclassed .*Wrap it: `x = keras.Input\(shape\)"),
        (lambda: "pets.keras", TypeError, "`model` is 'pets.keras'; expected a keras.Model"),
    ],
)
def test_models_without_signature(make, error, text):
    with pytest.raises(error, match=text):
        signature_of(make())


def test_the_route_for_subclassed_models_works():
    x = keras.Input((3,))
    assert signature_of(keras.Model(x, Subclassed()(x))).outputs[0].shape == (None, 2)


# --- arrays ----------------------------------------------------------------------------------

SPEC = Signature(
    (TensorSpec("a", (None, 4), "float32"), TensorSpec("b", (None, 2, 3), "int32")),
    (TensorSpec("y", (None, 1), "float32"),),
    [0, 1],
    0,
)
IMAGE = Signature((TensorSpec("image", (None, 8, None, 1), "float32"),), SPEC.outputs, 0, 0)


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (np.zeros((2, 8, 9, 1), "uint8"), (2, 8, 9, 1)),
        ([np.zeros((2, 8, 9, 1))], (2, 8, 9, 1)),
        ({"image": np.zeros((2, 8, 9, 1))}, (2, 8, 9, 1)),
        (np.zeros((2, 8, 9)), (2, 8, 9, 1)),
        (np.zeros((1, 8, 1, 1)).tolist(), (1, 8, 1, 1)),
    ],
)
def test_one_array_in_many_forms(x, shape):
    (array,) = to_flat(IMAGE, x)
    assert array.shape == shape
    assert array.dtype == "float32"


def test_dict_by_names_and_tensors():
    a, b = arrays()
    flat = to_flat(SPEC, {"b": b.astype("float64"), "a": keras.ops.convert_to_tensor(a)})
    assert [array.dtype.name for array in flat] == ["float32", "int32"]
    assert to_flat(SPEC, (a, b))[0] is a  # nothing is copied that fits already


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (arrays()[0], ValueError, "`x` is one array; expected a list of 2 arrays: a, b"),
        ([arrays()[0]] * 3, ValueError, "`x` is 3 arrays; expected a list of 2"),
        ({"a": arrays()[0]}, ValueError, "`x` lacks the input 'b'; expected a, b"),
        (
            {"a": arrays()[0], "bb": arrays()[1]},
            ValueError,
            "unknown input 'bb'. Did you mean 'b'",
        ),
        ([np.ones((2, 5)), arrays()[1]], ValueError, r"'a' has the shape \(2, 5\); expected \(b"),
        ([np.ones(4), arrays()[1]], ValueError, r"Add the batch in front: `x\[None\]`"),
        ([np.ones((0, 4)), arrays(0)[1]], ValueError, "'a' is empty; expected at least one"),
        ([arrays(3)[0], arrays(2)[1]], ValueError, r"'a': 3, 'b': 2.*same number of samples"),
        ([arrays()[0], arrays()[1] + 0.5], ValueError, "values that int32 can't hold; expected in"),
        ([arrays()[0], arrays()[1] * 1e20], ValueError, "values that int32 can't hold"),
        ([np.full((2, 4), "x"), arrays()[1]], TypeError, "has the dtype <U1; expected numbers"),
        ([[[1, 2], [3]], arrays()[1]], ValueError, "'a' is no array of numbers"),
    ],
)
def test_wrong_arrays(x, error, text):
    with pytest.raises(error, match=text):
        to_flat(SPEC, x)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs", []),
        ("inputs", [{"name": "a", "shape": [-1], "dtype": "float32"}]),
        ("inputs", [{"name": "a", "shape": [True], "dtype": "float32"}]),
        ("inputs", [{"name": 1, "shape": [1], "dtype": "float32"}]),
        ("inputs", [{"name": "a\x1b[2J", "shape": [1], "dtype": "float32"}]),
        ("inputs", [{"name": "", "shape": [1], "dtype": "float32"}]),
        ("inputs", [{"name": "a", "shape": [1], "dtype": "object"}]),
        ("inputs", [{"name": "a", "shape": [1], "dtype": []}]),
        ("inputs", [{"name": "a", "shape": [1], "dtype": "float32"}] * 2),
        ("input_form", [0, 0]),
        ("input_form", [0, 5]),
        ("input_form", {"a": None}),
        ("input_form", True),
        ("output_form", "0"),
    ],
)
def test_foreign_signatures_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"`{key}` is "):
        Signature.from_json({**SPEC.to_json(), key: value})


def test_endless_forms_are_refused():
    form: list = [0, 1]
    for _ in range(500):
        form = [form]
    with pytest.raises(ValueError, match="indices in lists and dicts"):
        Signature.from_json({**SPEC.to_json(), "input_form": form})


# --- made-up inputs --------------------------------------------------------------------------


def test_examples_are_plausible():
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="int32", name="mask")
    image = keras.Input((None, 16, 3), name="image")
    number = keras.Input((5,), name="number")
    inner = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(7, 2)])
    words = keras.layers.Embedding(50, 4)(ids) * keras.ops.cast(mask, "float32")[..., None]
    model = keras.Model([ids, mask, image, number], [words, inner(ids), image, number])
    one, two, three, four = example_inputs(model, 64)
    assert one[::2].min() >= 1
    assert (one[1::2, -2:] == 0).all()  # padding
    assert one.max() == 6  # the smaller of both tables counts
    assert set(np.unique(two)) == {0, 1}
    assert three.shape == (64, 96, 16, 3)
    assert three.max() == 255
    assert np.abs(four).max() < 10
    np.testing.assert_array_equal(example_inputs(model, 64)[3], four)
    assert not np.array_equal(example_inputs(model, 64, seed=1)[3], four)


def test_ids_of_a_float_input():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Embedding(3, 2)])
    (ids,) = example_inputs(model, 10)
    assert set(np.unique(ids[::2])) == {1, 2}


def test_examples_of_other_sizes():
    image = keras.Input((None, None, 5))
    words, wide = keras.Input((None, 2)), keras.Input((None, 7, 3))
    model = keras.Model([image, words, wide], [image, words, wide])
    shapes = [[a.shape for a in example_inputs(model, 2, other_sizes=other)] for other in (0, 1)]
    assert shapes[0] == [(2, 96, 96, 5), (2, 8, 2), (2, 96, 7, 3)]
    assert shapes[1] == [(2, 64, 64, 5), (2, 5, 2), (2, 64, 7, 3)]


def test_rows_of_masks_differ():
    mask = keras.Input((6,), dtype="bool")
    (rows,) = example_inputs(keras.Model(mask, keras.ops.cast(mask, "float32")), 20)
    assert rows[:, 0].all()
    assert not rows[:, -1].any()
    assert len(np.unique(rows, axis=0)) > 1


# --- notes -----------------------------------------------------------------------------------

NOTES = Notes("pets", IMAGE, ("cat", "Hündin 犬"), (8, 9), "sigmoid", "int8", {"bigzoo": "0"})


def test_notes_in_json():
    assert Notes.from_json(json.loads(json.dumps(NOTES.to_json()))) == NOTES


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("model", "a\nb"),
        ("signature", []),
        ("class_names", "cat"),
        ("class_names", [1, 2]),
        ("class_names", ["a"]),
        ("class_names", ["a", "a"]),
        ("class_names", ["a", "\x1b[2J"]),  # would clear the terminal that shows it
        ("class_names", ["a", "\ud800"]),
        ("class_names", ["a", " "]),
        ("image_size", [1]),
        ("image_size", [0, 5]),
        ("image_size", [True, 5]),
        ("image_size", [10**9, 5]),
        ("image_size", [2**13, 2**13]),
        ("output_kind", "code"),
        ("output_kind", {}),
        ("mode", None),
        ("versions", {"a": 1}),
    ],
)
def test_foreign_notes_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"x.tflite has damaged notes of bigzoo: `{key}` is"):
        parse_notes(json.dumps({**NOTES.to_json(), key: value}), "x.tflite")


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "NaN", '"' + " " * 2**24 + '"', "\x00"])
def test_hostile_notes_are_refused(text):
    with pytest.raises(ValueError, match="damaged notes of bigzoo"):
        parse_notes(text, "x")


def make_file(folder, format):
    """The least that a format's notes can be written into."""
    if format == "onnx":
        onnx = pytest.importorskip("onnx")
        graph = onnx.helper.make_graph([], "g", [], [])
        onnx.save(onnx.helper.make_model(graph), str(folder / "m.onnx"))
        return folder / "m.onnx"
    if format == "litert":
        (folder / "m.tflite").write_bytes(b"\0\0\0\0TFL3 weights")
        return folder / "m.tflite"
    path = folder / format
    path.mkdir()
    if format == "saved_model":
        (path / "saved_model.pb").write_bytes(b"x")
    else:
        (path / "model.xml").write_text('<?xml version="1.0"?><net name="m"></net>')
    return path


@pytest.mark.parametrize("format", ["onnx", "litert", "saved_model", "openvino"])
def test_notes_in_files(tmp_path, format):
    path = make_file(tmp_path, format)
    assert read_notes(path) is None
    for model in ("first", "pets"):  # the second time they are replaced
        write_notes(path, format, Notes(**{**NOTES.__dict__, "model": model}))
        assert read_notes(path).model == model
    assert read_notes(path) == NOTES
    assert not [file for file in tmp_path.rglob("*") if "partial" in file.name]


def test_notes_leave_the_model_in_front(tmp_path):
    path = make_file(tmp_path, "litert")
    before = path.read_bytes()
    write_notes(path, "litert", NOTES)
    write_notes(path, "litert", NOTES)
    assert path.read_bytes().startswith(before)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["bigzoo.json"]


def test_damaged_files(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 100)
    folder = make_file(tmp_path, "openvino")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><net><rt_info><bigzoo value="&a;"/></rt_info></net>'
    (folder / "model.xml").write_text(bomb)
    with pytest.raises(ValueError, match="declares XML entities, or"):
        read_notes(folder)
    (folder / "model.xml").write_text(bomb, encoding="utf-16")
    with pytest.raises(ValueError, match="declares XML entities, or"):
        read_notes(folder)
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match="is damaged"):
        read_notes(tmp_path / "a.onnx")


def test_a_bomb_behind_a_model_is_refused(tmp_path):
    path = make_file(tmp_path, "litert")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bigzoo.json", " " * 2**26)
    with pytest.raises(ValueError, match="they are over 16 MiB"):
        read_notes(path)
