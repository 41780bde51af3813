"""Files in their runtimes: the same answers, any batch, any thread, and no crash on bad files."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.deploy._runtime import PlainArray, Pool, Runtime, format_of, open_file
from bigzoo.deploy._runtime_openvino import open_session
from bigzoo.deploy._tensor_specs import Signature, TensorSpec

PACKAGES = {
    "litert": (),
    "saved_model": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "openvino": ("onnx", "tf2onnx", "openvino"),
}
NAMES = {
    "litert": "model.tflite",
    "saved_model": "saved",
    "onnx": "model.onnx",
    "openvino": "openvino",
}
FORMATS = tuple(NAMES)


def small():
    """Pictures to one of three classes; no rows have the same answer."""
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


def pairs():
    """Two inputs and two outputs whose names sort the other way round."""
    keras.utils.set_random_seed(4)
    z, a = keras.Input((4,), name="z"), keras.Input((2,), name="a")
    second = keras.layers.Dense(3, name="second")(z)
    first = keras.layers.Dense(1, name="first")(keras.layers.Concatenate()([a, z]))
    return keras.Model([z, a], {"second": second, "first": first})


def need(format):
    for package in PACKAGES[format]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the conversion takes a process of its own")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(name, format)`: the model and its file, converted once."""
    from bigzoo.deploy._convert import convert

    folder, done = tmp_path_factory.mktemp("files"), {}
    models = {}

    def make(name, format, **options):
        need(format)
        if name not in models:
            models[name] = {"small": small, "pairs": pairs}[name]()
        key = (name, format, *sorted(options))
        if key not in done:
            path = folder / f"{name}-{len(done)}-{NAMES[format]}"
            convert(models[name], path, format, **options)
            done[key] = path
        return models[name], done[key]

    return make


def images(rows, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (rows, 8, 8, 3)).astype("float32")


def answers(model, x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


@pytest.mark.parametrize("format", FORMATS)
def test_answers_are_the_models_whatever_the_batch(made, format):
    model, path = made("small", format)
    runtime = open_file(path)
    assert runtime.engine == format
    assert runtime.notes.output_kind == "softmax"
    for rows in (1, 3, 1, 7, 2):
        x = images(rows, rows)
        got = runtime(x)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, answers(model, x), atol=2e-6)
    assert np.ptp(runtime(images(5)), axis=0).max() > 1e-3  # a constant would pass too


@pytest.mark.parametrize("format", FORMATS)
def test_several_inputs_and_outputs_keep_their_form(made, format):
    model, path = made("pairs", format)
    runtime = open_file(path)
    x = [np.arange(12, dtype="float32").reshape(3, 4), np.ones((3, 2), "float32")]
    got, expected = runtime(x), answers(model, x)
    assert sorted(got) == ["first", "second"]
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=1e-5)
    named = runtime({"a": x[1], "z": x[0]})
    np.testing.assert_array_equal(named["first"], got["first"])


