"""`export`: every file is proven, or nothing is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from bigzoo.deploy import _convert, _export, _limits
from bigzoo.deploy._convert import convert
from bigzoo.deploy._convert_process import _raise_error, own_modules
from bigzoo.deploy._difference import difference
from bigzoo.deploy._export import export
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._limits import FORMATS, LIMITS
from bigzoo.deploy._notes import read_notes
from bigzoo.deploy._runtime import open_file
from bigzoo.deploy._signature import example_inputs
from bigzoo.deploy._targets import Target, resolve_target, written

L = keras.layers
NAMES = {"onnx": "m.onnx", "litert": "m.tflite", "saved_model": "folder", "openvino": "openvino"}
NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "openvino": ("onnx", "tf2onnx", "openvino")}
on_tensorflow = pytest.mark.tensorflow


def need(format):
    for package in NEEDS.get(format, ()):
        pytest.importorskip(package)


def classifier():
    """The layers that broke one format or another, with class names."""
    image = keras.Input((12, 12, 3), name="image")
    x = L.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6], name="preprocess")(image)
    x = L.RandomFlip()(x)
    x = L.Conv2D(8, 3)(x)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(8, 3, groups=4, activation="gelu")(x)
    x = L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))
    model = keras.Model(image, L.Dense(3, "softmax", name="predictions")(x), name="pets")
    model.class_names = ("ant", "bee", "cat")
    return model


def dense():
    return keras.Sequential([keras.Input((4,), name="x"), L.Dense(3, name="y")])


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is written -------------------------------------------------------------------------


@on_tensorflow
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_gives_the_models_answers(tmp_path, format):
    """Traps: RandomFlip, GELU, Normalization, grouped convolutions; OpenVINO's bfloat16."""
    need(format)
    model = classifier()
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    path = tmp_path / NAMES[format]
    receipt = export(model, path, latency=False)
    assert receipt.difference.relative <= 1e-5
    assert receipt.action == "export"
    assert receipt.path == str(path)
    assert receipt.after.file_bytes > 1000
    assert left(tmp_path) == [NAMES[format]]
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    notes = read_notes(path)
    assert notes.class_names == ("ant", "bee", "cat")
    assert notes.image_size == (12, 12)
    assert notes.output_kind == "softmax"
    assert notes.signature.inputs[0].name == "image"
    x = example_inputs(model, 5, seed=3)[0]  # a batch that it wasn't checked with
    got = open_file(path)(x)
    assert difference(model(x, training=False), got).relative <= 1e-5


@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "litert", "saved_model"])
def test_attention(tmp_path, format):
    """Trap: straight from a concrete function, LiteRT gives NaN for attention."""
    need(format)
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = L.Embedding(20, 8)(ids)
    mask = keras.ops.not_equal(ids, 0)[:, None, :]  # a slice that LiteRT can't read as it is
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x, attention_mask=mask))
    model = keras.Model(ids, L.Dense(2)(x[:, 0]))
    sample = np.array([[1, 2, 3, 0], [4, 5, 0, 0]])
    receipt = export(model, tmp_path / NAMES[format], sample, latency=False)
    assert receipt.difference.relative <= 1e-5
    assert receipt.difference.samples == 2
    longer = np.arange(14).reshape(2, 7)
    got = open_file(tmp_path / NAMES[format])(longer)
    assert difference(model(longer, training=False), got).relative <= 1e-5


@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "litert", "saved_model"])
def test_forms_of_several_inputs_and_outputs(tmp_path, format):
    need(format)
    a, b = keras.Input((4,), name="b"), keras.Input((3,), dtype="int32", name="a")
    y, z = L.Dense(2, name="one")(a), L.Embedding(9, 2, name="another")(b)
    model = keras.Model({"b": a, "a": b}, {"z": z, "y": [y]})
    export(model, tmp_path / NAMES[format], latency=False)
    x = {"a": np.ones((2, 3), "int32"), "b": np.ones((2, 4), "float32")}
    got = open_file(tmp_path / NAMES[format])(x)
    assert set(got) == {"y", "z"}
    np.testing.assert_allclose(got["y"][0], model(x)["y"][0], rtol=1e-5)
    np.testing.assert_allclose(got["z"], model(x)["z"], rtol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "litert", "saved_model"])
