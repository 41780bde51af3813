"""`fit`: the same numbers as Keras' own, the arguments, and one clear message for each mistake."""

import warnings

import keras
import numpy as np
import pytest

from bigzoo.data import Batches
from bigzoo.train import fit, warmup_cosine
from bigzoo.train._arrays import to_arrays
from bigzoo.train._schedule import schedule_of

# Dropout on torch draws from the numbers that torch's data loaders draw from, too.
ON_TORCH = keras.backend.backend() == "torch"
rng = np.random.default_rng(0)
ROWS = 37
X = rng.normal(size=(ROWS, 4)).astype("float32")
Y = np.arange(ROWS) % 3
WEIGHTS = rng.uniform(0.5, 2.0, ROWS)


def make_model(**settings):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.0 if ON_TORCH else 0.2),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    # Without compiling, these tests take a tenth of the time, and the data come in the same way.
    settings = {"optimizer": "sgd", "metrics": ["accuracy"], "run_eagerly": True, **settings}
    model.compile(loss="sparse_categorical_crossentropy", **settings)
    return model


def two_outputs():
    keras.utils.set_random_seed(2)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = {
        "kind": keras.layers.Dense(3, "softmax", name="kind")(both),
        "size": keras.layers.Dense(1, name="size")(both),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    metrics = {"kind": ["accuracy"], "size": ["mae"]}
    model.compile("sgd", losses, weighted_metrics=metrics, run_eagerly=True)
    return model


SAME = {
    "plain": (make_model, (X, Y), {}),
    "compiled": (lambda: make_model(run_eagerly=False), (X, Y), {"validation_data": (X, Y)}),
    "float64 and lists": (make_model, (X.astype("float64"), Y.tolist()), {}),
    "class_weight": (make_model, (X, Y), {"class_weight": {0: 3.0, 2: 0.5}}),
    "sample_weight": (make_model, (X, Y), {"sample_weight": WEIGHTS}),
    "validation_split": (make_model, (X, Y), {"validation_split": 0.3}),
    "weighted split": (make_model, (X, Y), {"validation_split": 0.2, "sample_weight": WEIGHTS}),
    "validation": (
        make_model,
        (X, Y),
        {"validation_data": (X, Y, WEIGHTS), "validation_steps": 2, "validation_freq": 2},
    ),
    "validation batches": (
        make_model,
        (X, Y),
        {"validation_data": (X, Y), "validation_batch_size": 5, "validation_freq": [1, 3]},
    ),
    "initial epoch": (make_model, (X, Y), {"initial_epoch": 1}),
    "two outputs": (
        two_outputs,
        ({"a": X, "b": X[:, :2]}, {"kind": Y, "size": X[:, :1]}),
        {"sample_weight": WEIGHTS},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_as_keras(name):
    make, data, settings = SAME[name]
    if name == "float64 and lists":
        plain = make().fit(
            data[0], np.asarray(data[1]), batch_size=16, epochs=3, shuffle=False, verbose=0
        )
        theirs = plain.model
    else:
        theirs = make()
        plain = theirs.fit(*data, batch_size=16, epochs=3, shuffle=False, verbose=0, **settings)
    ours = make()
    history = fit(
        ours, *data, batch_size=16, epochs=3, shuffle=False, verbose=0, check=False, **settings
    )
    assert history.history == plain.history
    assert history.epoch == plain.epoch
    for got, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_batches_and_steps_per_execution_and_xla():
    if ON_TORCH:
        pytest.skip("Keras on torch runs one step at a time")

    def make_model():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        loss = "sparse_categorical_crossentropy"
        model.compile("sgd", loss, steps_per_execution=4, jit_compile=True)
        return model

    data = Batches(X, Y, batch_size=8, shuffle=True, seed=5)
    theirs = make_model()
    order = data.order(0)
    plain = theirs.fit(X[order], Y[order], batch_size=8, shuffle=False, verbose=0)
    ours = make_model()
    history = fit(ours, data, verbose=0, check=False)
    assert history.history == plain.history
    for got, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("library", ["pandas", "series", "memmap", "tensor"])
def test_other_kinds_of_arrays(library, tmp_path):
    x, y = X, Y
    if library in ("pandas", "series"):
        pandas = pytest.importorskip("pandas")
        x = pandas.DataFrame(X)
        y = pandas.Series(Y) if library == "series" else pandas.DataFrame({"y": Y})
    elif library == "memmap":
        x = np.memmap(tmp_path / "x", dtype="float32", mode="w+", shape=X.shape)
        x[:] = X
    else:
        x = keras.ops.convert_to_tensor(X)
    ours, theirs = make_model(), make_model()
    fit(ours, x, y, shuffle=False, verbose=0, check=False)
    theirs.fit(X, Y, shuffle=False, verbose=0)
    for got, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_order_depends_on_the_seed_alone():
    def losses(seed, global_seed):
        model = make_model()
        keras.utils.set_random_seed(global_seed)
        return fit(model, X, Y, seed=seed, verbose=0, check=False, batch_size=15).history

    first, free = losses(1, 0), losses(None, 0)
    assert first == losses(1, 9)
    assert first != losses(2, 0)
    assert free == losses(None, 0)
    assert free != losses(None, 1)


def test_training_further_goes_on_with_new_orders():
    data = Batches(X, Y, batch_size=19, shuffle=True, seed=5)
    whole = make_model()
    expected = fit(whole, data, epochs=3, verbose=0, check=False)
    parts = make_model()
    losses = [fit(parts, data, verbose=0, check=False).history["loss"][0] for _ in range(3)]
    assert losses == expected.history["loss"]
    assert data.epoch == 0  # a call leaves the data as they were


def test_the_schedule_gets_the_length_of_the_run():
    model = make_model(optimizer=keras.optimizers.Adam(warmup_cosine(0.01, 3)))
    fit(model, X, Y, batch_size=8, epochs=4, verbose=0, check=False)
    schedule = schedule_of(model)
    assert (schedule.first_step, schedule.total_steps) == (0, 5 * 4)


def test_class_names_go_to_the_model():
    model = make_model()
    fit(model, Batches(X, Y, class_names=["a", "b", "c"]), verbose=0, check=False)
    assert tuple(model.class_names) == ("a", "b", "c")


def test_callbacks_see_keras_numbers(capsys):
    seen = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(("begin", self.params["epochs"], self.params["steps"]))

        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, sorted(logs)))

        def on_train_end(self, logs=None):
            seen.append("end")

    history = fit(make_model(), X, Y, batch_size=20, callbacks=Note(), check=False, verbose=2)
    assert seen[0] == ("begin", 1, 2)
    assert seen[1:3] == [(0, ["accuracy", "loss"]), (1, ["accuracy", "loss"])]
    assert seen[3:] == ["end"]
    assert isinstance(history, keras.callbacks.History)
    assert history.model.history is history
    assert "2/2" in capsys.readouterr().out


def test_other_data_sets_go_to_keras():
    class Numbers(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]

    ours, theirs = make_model(), make_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(ours, Numbers(), shuffle=False, verbose=0, check=False, validation_data=Numbers())
    theirs.fit(Numbers(), shuffle=False, verbose=0)
    for got, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    "hook", ["on_train_batch_begin", "on_train_batch_end", "on_test_batch_end"]
)
def test_an_error_leaves_the_model_usable(hook):
    def fail(*arguments, **more):
        raise Boom

    callback = keras.callbacks.LambdaCallback()
    setattr(callback, hook, fail)
    model = make_model()
    with pytest.raises(Boom):
        fit(model, X, Y, validation_data=(X, Y), callbacks=[callback], verbose=0, check=False)
    assert np.isfinite(model.predict(X, verbose=0)).all()
    fit(model, X, Y, verbose=0, check=False)