@pytest.mark.parametrize("format", FORMATS)
def test_threads_give_what_one_gives(made, format):
    _, path = made("small", format)
    runtime = open_file(path)
    inputs = [images(1 + i % 3, i) for i in range(40)]
    alone = [runtime(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(runtime, inputs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_a_fixed_batch_takes_any_batch(made, format):
    model, path = made("small", format, dynamic_batch=False)
    runtime = open_file(path)
    x = images(3)
    np.testing.assert_allclose(runtime(x), answers(model, x), atol=2e-6)
    assert runtime.signature.inputs[0].shape == (None, 8, 8, 3)


@pytest.mark.tensorflow
def test_images_of_any_size(tmp_path):
    """An open size is 1 in a .tflite file until an input comes: too small for the window."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2)(x))
    path = tmp_path / "any.tflite"
    bz.deploy.export(model, path, latency=False)
    runtime = open_file(path)
    for rows, height, width in ((2, 9, 17), (1, 32, 16), (2, 9, 17)):
        pixels = np.random.default_rng(0).uniform(0, 255, (rows, height, width, 3))
        x = pixels.astype("float32")
        np.testing.assert_allclose(runtime(x), answers(model, x), rtol=1e-4, atol=1e-3)
    for height, width in ((2, 2), (0, 9)):
        with pytest.raises(ValueError, match=r"fails on this input|expected no size of 0"):
            runtime(np.zeros((1, height, width, 3), "float32"))
    x = np.ones((1, 9, 9, 3), "float32")
    np.testing.assert_allclose(runtime(x), answers(model, x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "chosen"),
    [(b"....TFL3..\x07\0\0\0FlexErf\0..", "tensorflow"), (b"....TFL3..Flex\x07\0..", "own")],
)
def test_operations_that_only_tensorflow_has(tmp_path, monkeypatch, content, chosen):
    """TensorFlow's interpreter has them, whatever other one is installed."""
    from bigzoo.deploy import _runtime_litert

    asked = []

    class Interpreter:
        def __init__(self, name):
            self.name = name

        def __call__(self, **options):
            asked.append(self.name)
            raise RuntimeError("enough")

    monkeypatch.setattr(_runtime_litert, "_own_interpreter", lambda: Interpreter("own"))
    monkeypatch.setattr(
        _runtime_litert, "_tensorflow_interpreter", lambda package: Interpreter(package)
    )
    (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, or has an operation that its runtime lacks"):
        open_file(tmp_path / "a.tflite")
    assert asked == [chosen]


def test_openvino_opens_onnx_files(made):
    need("openvino")
    model, path = made("small", "onnx")
    runtime = open_file(path, "openvino")
    assert runtime.engine == "openvino"
    np.testing.assert_allclose(runtime(images(2)), answers(model, images(2)), atol=2e-6)


@pytest.mark.tensorflow
def test_quantised_numbers_look_like_floats(tmp_path):
    """A file of others with int8 inputs and outputs."""
    import tensorflow as tf

    model = small()
    model.export(tmp_path / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images(1, seed)] for seed in range(8))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path = tmp_path / "int8.tflite"
    path.write_bytes(converter.convert())
    runtime = open_file(path)
    assert runtime.notes is None
    assert [spec.dtype for spec in runtime.signature.inputs] == ["float32"]
    got = runtime(images(4))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, answers(model, images(4)), atol=0.05)


@pytest.mark.tensorflow
@pytest.mark.parametrize("format", ["litert", "saved_model"])
def test_files_of_others_go_by_their_names(made, tmp_path, format):
    import tensorflow as tf

    model = pairs()
    path = tmp_path / "saved"
    model.export(path, verbose=False)
    if format == "litert":
        content = tf.lite.TFLiteConverter.from_saved_model(str(path)).convert()
        path = tmp_path / "a.tflite"
        path.write_bytes(content)
    runtime = open_file(path)
    assert runtime.notes is None
    x = {"z": np.ones((2, 4), "float32"), "a": np.zeros((2, 2), "float32")}
    got = runtime(x)
    expected = answers(model, [x["z"], x["a"]])
    shapes = sorted(array.shape for array in got.values())
    assert shapes == [(2, 1), (2, 3)]
    for array in got.values():
        name = "first" if array.shape[1] == 1 else "second"
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_bad_input(made, format):
    runtime = open_file(made("small", format)[1])
    for x, text in (
        (images(2)[:, :4], r"has the shape \(2, 4, 8, 3\); expected \(batch, 8, 8, 3\)"),
        (images(2)[:0], "is empty; expected at least one sample"),
        ([images(1), images(1)], "expected"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            runtime(x)
    assert runtime(images(1)).shape == (1, 3)  # still works


# --- damaged files ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_are_refused(made, tmp_path, format):
    _, path = made("small", format)
    copy = tmp_path / path.name
    (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
    main = {"saved_model": "saved_model.pb", "openvino": "model.xml"}.get(format)
    main = copy / main if main else copy
    whole = main.read_bytes()
    for size in (3, len(whole) // 3):
        main.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"damaged|no \.tflite|notes"):
            open_file(copy)


_FLIPS = """
from pathlib import Path
import numpy as np
from bigzoo.deploy._runtime import open_file
for path in map(Path, {paths!r}):
    whole = path.read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            open_file(path)(np.zeros((1, 8, 8, 3), "float32"))
        except (ValueError, TypeError) as error:
            pass
print("alive")
"""


@pytest.mark.large
def test_flipped_bits_end_in_an_error_not_in_a_crash(made, tmp_path, run_python):
    paths = [made("small", format)[1] for format in ("litert", "onnx")]
    copies = [str(shutil.copy(path, tmp_path / path.name)) for path in paths]
    assert run_python(_FLIPS.format(paths=copies), "tensorflow").endswith("alive\n")


@pytest.mark.parametrize(
    ("name", "content", "error", "text"),
    [
        ("a.tflite", b"", ValueError, "'.*a.tflite' is empty; expected a model"),
        ("a.tflite", b"no model" * 20, ValueError, "it is no .tflite file"),
        ("a.tflite", b"....TFL3" + b"junk" * 20, ValueError, "'.*a.tflite' is damaged"),
        ("a.onnx", b"", ValueError, "is empty"),
        ("a.onnx", b"PK no protobuf", ValueError, "'.*a.onnx' is damaged"),
        ("a.xml", b"<net", ValueError, "'.*a.xml' is damaged"),
        ("saved_model.pb", b"junk", ValueError, "is damaged"),
        ("a.pt", b"weights", ValueError, "is no file of a model that is known here"),
        ("folder/a.txt", b"", ValueError, r"The folder '.*folder' holds no model; expected a Save"),
    ],
)
def test_foreign_files(tmp_path, name, content, error, text):
    packages = {".onnx": ("onnx", "onnxruntime"), ".xml": ("openvino",)}
    for package in packages.get(name[-5:] if "onnx" in name else name[-4:], ()):
        pytest.importorskip(package)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(error, match=text):
        open_file(path.parent if "folder" in name else path)


def test_a_missing_file_and_a_wrong_engine(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        open_file(tmp_path / "no.onnx")
    (tmp_path / "a.tflite").write_bytes(b"....TFL3")
    with pytest.raises(ValueError, match="`engine` is 'onnx'; expected 'litert', which opens"):
        open_file(tmp_path / "a.tflite", "onnx")
    with pytest.raises(ValueError, match="Did you mean 'onnx'"):
        open_file(tmp_path / "a.tflite", "onxx")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("a.onnx", "onnxruntime", "onnx"), ("a.xml", "openvino", "openvino")],
)
def test_a_missing_runtime_is_named(tmp_path, monkeypatch, name, package, extra):
    from bigzoo.deploy import _runtime

    monkeypatch.setattr(_runtime, "read_notes", lambda path: None)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ImportError, match=rf"{package}.* Run: pip install bigzoo\[{extra}\]"):
        open_file(tmp_path / name)


# --- the parts -------------------------------------------------------------------------------


class Doubles:
    """A session that counts its calls; its batch is fixed."""

    def __init__(self, batch=2):
        self.inputs = (TensorSpec("x", (batch, 1), "float32"),)
        self.outputs = (TensorSpec("y", (batch, 1), "float32"),)
        self.seen = []

    def run(self, arrays):
        self.seen.append(arrays[0].shape)
        return [2 * arrays[0]]


def test_a_fixed_batch_is_filled_up(tmp_path):
    session = Doubles()
    x = np.arange(5, dtype="float32")[:, None]
    np.testing.assert_array_equal(Runtime("onnx", tmp_path, None, session)(x), 2 * x)
    assert session.seen == [(2, 1)] * 3


def test_a_fixed_batch_must_give_a_row_for_each_sample(tmp_path):
    session = Doubles()
    session.run = lambda arrays: [np.zeros((1, 1), "float32")]
    with pytest.raises(ValueError, match=r"for a batch of 2; expected a row for each sample"):
        Runtime("onnx", tmp_path, None, session)(np.zeros((3, 1), "float32"))


@pytest.mark.parametrize(
    ("side", "spec", "text"),
    [
        ("outputs", ("y", (), "seq(map(int64,tensor(float))"), "expected arrays of numbers"),
        ("inputs", ("x", (), "float32"), "expected a batch in front"),
        ("inputs", ("x", (0, 3), "float32"), "expected a batch in front"),
    ],
)
def test_tensors_that_no_caller_could_give_or_use(tmp_path, side, spec, text):
    session = Doubles()
    setattr(session, side, (TensorSpec(*spec),))
    with pytest.raises(ValueError, match=text):
        Runtime("onnx", tmp_path, None, session)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    from bigzoo.deploy import _runtime_litert

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(_runtime_litert, "open_session", refuse)
    (tmp_path / "a.tflite").write_bytes(b"....TFL3")
    with pytest.raises(PermissionError, match="Permission denied"):
        open_file(tmp_path / "a.tflite")


_QUIET = """
import sys
if {quiet}:
    import bigzoo.deploy
    assert not {{"openvino", "onnx", "onnxruntime", "starlette", "uvicorn"}} & set(sys.modules)
    from bigzoo.deploy._runtime_openvino import import_openvino
    openvino = import_openvino("A test")
else:
    import openvino
print("openvino_telemetry" in sys.modules, callable(openvino.convert_model))
import openvino_telemetry
print(openvino_telemetry is not None)
"""


@pytest.mark.parametrize("quiet", [True, pytest.param(False, marks=pytest.mark.large)])
def test_openvino_reports_nothing(run_python, tmp_path, quiet):
    """Its import sends an event; `CI` keeps the one of this test's own back."""
    for package in ("openvino", "openvino_telemetry"):
        pytest.importorskip(package)
    said = run_python(_QUIET.format(quiet=quiet), CI="true", HOME=str(tmp_path)).split()
    assert said == [str(not quiet), "True", "True"]
    assert not (tmp_path / "intel").exists()  # where it counts its uses


def test_errors_of_a_runtime_are_value_errors(tmp_path):
    session = Doubles(None)

    def fail(arrays):
        raise RuntimeError("index out\nof range")

    session.run = fail
    with pytest.raises(ValueError, match="fails on this input: index out of range"):
        Runtime("onnx", tmp_path, None, session)(np.zeros((1, 1), "float32"))


@pytest.mark.parametrize(
    ("x", "fits"),
    [
        (np.zeros((1, 4, 3), "float32"), True),
        (np.zeros((1, 4, 3)), False),
        (np.zeros((0, 4, 3), "float32"), False),
        (np.zeros((1, 4, 2), "float32"), False),
        (np.zeros((1, 0, 3), "float32"), False),
        (np.zeros((4, 3), "float32"), False),
        ([[1.0]], False),
    ],
)
def test_plain_arrays(x, fits):
    spec = TensorSpec("x", (None, None, 3), "float32")
    assert PlainArray.of(Signature((spec,), (spec,), 0, 0)).fits(x) is fits


def test_plain_array_only_where_there_is_one_input():
    spec = TensorSpec("x", (None, 3), "float32")
    other = TensorSpec("y", (None, 3), "float32")
    assert PlainArray.of(Signature((spec, other), (spec,), [0, 1], 0)) is None


def test_a_pool_never_shares_and_never_has_too_many():
    made, busy, faults = [], set(), []

    def make():
        made.append(object())
        return made[-1]

    pool = Pool(make, 3)

    def work(i):
        with pool.worker(i % 2) as worker:
            if id(worker) in busy:
                faults.append(i)
            busy.add(id(worker))
            time.sleep(0.001)
            busy.discard(id(worker))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(100)))
    assert not faults
    assert 2 <= len(made) <= 3


def test_a_pool_gives_the_worker_that_knows_the_key():
    pool = Pool(object, 2)
    with pool.worker("a") as first, pool.worker("b") as second:
        pass
    with pool.worker("a") as again:
        assert again is first
    with pool.worker("b") as again:
        assert again is second


def test_a_worker_that_cannot_be_made_leaves_the_pool_as_it_was():
    attempts = []

    def make():
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("no memory")
        return object()

    pool = Pool(make, 1)
    with pytest.raises(RuntimeError, match="no memory"), pool.worker(1):
        pass
    done = threading.Event()
    thread = threading.Thread(target=lambda: pool.worker(1).__enter__() and done.set())
    thread.start()
    thread.join(5)
    assert done.is_set()


def test_format_of_a_folder_with_two_models(tmp_path):
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text("<net/>")
    with pytest.raises(ValueError, match="holds no model"):
        format_of(tmp_path)
    (tmp_path / "b.xml").unlink()
    assert format_of(tmp_path) == ("openvino", tmp_path / "a.xml")


@pytest.mark.tensorflow
def test_tensorflows_stack_is_left_out(tmp_path):
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, keras.layers.Embedding(5, 2)(ids))
    model.export(tmp_path / "saved", verbose=False)
    runtime = open_file(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"fails on this input: indices.* 99 is not in \[0, 5\)"):
        runtime(np.full((1, 3), 99))


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_openvino_computes_in_full_precision(made, format):
    """Its default on some processors is bfloat16, off by 0.005 and more."""
    need("openvino")
    path = made("small", format)[1]
    compiled = open_session(format_of(path)[1]).compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