def test_an_output_that_is_given_twice_and_an_input_that_passes(tmp_path, format):
    need(format)
    x = keras.Input((4,), name="Image")
    y = L.Dense(3, name="y")(x)
    model = keras.Model(x, [y, x, y])
    export(model, tmp_path / NAMES[format], latency=False)
    rows = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    for expected, got in zip(model(rows), open_file(tmp_path / NAMES[format])(rows), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@on_tensorflow
def test_a_sequential_that_a_call_has_built(tmp_path):
    """Its graph has the batch of that call."""
    model = keras.Sequential([L.Dense(3, name="y")])
    model(np.ones((7, 4), "float32"))
    export(model, tmp_path / "m.tflite", latency=False)
    assert open_file(tmp_path / "m.tflite")(np.ones((2, 4), "float32")).shape == (2, 3)


@on_tensorflow
def test_reloaded_sequential(tmp_path):
    """Trap: its `input` may raise."""
    dense().save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    receipt = export(loaded, tmp_path / "m.tflite", latency=False)
    assert receipt.difference.relative <= 1e-5


@on_tensorflow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_models_of_16_bits_are_exported_in_float32(tmp_path, policy):
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(8, dtype=policy), L.Dense(3, dtype=policy)]
    )
    receipt = export(model, tmp_path / "m.tflite", latency=False)
    assert 1e-5 < receipt.difference.relative < 2e-2  # from the model as it is
    assert "computes in 16 bits, the file in float32" in receipt.notes[1]
    assert read_notes(tmp_path / "m.tflite").signature.outputs[0].dtype == "float32"


@on_tensorflow
def test_fixed_batch(tmp_path):
    model = keras.Sequential([keras.Input((5, 2)), L.LSTM(3), L.Dense(2)])
    receipt = export(model, tmp_path / "m.tflite", dynamic_batch=False, latency=False)
    assert "The file takes a batch of 1." in receipt.notes
    assert read_notes(tmp_path / "m.tflite").signature.inputs[0].shape == (1, 5, 2)
    x = np.random.default_rng(0).normal(size=(7, 5, 2)).astype("float32")
    got = open_file(tmp_path / "m.tflite")(x)
    assert difference(model(x), got).relative <= 1e-5


@on_tensorflow
@pytest.mark.parametrize(
    ("format", "mode"),
    [
        ("litert", "float16"),
        ("litert", "dynamic"),
        ("litert", "int8"),
        ("onnx", "dynamic"),
        ("onnx", "int8"),
    ],
)
def test_modes_are_smaller_and_near(tmp_path, format, mode):
    need(format)
    model = keras.Sequential([keras.Input((64,)), L.Dense(128, "relu"), L.Dense(4)])
    rows = example_inputs(model, 32)
    convert(model, tmp_path / f"f{NAMES[format]}", format)
    path = tmp_path / NAMES[format]
    notes = convert(model, path, format, mode=mode, calibration=rows if mode == "int8" else None)
    assert notes.mode == mode
    assert path.stat().st_size < 0.7 * (tmp_path / f"f{NAMES[format]}").stat().st_size
    assert 0 < difference(model(rows[0]), open_file(path)(rows[0])).relative < 0.1


# --- nothing is left -------------------------------------------------------------------------


@on_tensorflow
@pytest.mark.parametrize("format", ["litert", "saved_model"])
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, format):
    path = tmp_path / NAMES[format]
    export(dense(), path, latency=False)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    other = dense()
    monkeypatch.setattr(_export, "run_jobs", lambda jobs: _run_with(jobs, other))
    text = (
        r"was not written: its output 'y' differs by [\d.e+-]+ at batch 1, relative.*at most 1e-0"
    )
    with pytest.raises(ValueError, match=text):
        export(dense(), path, latency=False)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@on_tensorflow
