"""Good files come back as they were saved; damaged, foreign and malicious ones are refused."""

from __future__ import annotations

import io
import json
import shutil
import stat
import zipfile

import h5py
import keras
import numpy as np
import pytest

import bigzoo as bz


def network(units=2, hidden=4, name="net"):
    layers = [
        keras.Input((3,), name="features"),
        keras.layers.Dense(hidden, activation="relu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.1, name="drop"),
        keras.layers.Dense(units, activation="softmax", name="predictions"),
    ]
    return keras.Sequential(layers, name=name)


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def same_weights(a, b):
    pairs = zip(a.get_weights(), b.get_weights(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A good file, which each test changes a copy of."""
    path = tmp_path_factory.mktemp("good") / "net.keras"
    model = randomise(network())
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    bz.save(model, path, ["cat", "dog"])
    return path, model


def rewrite(source, target, change=None, add=None, drop=()):
    """Copy an archive with entries changed, added or dropped."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name in drop:
                continue
            new.writestr(name, change[name](data) if change and name in change else data)
        for entry, data in add or []:
            new.writestr(entry, data)
    return target


def with_config(source, target, edit):
    def change(data):
        config = json.loads(data)
        edit(config)
        return json.dumps(config)

    return rewrite(source, target, {"config.json": change})


def with_weights(source, target, edit):
    def change(data):
        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as file:
            edit(file)
        return buffer.getvalue()

    return rewrite(source, target, {"model.weights.h5": change})


# --- what is loaded --------------------------------------------------------------------------


@pytest.mark.filterwarnings("error:Skipping")
def test_model_comes_back_with_names_weights_and_compilation(saved, tmp_path):
    path, model = saved
    loaded = bz.load(path)
    assert loaded.class_names == ("cat", "dog")
    assert same_weights(loaded, model)
    assert loaded.compiled
    x = np.ones((5, 3), "float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
    # and once more round
    assert bz.load(bz.save(loaded, tmp_path / "again.keras")).class_names == ("cat", "dog")


def test_a_file_of_plain_keras_has_no_names(tmp_path):
    model = network()
    model.save(tmp_path / "a.keras")
    loaded = bz.load(str(tmp_path / "a.keras"))
    assert not hasattr(loaded, "class_names")
    assert same_weights(loaded, model)


def test_the_schedule_of_compile_loads_in_a_fresh_process(tmp_path, run_python):
    path = bz.save(bz.compile(network(), verbose=False), tmp_path / "a.keras")
    code = f"""
import bigzoo as bz
model = bz.load({str(path)!r})
print(model.optimizer.get_config()["learning_rate"]["class_name"])
"""
    assert "CosineDecay" in run_python(code, keras.backend.backend())


def test_own_class_loads_when_registered_only(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2

    model = keras.Sequential([keras.Input((3,)), Twice(), keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match="will refuse"):
        bz.save(model, tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"needs the class '.*Twice'.*register_keras_serializable"):
        bz.load(tmp_path / "a.keras")
    with keras.saving.custom_object_scope({"Twice": Twice}):
        assert isinstance(bz.load(tmp_path / "a.keras").layers[0], Twice)


def test_layers_with_assets(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("StringLookup needs TensorFlow")
    lookup = keras.layers.StringLookup(name="words")
    lookup.adapt(["a", "b", "b"])
    text = keras.Input((1,), dtype="string")
    model = keras.Model(text, keras.layers.Embedding(4, 2)(lookup(text)))
    model.save(tmp_path / "plain.keras")
    bz.save(model, tmp_path / "a.keras")
    for name in ("plain.keras", "a.keras"):
        loaded = bz.load(tmp_path / name)
        assert loaded.get_layer("words").get_vocabulary() == lookup.get_vocabulary()


# --- weights ---------------------------------------------------------------------------------


def test_weights_into_a_model(tmp_path):
    model = randomise(network())
    model.save_weights(tmp_path / "a.weights.h5")
    other = network(name="other")
    assert bz.load(tmp_path / "a.weights.h5", other) is other
    assert same_weights(model, other)


@pytest.mark.filterwarnings("error:Skipping")
def test_weights_with_and_without_state_of_the_optimizer(tmp_path):
    x, y = np.ones((4, 3), "float32"), np.zeros(4, int)
    trained, fresh = network(), network()
    for model in (trained, fresh):
        model.compile("adam", "sparse_categorical_crossentropy")
    trained.fit(x, y, verbose=0)
    trained.save_weights(tmp_path / "a.weights.h5")
    for model in (fresh, network()):
        assert same_weights(bz.load(tmp_path / "a.weights.h5", model), trained)
    plain = randomise(network())
    plain.save_weights(tmp_path / "b.weights.h5")
    assert same_weights(bz.load(tmp_path / "b.weights.h5", trained), plain)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: network(units=3), r"'predictions'\): model \(4, 3\), file \(4, 2\)"),
        (lambda: network(hidden=5), r"'hidden'\): model \(3, 5\), file \(3, 4\)"),
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]),
            r"the model has 2 arrays, the file 8\..*batch_normalization/vars/0: model has none",
        ),
        (
            lambda: keras.Sequential([network(), keras.layers.Dense(4)]),
            "file has none",
        ),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_alone(tmp_path, other, text):
    network().save_weights(tmp_path / "a.weights.h5")
    model = randomise(other())
    before = model.get_weights()
    with pytest.raises(ValueError, match=text) as caught:
        bz.load(tmp_path / "a.weights.h5", model)
    assert "left as it was" in str(caught.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("error", [OSError("read error"), KeyboardInterrupt()])
def test_a_failure_half_way_is_undone(tmp_path, monkeypatch, error):
    network().save_weights(tmp_path / "a.weights.h5")
    model = randomise(network())
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.ones((4, 3), "float32"), np.zeros(4, int), verbose=0)
    before = model.get_weights()
    steps = int(model.optimizer.iterations)

    def fail(self, filepath):
        self.layers[0].kernel.assign(self.layers[0].kernel * 0)
        self.optimizer.iterations.assign(77)
        raise error

    monkeypatch.setattr(keras.Model, "load_weights", fail)
    expected = ValueError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected):
        bz.load(tmp_path / "a.weights.h5", model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations) == steps


# --- damaged and foreign files ---------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated(saved, tmp_path, share):
    data = saved[0].read_bytes()
    bad = tmp_path / "a.keras"
    bad.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"is not a .keras file|is damaged"):
        bz.load(bad)


def test_a_flipped_bit_in_the_weights(saved, tmp_path):
    path, model = saved
    data = bytearray(path.read_bytes())
    kernel = model.layers[0].kernel
    at = data.index(np.asarray(keras.ops.convert_to_numpy(kernel)).tobytes())
    data[at] ^= 1
    (tmp_path / "a.keras").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged: the checksum of 'model.weights.h5' is wrong"):
        bz.load(tmp_path / "a.keras")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"just some text", "expected a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "expected a zip archive"),
    ],
)
def test_foreign_content(tmp_path, content, text):
    (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(ValueError, match=text):
        bz.load(tmp_path / "a.keras")


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("letter.txt", "hello")
    with pytest.raises(ValueError, match=r"has no config.json, only 'letter.txt'"):
        bz.load(tmp_path / "a.keras")


@pytest.mark.parametrize(
    ("entry", "new", "text"),
    [
        ("config.json", "{", "its config.json is not JSON"),
        ("config.json", "[1, 2]", "its config.json describes none"),
        ("config.json", "[" * 200_000, "nested without end|not JSON"),
        (
            "config.json",
            '{"class_name": "Adam", "module": "keras.optimizers", "config": {}}',
            "Adam",
        ),
        ("model.weights.h5", "no weights", "model.weights.h5\\) is damaged or not an HDF5 file"),
        ("bigzoo.json", "]", "its bigzoo.json is not what bigzoo writes"),
        ("bigzoo.json", "[]", "its bigzoo.json is not what bigzoo writes"),
        ("bigzoo.json", '{"class_names": "cat"}', "is no list of names"),
        ("bigzoo.json", '{"class_names": ["cat", 7]}', "is no list of names"),
    ],
)
def test_damaged_entries(saved, tmp_path, entry, new, text):
    bad = rewrite(saved[0], tmp_path / "a.keras", {entry: lambda data: new})
    with pytest.raises(ValueError, match=text):
        bz.load(bad)


def test_missing_entries(saved, tmp_path):
    bad = rewrite(saved[0], tmp_path / "a.keras", drop=("model.weights.h5",))
    with pytest.raises(ValueError, match=r"has no model.weights.h5"):
        bz.load(bad)


# --- malicious files -------------------------------------------------------------------------

LINK = zipfile.ZipInfo("assets/link")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("entry", "data", "text"),
    [
        ("../evil.txt", "x", "'../evil.txt' leads out of the archive"),
        ("assets/../../evil.txt", "x", "leads out of the archive"),
        ("/tmp/evil.txt", "x", "leads out of the archive"),
        ("..\\evil.txt", "x", "leads out of the archive"),
        ("C:/evil.txt", "x", "leads out of the archive"),
        (LINK, "/etc/passwd", "'assets/link' is a symbolic link"),
        ("config.json", "{}", "two entries 'config.json'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_no_honest_file_has(saved, tmp_path, entry, data, text, trust):
    bad = rewrite(saved[0], tmp_path / "a.keras",
                  add=[(entry, data)])  # fmt: skip
    with pytest.raises(ValueError, match=text.replace("\\", "\\\\")):
        bz.load(bad, trust=trust)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_zip_bomb(saved, tmp_path):
    bad = tmp_path / "a.keras"
    shutil.copy(saved[0], bad)
    with (
        zipfile.ZipFile(bad, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("assets/zeros", "w", force_zip64=True) as entry,
    ):
        for _ in range(400):
            entry.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"unpacks to .* GiB .* zip bomb"):
        bz.load(bad)


def layer(class_name, module="keras.layers", config=None, **extra):
    config = {"name": "x", **(config or {})}
    return {"class_name": class_name, "module": module, "config": config, **extra}


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (layer("Lambda"), "a Lambda layer"),
        (layer("__lambda__", None), "a Python lambda"),
        (layer("TFSMLayer", config={"filepath": "/tmp/x"}), "a TFSMLayer"),
        (layer("TorchModuleWrapper"), "unpickles code"),
        (layer("StringLookup", config={"vocabulary": "/etc/passwd"}), "reads another file"),
        (layer("Popen", "subprocess"), "needs the class 'subprocess.Popen', which neither Keras"),
        (layer("Thing", "kerasevil.layers"), "needs the class 'kerasevil.layers.Thing'"),
        (layer("Thing", "keras_hub.models"), "needs the class 'keras_hub.models.Thing'"),
        (layer("get_file", "keras.utils"), "needs the class 'keras.utils.get_file'"),
        (layer("Exception", "builtins"), "names the class 'builtins.Exception', which is no part"),
        (layer("eval", "builtins"), "names the class 'builtins.eval', which is no part of a model"),
        (layer("H5IOStore", "keras.src.saving.saving_lib"), "H5IOStore', which is no part"),
        (layer("DiskIOStore", "keras.src.saving.saving_lib"), "DiskIOStore', which is no part"),
        (layer("CSVLogger", "keras.callbacks"), "names the class 'keras.callbacks.CSVLogger'"),
        (layer("Progbar", "keras.utils"), "'keras.utils.Progbar', which is no part of a model"),
        (layer("StatelessScope", "keras"), "'keras.StatelessScope', which is no part of a model"),
        (
            {"class_name": "function", "module": "builtins", "config": "eval"},
            "names the function 'builtins.eval', which is no part of a model",
        ),
        (
            {"class_name": "function", "module": "builtins", "config": "deserialize"},
            "names the function 'builtins.deserialize', which is no part",
        ),
        (layer("Thing", "bigzoo.nowhere"), "needs the class 'bigzoo.nowhere.Thing'"),
        (layer("Thing", "bigzoo.layers; import os"), "needs the class"),
        (layer("Dense", 7), "names a class in a wrong form"),
        (
            {"class_name": "function", "module": "keras.utils", "config": "get_file"},
            "names the function 'keras.utils.get_file'",
        ),
        (
            {"class_name": "function", "module": "os", "config": "system"},
            "needs the function 'os.system'",
        ),
        (
            {
                "class_name": "function",
                "module": "keras.config",
                "config": "enable_unsafe_deserialization",
            },
            "names the function 'keras.config.enable",
        ),
        ({"class_name": "function", "module": "keras", "config": {}}, "function in a wrong form"),
    ],
)
def test_code_is_refused_wherever_it_stands(saved, tmp_path, node, text):
    def in_layers(config):
        config["config"]["layers"].append(node)

    def deep_down(config):
        config["compile_config"]["loss"] = {"a": [[node]]}

    for edit in (in_layers, deep_down):
        bad = with_config(saved[0], tmp_path / "a.keras", edit)
        with pytest.raises(ValueError, match=text) as caught:
            bz.load(bad)
        assert "is refused" in str(caught.value)


def own_objects():
    """One object of each class of Keras that a model may hold and that has defaults."""
    rooms = "activations constraints initializers layers losses metrics optimizers quantizers"
    for room in (*rooms.split(), "regularizers", "dtype_policies", "optimizers.schedules"):
        module = keras
        for part in room.split("."):
            module = getattr(module, part)
        for name in sorted(set(dir(module)) - {"Lambda", "JaxLayer", "FlaxLayer", "TFSMLayer"}):
            entry = getattr(module, name)
            if isinstance(entry, type) and hasattr(entry, "from_config"):
                try:
                    yield f"{room}.{name}", entry()
                except (TypeError, ValueError, NotImplementedError, ImportError):
                    continue  # it needs arguments


def test_what_a_model_may_hold_is_let_through():
    from bigzoo.deploy._config import unsafe_part

    count = 0
    for name, made in own_objects():
        try:
            config = keras.saving.serialize_keras_object(made)
        except NotImplementedError:
            continue
        assert unsafe_part({"config": config}) is None, name
        count += 1
    assert count > 150
    for function in (keras.activations.relu, keras.losses.mean_squared_error, keras.ops.gelu):
        config = keras.layers.serialize(keras.layers.Dense(2, activation=function))
        assert unsafe_part(config) is None
        assert keras.layers.deserialize(config).units == 2
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.softmax(keras.ops.relu(x) + 1.0))
    config = json.loads(model.to_json())
    assert unsafe_part(config) is None