def test_an_error_in_the_step_itself_leaves_the_model_usable():
    class Faulty(keras.losses.Loss):
        def call(self, y_true, y_pred):
            if Faulty.on:
                raise Boom
            return keras.ops.mean(keras.ops.square(y_pred))

    Faulty.on = True
    model = make_model()
    model.compile("adam", Faulty())  # compiled: on JAX the weights are outside of the variables
    before = model.get_weights()
    with pytest.raises(Boom):
        fit(model, X, Y, verbose=0, check=False)
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_check_runs_first_and_can_be_turned_off():
    model = make_model()
    model.compile("adam", "binary_crossentropy")
    with pytest.raises(ValueError, match="loss"):
        fit(model, X, Y, verbose=0)
    with pytest.warns(UserWarning, match="batch"):
        fit(make_model(), X, Y, batch_size=100, verbose=0)


def uncompiled():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


BATCHES = Batches(X, Y)
BAD = [
    ({"epochs": 0}, ValueError, "`epochs` is 0; expected an integer at least 1"),
    ({"epochs": -1}, ValueError, "`epochs` is -1"),
    ({"epochs": 1.5}, TypeError, "`epochs` is 1.5; expected an integer"),
    ({"initial_epoch": 2}, ValueError, "`initial_epoch` is 2; expected .* at most 1"),
    ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
    ({"batch_size": 2.0}, TypeError, "`batch_size` is 2.0"),
    ({"steps_per_epoch": 0}, ValueError, "`steps_per_epoch` is 0"),
    ({"validation_steps": -1}, ValueError, "`validation_steps` is -1"),
    ({"validation_freq": 0}, ValueError, "`validation_freq` is 0"),
    ({"validation_split": 1.0}, ValueError, "`validation_split` is 1.0; expected .* below 1"),
    ({"validation_split": 0.99}, ValueError, "leaves one part empty"),
    ({"validation_split": 0.1, "validation_data": (X, Y)}, ValueError, "expected one of them"),
    ({"class_weight": [1, 2]}, TypeError, "`class_weight` is .*dict from class numbers"),
    ({"class_weight": {0: -1.0}}, ValueError, r"`class_weight\[0\]` is -1.0"),
    ({"class_weight": {0: 1.0}, "sample_weight": WEIGHTS}, ValueError, "expected one of them"),
    ({"sample_weight": WEIGHTS[:5]}, ValueError, "`sample_weight` has 5"),
    ({"y": Y[:5]}, ValueError, "`x` has 37 rows and `y` has 5"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, "no rows"),
    ({"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}, ValueError, "same length"),
    ({"x": np.array([None] * ROWS)}, TypeError, "Python objects"),
    ({"x": np.float32(3)}, ValueError, "one row per sample"),
    ({"x": BATCHES}, ValueError, "`y` is an array .*; expected None beside a Batches"),
    ({"x": BATCHES, "y": None, "batch_size": 8}, ValueError, "Batches makes its own batches of 32"),
    ({"x": BATCHES, "y": None, "shuffle": "batch"}, ValueError, "True or False with a Batches"),
    ({"x": BATCHES, "y": None, "validation_split": 0.5}, ValueError, "bigzoo.data.split"),
    ({"x": BATCHES, "y": None, "sample_weight": WEIGHTS}, ValueError, "None beside a Batches"),
    ({"shuffle": "yes"}, ValueError, "`shuffle` is 'yes'"),
    ({"seed": -1}, ValueError, "`seed` is -1"),
    ({"seed": "a"}, TypeError, "`seed` is 'a'"),
    ({"verbose": 3}, TypeError, "`verbose` is 3"),
    ({"check": "yes"}, TypeError, "`check` is 'yes'"),
    ({"save_seconds": -1}, ValueError, "`save_seconds` is -1"),
    ({"callbacks": [1]}, TypeError, "`callbacks` is 1; expected a keras.callbacks.Callback"),
    ({"callbacks": keras.callbacks.TerminateOnNaN}, TypeError, "Make an object of it"),
    ({"validation_data": (X,) * 4}, ValueError, "`validation_data` is .*; expected"),
    ({"validation_data": (X, Y[:3])}, ValueError, "rows"),
    ({"x": None}, TypeError, "`x` is None; expected an array"),
    ({"x": "pets/"}, TypeError, r"`x` is 'pets/'; .*bz.data.images\(\"pets/\", image_size"),
    ({"check": True, "y": ["a"] * ROWS}, ValueError, r"np.unique\(y, return_inverse=True\)"),
    ({"check": True, "x": (BATCHES, BATCHES), "y": None}, ValueError, "validation_data=val"),
    ({"check": True, "x": list(X)}, ValueError, r"list of 37 samples; .*np.stack\(x\)"),
    ({"check": True, "validation_data": (list(X), Y)}, ValueError, r"validation x: .*np.stack"),
    ({"check": True, "x": iter([1, 2]), "y": None}, ValueError, "list_iterator .* is a int"),
    ({"check": True, "x": iter([]), "y": None}, ValueError, "without any batch"),
    ({"check": True, "x": (x for x in [X]), "y": None}, ValueError, "`yield x, y`"),
    (
        {"check": True, "x": ((x,) for x in [X]), "y": None},
        ValueError,
        r"one of 1\); .*`yield x, y`",
    ),
    ({"check": True, "class_weight": {7: 1.0}}, ValueError, "class_weight: got the key 7"),
    ({"model": "cnn"}, TypeError, "`model` is 'cnn'; expected a keras.Model"),
    ({"model": uncompiled()}, ValueError, "isn't compiled; .*bigzoo.compile"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_one_clear_message(change, error, text, tmp_path):
    arguments = {"model": make_model(), "x": X, "y": Y, "verbose": 0, "check": False, **change}
    arguments.setdefault("resume", tmp_path / "run")
    with pytest.raises(error, match=text) as caught:
        fit(**arguments)
    assert len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


def test_lists_of_numbers_and_iterators_of_batches_pass_the_check():
    history = fit(make_model(), X.tolist(), Y.tolist(), verbose=0, seed=0, shuffle=False)
    batches = iter([(X[:32], Y[:32]), (X[32:], Y[32:])])
    assert fit(make_model(), batches, verbose=0).history == history.history


@pytest.mark.parametrize("make", ["ReduceLROnPlateau", "LearningRateScheduler"])
@pytest.mark.parametrize("kind", ["ours", "other", "float16"])
def test_callbacks_that_set_a_rate_which_follows_a_schedule(make, kind):
    rate = warmup_cosine(0.01, 3)
    if kind != "ours":
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    optimizer = keras.optimizers.Adam(rate)
    if kind == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss")
    if make == "LearningRateScheduler":
        callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01)
    text = f"`callbacks` has a {make}, but the optimizer's learning rate follows a schedule"
    with pytest.raises(ValueError, match=text):
        fit(make_model(optimizer=optimizer), X, Y, callbacks=callback, check=False)
    constant = make_model(optimizer=keras.optimizers.Adam(0.01))
    fit(constant, X, Y, callbacks=callback, verbose=0, check=False)


def test_a_table_with_a_column_of_text():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X).assign(city=["Bonn"] * ROWS)
    with pytest.raises(TypeError, match=r"`x` has text in column 'city'; .*bz\.data\.csv"):
        fit(make_model(), table, Y)


@pytest.mark.tensorflow
def test_string_tensors_are_text():
    import tensorflow as tf

    words = to_arrays("x", tf.constant(["a", "b"]))
    assert words.tolist() == [b"a", b"b"]


def test_class_names_of_a_folder_read_by_keras(tmp_path):
    pytest.importorskip("tensorflow")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        keras.utils.save_img(tmp_path / name / "1.png", np.zeros((4, 4, 3)) + len(name))
    data = keras.utils.image_dataset_from_directory(tmp_path, image_size=(4, 4), verbose=False)
    stack = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential(stack)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    fit(model, data, verbose=0, check=False)
    assert model.class_names == ("cat", "dog")


def test_wrong_folders(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for folder, error, text in [
        (file, ValueError, "There is a file of this name"),
        (file / "below", ValueError, "Nothing can be written there"),
        (3, TypeError, "`resume` is 3; expected a folder"),
        ("", TypeError, "expected a folder"),
    ]:
        with pytest.raises(error, match=text):
            fit(make_model(), X, Y, resume=folder, verbose=0, check=False)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="`resume` does more"):
        fit(make_model(), X, Y, resume=tmp_path, callbacks=[backup], check=False)


def test_unknown_arguments_are_not_swallowed():
    with pytest.raises(TypeError, match="epoch"):
        fit(make_model(), X, Y, epoch=3)