def test_a_wrong_inference_model_is_found(tmp_path, monkeypatch):
    """What counts is the model as it was given, not the one of which the file is made."""
    other = inference_model(dense())
    monkeypatch.setattr(_convert, "inference_model", lambda model: other)
    with pytest.raises(ValueError, match="its output 'y' differs by"):
        export(dense(), tmp_path / "m.tflite", latency=False)
    assert left(tmp_path) == []


@on_tensorflow
def test_a_comparison_that_shows_little_is_said(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, kernel_initializer="zeros")])
    receipt = export(model, tmp_path / "m.tflite", latency=False)
    assert any("Some output is the same for all rows" in note for note in receipt.notes)
    receipt = export(dense(), tmp_path / "m.tflite", latency=False)
    assert not any("the same for all rows" in note for note in receipt.notes)


def _run_with(jobs, model):
    from dataclasses import replace

    from bigzoo.deploy._convert import run_jobs

    run_jobs([replace(job, model=inference_model(model)) for job in jobs])


@on_tensorflow
def test_tolerance_zero_refuses_roundings(tmp_path):
    model = keras.Sequential([keras.Input((64,)), L.Dense(64, "gelu"), L.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="expected at most 0"):
        export(model, tmp_path / "m.tflite", tolerance=0, latency=False)
    assert left(tmp_path) == []


@on_tensorflow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "folder"])
def test_full_disk(tmp_path, name):
    """A real limit on the size of files stands for the disk."""
    if name == "m.onnx":
        need("onnx")
    import resource

    model = keras.Sequential([keras.Input((100,)), L.Dense(1000)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"can't be written: .*Nothing is left of it"):
            export(model, tmp_path / name, latency=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left(tmp_path) == []


def test_errors_of_the_system_keep_their_kind(tmp_path):
    target = Target(tmp_path / "m.onnx", tmp_path / "m.onnx", "onnx")
    (tmp_path / "m.onnx").write_text("earlier")
    with pytest.raises(OSError, match="No space left") as caught, written(target) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(PermissionError, match="can't be written"), written(target):
        raise OSError(errno.EACCES, "Permission denied")
    assert (tmp_path / "m.onnx").read_text() == "earlier"
    assert left(tmp_path) == ["m.onnx"]


def test_an_interrupt_leaves_nothing(tmp_path):
    target = Target(tmp_path / "f", tmp_path / "f", "saved_model")
    with pytest.raises(KeyboardInterrupt), written(target) as partial:
        partial.mkdir()
        (partial / "half").write_text("x")
        raise KeyboardInterrupt
    assert left(tmp_path) == []


def test_what_comes_to_the_place_meanwhile_stays(tmp_path):
    """A conversion takes long enough for somebody to put something else there."""
    for name, format in (("f", "saved_model"), ("m.onnx", "onnx")):
        target = resolve_target(tmp_path / name, format)
        text = "isn't replaced|a file, not a folder"
        with pytest.raises(ValueError, match=text), written(target) as partial:
            partial.write_text("x") if format == "onnx" else partial.mkdir()
            target.final.mkdir()
            (target.final / "thesis.txt").write_text("mine")
        assert (target.final / "thesis.txt").read_text() == "mine"
    assert left(tmp_path) == ["f", "m.onnx"]


@on_tensorflow
def test_a_folder_that_cant_be_replaced_comes_back(tmp_path):
    export(dense(), tmp_path / "folder", latency=False)
    target = resolve_target(tmp_path / "folder")
    with pytest.raises(OSError, match="Nothing is left of it"), written(target):
        pass  # nothing was written: the second renaming fails
    assert open_file(tmp_path / "folder").notes is not None
    assert left(tmp_path) == ["folder"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    with written(resolve_target(tmp_path / "link.onnx")) as partial:
        partial.write_text("x")
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "real" / "m.onnx").read_text() == "x"


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.onnx", "onnx"),
        ("A.ONNX", "onnx"),
        ("a.tflite", "litert"),
        ("pets/", "saved_model"),
        ("openvino/", "openvino"),
        ("pets_OpenVINO", "openvino"),
        ("openvino.onnx", "onnx"),
    ],
)
def test_the_name_tells_the_format(tmp_path, name, format):
    assert resolve_target(f"{tmp_path}/{name}").format == format