def test_a_lambda_loads_only_with_trust(tmp_path):
    layers = [keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2, output_shape=(3,))]
    with pytest.warns(UserWarning, match="will refuse"):
        path = bz.save(keras.Sequential(layers), tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"refused. It has a Lambda layer.*`trust=True`"):
        bz.load(path)
    model = bz.load(path, trust=True)
    np.testing.assert_array_equal(model.predict(np.ones((1, 3)), verbose=0), 2 * np.ones((1, 3)))


def external_link(file):
    file["evil"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    file["evil"] = h5py.SoftLink("/layers")


def external_data(file):
    file.create_dataset("evil", (4,), "uint8", external=[("/etc/passwd", 0, 4)])


def virtual_data(file):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
    file.create_virtual_dataset("evil", layout)


def bomb(file):
    file.create_dataset("evil", (2**40,), "float32", chunks=(2**20,), compression="gzip")


def endless(file):
    file["layers"]["evil"] = file["layers"]


def objects(file):
    file.create_dataset("evil", (1,), h5py.ref_dtype)


HDF5_ATTACKS = [
    (external_link, "'evil' is a link that may lead out of it"),
    (soft_link, "is a link"),
    (external_data, "the bytes of 'evil' lie in another file"),
    (virtual_data, "made of parts of other files"),
    (bomb, "as only a bomb does"),
    (endless, "nested without end|over .* objects"),
    (objects, "'evil' holds object; expected numbers"),
]


@pytest.mark.parametrize(("attack", "text"), HDF5_ATTACKS)
def test_weights_that_reach_out_of_the_file(saved, tmp_path, attack, text):
    bad = with_weights(saved[0], tmp_path / "a.keras", attack)
    with pytest.raises(ValueError, match=text):
        bz.load(bad, trust=True)
    weights = tmp_path / "a.weights.h5"
    model = randomise(network())
    network().save_weights(weights)
    before = model.get_weights()
    with h5py.File(weights, "r+") as file:
        attack(file)
    with pytest.raises(ValueError, match=text):
        bz.load(weights, model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_legacy_files_need_trust(tmp_path):
    model = randomise(network())
    model.save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"legacy .h5 model.*CVE-2025-9905.*`trust=True`"):
        bz.load(tmp_path / "a.h5")
    assert same_weights(bz.load(tmp_path / "a.h5", trust=True), model)
    shutil.copy(tmp_path / "a.h5", tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="is a legacy model, not weights"):
        bz.load(tmp_path / "a.weights.h5", model)
    network().save_weights(tmp_path / "b.weights.h5")
    (tmp_path / "b.weights.h5").rename(tmp_path / "b.h5")
    with pytest.raises(ValueError, match="holds no model, only weights"):
        bz.load(tmp_path / "b.h5", trust=True)


# --- arguments -------------------------------------------------------------------------------


def test_missing_files_name_their_neighbours(saved):
    folder = saved[0].parent
    with pytest.raises(FileNotFoundError, match=r"no file '.*nte.keras'. Near it: '.*net.keras'"):
        bz.load(folder / "nte.keras")
    with pytest.raises(FileNotFoundError, match="no folder"):
        bz.load(folder / "no" / "net.keras")


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("a.keras", {"model": "net"}, TypeError, "`model` is 'net'; expected a keras.Model"),
        ("a.keras", {"model": network()}, ValueError, "`model` goes with a .weights.h5 file"),
        ("a.weights.h5", {}, ValueError, "holds weights only; expected a `model`"),
        ("a.keras", {"trust": "yes"}, TypeError, "`trust` is 'yes'; expected True or False"),
        ("a.txt", {}, ValueError, "has .txt; expected .keras, .weights.h5 or .h5"),
        ("folder", {}, ValueError, "is a folder"),
        (None, {}, TypeError, "`path` is None; expected a path"),
    ],
)
def test_bad_arguments(tmp_path, name, options, error, text):
    (tmp_path / "folder").mkdir()
    for file in ("a.keras", "a.weights.h5", "a.txt"):
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(error, match=text):
        bz.load(name if name is None else tmp_path / name, **options)