def test_format_can_be_given(tmp_path):
    assert resolve_target(tmp_path / "v1.2", "saved_model").format == "saved_model"


@pytest.mark.parametrize(
    ("name", "format", "error", "text"),
    [
        ("a.keras", None, ValueError, "A .keras file is written by `bz.save"),
        ("a.tflit", None, ValueError, "Did you mean '.tflite'"),
        ("a.pt", None, ValueError, "format='saved_model'"),
        ("a.onnx", "litert", ValueError, r"ends in .tflite. Write '.*a.tflite'"),
        ("a.onnx", "openvino", ValueError, "a folder, for the format 'openvino'"),
        ("a", "onxx", ValueError, "Did you mean 'onnx'"),
        ("none/a.onnx", None, FileNotFoundError, r"Make it: `os.makedirs\("),
        ("taken.onnx", None, ValueError, "a file, not a folder"),
        ("file", None, ValueError, "a folder; a file is there"),
        ("mine", None, ValueError, "isn't replaced: it holds 'thesis.txt'"),
        ("theirs", None, ValueError, "isn't replaced: it is no earlier export of that kind"),
        (3, None, TypeError, "a path as a str"),
    ],
)
def test_wrong_paths(tmp_path, name, format, error, text):
    (tmp_path / "taken.onnx").mkdir()
    (tmp_path / "file").write_text("x")
    for folder, file in (("mine", "thesis.txt"), ("theirs", "saved_model.pb")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("x")
    before = left(tmp_path)
    with pytest.raises(error, match=text):
        export(dense(), tmp_path / name if isinstance(name, str) else name, format=format)
    assert left(tmp_path) == before
    assert (tmp_path / "mine" / "thesis.txt").exists()


@on_tensorflow
def test_an_earlier_export_is_replaced(tmp_path):
    path = tmp_path / "folder"
    export(dense(), path, latency=False)
    old = (path / "assets.extra" / "bigzoo.json").read_text()
    other = keras.Sequential([keras.Input((2,)), L.Dense(1)])
    export(other, path, latency=False)
    assert (path / "assets.extra" / "bigzoo.json").read_text() != old
    assert left(tmp_path) == ["folder"]
    (path / "readme.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"it holds 'readme.txt'"):
        export(other, path, latency=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="no permission in"):
        export(dense(), tmp_path / "m.onnx")


# --- known beforehand ------------------------------------------------------------------------


def rnn(**more):
    return keras.Sequential([keras.Input((5, 2)), L.Bidirectional(L.GRU(3, **more), name="two")])


def fixed_batch():
    x = keras.Input(batch_shape=(8, 4), name="eight")
    return keras.Model(x, L.Dense(2)(x))


def quantized():
    model = dense()
    model.quantize("int8")
    return model


def no_batch():
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.mean(L.Dense(2)(x)))


def text():
    x = keras.Input((), dtype="string", name="words")
    return keras.Model(x, keras.layers.Lambda(lambda s: s)(x))


@pytest.mark.parametrize(
    ("make", "format", "said"),
    [
        (rnn, "litert", "recurrent layer .* with a dynamic batch .*dynamic_batch=False.*unroll=Tr"),
        (fixed_batch, "litert", r"an input whose batch is fixed \('eight'\).*keras.Input\(shape\)"),
        (rnn, "openvino", "recurrent layer .*'forward_gru.*unroll=True"),
        (no_batch, "litert", "an output without a batch .*row by row.*out of the model"),
        (quantized, "litert", r"quantised .*\('y'\).*bz.compress.quantize\(model, target="),
        (quantized, "openvino", "quantised .* computes wrong values"),
    ],
)
def test_what_a_format_cant_hold(tmp_path, monkeypatch, make, format, said):
    need(format)
    model = make()
    monkeypatch.setattr(_export, "run_jobs", lambda jobs: pytest.fail("it was converted"))
    with pytest.raises(ValueError, match=said):
        export(model, tmp_path / NAMES[format], latency=False)
    assert left(tmp_path) == []


@on_tensorflow
@pytest.mark.parametrize("format", ["litert", "openvino"])
def test_the_route_for_recurrent_layers(tmp_path, format):
    need(format)
    receipt = export(rnn(unroll=True), tmp_path / NAMES[format], latency=False)
    assert receipt.difference.relative <= 1e-5


@on_tensorflow
@pytest.mark.parametrize("format", ["onnx", "saved_model"])
def test_quantised_layers_where_they_are_right(tmp_path, format):
    need(format)
    receipt = export(quantized(), tmp_path / NAMES[format], latency=False)
    assert receipt.difference.relative <= 1e-5


@on_tensorflow
def test_cudnn_is_kept_out(monkeypatch, tmp_path):
    """A GPU can't be had here; what is decided where there is one can."""
    import tensorflow as tf

    from bigzoo.deploy import _convert_process

    went = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(_convert_process, "run_elsewhere", went.extend)
    jobs = [_convert.make_job(rnn(), tmp_path / "m.tflite", "litert", dynamic_batch=False)]
    _convert.run_jobs(jobs)
    assert went == jobs


@on_tensorflow
def test_inputs_of_text(tmp_path):
    with pytest.raises(ValueError, match=r"an input of text \('words'\).*data pipeline"):
        export(text(), tmp_path / "folder", latency=False)


def test_weights_that_no_file_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(_limits, "MOST_BYTES", 50)
    text = r"weights of over 2 GiB .*0.0 GiB.*, which LiteRT can't hold.*as a SavedModel"
    with pytest.raises(ValueError, match=text):
        export(dense(), tmp_path / "m.tflite", latency=False)


def test_table_of_limits_is_whole():
    for limit in LIMITS:
        assert set(limit.formats) <= set(FORMATS)
        assert limit.reason
        assert limit.route.endswith((".", ")."))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"model": "m.keras"}, TypeError, "`model` is 'm.keras'; expected a keras.Model"),
        ({"model": keras.Sequential([L.Dense(1)])}, ValueError, "has no weights yet"),
        ({"tolerance": -1}, ValueError, "`tolerance` is -1; expected a finite number at least 0"),
        ({"dynamic_batch": 1}, TypeError, "`dynamic_batch` is 1; expected True or False"),
        ({"latency": None}, TypeError, "`latency` is None"),
        ({"sample": np.zeros((2, 5))}, ValueError, r"'x' has the shape \(2, 5\); expected \(batch"),
        ({"sample": np.zeros((0, 4))}, ValueError, "'x' is empty"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, said):
    with pytest.raises(error, match=said):
        export(**{"model": dense(), "path": tmp_path / "m.tflite", **arguments})
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "int8"}, "`calibration` is None; expected data for the mode 'int8'"),
        ({"calibration": []}, "`calibration` is given; expected data for the mode 'int8'"),
        ({"mode": "int8", "calibration": []}, "`calibration` is '0 arrays'; expected 1 arrays"),
        ({"mode": "int4"}, "Did you mean 'int8'"),
    ],
)
def test_bad_conversions(tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        convert(dense(), tmp_path / "m.tflite", "litert", **arguments)


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install bigzoo\[onnx\]"):
        export(dense(), tmp_path / "m.onnx", latency=False)
    assert left(tmp_path) == []


def test_quantised_models_export_themselves(tmp_path):
    class Quantized:
        def export_to(self, path, format):
            return path.name, format

    assert export(Quantized(), tmp_path / "m.onnx") == ("m.onnx", "onnx")


@on_tensorflow
def test_settings_are_left_as_they_were(tmp_path):
    import logging

    import tensorflow as tf

    levels = [logging.getLogger(name).level for name in ("tensorflow", "absl", "tf2onnx")]
    export(dense(), tmp_path / "m.tflite", latency=False)
    assert not tf.config.functions_run_eagerly()
    assert [logging.getLogger(n).level for n in ("tensorflow", "absl", "tf2onnx")] == levels


@on_tensorflow
def test_conversions_in_threads_leave_the_settings(tmp_path):
    """Without a lock, the one that ends last leaves what the other had set."""
    import logging

    from bigzoo.deploy._convert_tensorflow import alone

    logger, inside, go = logging.getLogger("tf2onnx"), threading.Event(), threading.Event()
    before = logger.level

    def first():
        with alone():
            inside.set()
            go.wait(10)

    def second():
        inside.wait(10)
        with alone():
            threads[0].join(10)

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    threads[1].join(0.1)  # time to come in, if it could
    go.set()
    for thread in threads:
        thread.join(10)
    assert logger.level == before


# --- from other backends ---------------------------------------------------------------------


def test_own_classes_that_another_process_cant_import():
    class Local(keras.layers.Layer):
        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((2,)), Local()])
    with pytest.raises(ValueError, match=r"'Local' in `model` can't be imported.*module of it"):
        own_modules(model)


@pytest.mark.parametrize(
    ("status", "said", "text"),
    [
        (-9, "", r"was ended by the system \(signal 9\). It may need more memory"),
        (3, "noise\nImportError: no keras\n", "ended with status 3: ImportError: no keras."),
        (1, "", "ended with status 1: it said nothing."),
    ],
)
def test_a_process_that_dies(tmp_path, status, said, text):
    with pytest.raises(ValueError, match=text):
        _raise_error(tmp_path, subprocess.CompletedProcess([], status, "", said))


FROM_ELSEWHERE = """
    import sys
    from pathlib import Path
    import keras, numpy as np
    from bigzoo.deploy._convert import make_job, run_jobs
    from bigzoo.deploy._runtime import open_file
    from bigzoo.deploy._signature import example_inputs
    from bigzoo.deploy._verify import make_checks, verify
    from own_layers import Double

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else {folder!r})
    image = keras.Input((12, 12, 3))
    x = keras.layers.RandomFlip()(image)
    x = Double()(keras.layers.Conv2D(4, 3, activation="gelu")(x))
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    model.predict(np.zeros((1, 12, 12, 3)), verbose=0)  # after it, cached arrays are dead on JAX
    rows = example_inputs(model, 3)
    jobs = [
        make_job(model, folder / "m.onnx", "onnx"),
        make_job(model, folder / "folder", "saved_model"),
        make_job(model, folder / "m.tflite", "litert"),
        make_job(model, folder / "i.tflite", "litert", mode="int8", calibration=rows),
    ]
    run_jobs(jobs)
    checks = make_checks(model, jobs[0].signature, rows[0])
    for job, tolerance in zip(jobs, (1e-5, 1e-5, 1e-5, 0.2)):
        verify(checks, open_file(job.path), job.signature, tolerance, "m")
    print(keras.backend.backend(), "agrees")
"""


@pytest.mark.large
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_of_other_backends(tmp_path, run_python, backend):
    """Trap: weights of JAX die with the next call; and a class of one's own, imported there."""
    need("onnx")
    pytest.importorskip(backend)
    (tmp_path / "own_layers.py").write_text(
        textwrap.dedent("""
        import keras

        @keras.saving.register_keras_serializable("own")
        class Double(keras.layers.Layer):
            def call(self, x):
                return 2 * x
        """)
    )
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code = path + textwrap.dedent(FROM_ELSEWHERE).replace("{folder!r}", repr(str(tmp_path)))
    assert f"{backend} agrees" in run_python(code, backend=backend)
