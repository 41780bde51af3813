"""Each mistake gives its finding; nothing is changed by looking."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train._check import check, check_before_fit

layers = keras.layers
N = 96


def rng():
    return np.random.default_rng(0)


def features(*shape, rows=N):
    return rng().normal(size=(rows, *shape)).astype("float32")


def pixels(*shape, rows=32):
    return rng().integers(0, 256, (rows, *shape)).astype("float32")


def classes(k, rows=N):
    return rng().permutation(np.arange(rows) % k)


def dense(units=3, activation="softmax", loss="sparse_categorical_crossentropy", **arguments):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])
    model.compile(loss=loss, **arguments)
    return model


def regressor(**arguments):
    return dense(1, None, "mse", **arguments)


def cnn(shape=(16, 16, 3), rescale=True):
    scale = [layers.Rescaling(1 / 255, name="preprocess")] if rescale else []
    stack = [keras.Input(shape), *scale, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    # Small weights, so that pixels which are not scaled don't saturate the softmax.
    small = keras.initializers.RandomNormal(stddev=1e-4)
    head = layers.Dense(2, activation="softmax", kernel_initializer=small)
    model = keras.Sequential([*stack, head])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


def embedding():
    stack = [keras.Input((5,)), layers.Embedding(10, 4), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential(stack)
    model.compile(loss="mse")
    return model


def two_outputs():
    x = keras.Input((4,), name="features")
    heads = [layers.Dense(1, name="a")(x), layers.Dense(2, name="b")(x)]
    model = keras.Model({"features": x}, heads)
    model.compile(loss={"a": "mse", "b": "mse"})
    return model


def spoiled(array, value):
    array = np.array(array, "float32")
    array[7] = value
    return array


def images(shape, scale=1.0):
    return pixels(*shape) * scale, classes(2, 32)


def labelled(y):
    return features(4, rows=len(y)), y


CENTRED = (pixels(16, 16, 3) / 127.5 - 1, classes(2, 32))
STANDARDISED = (features(16, 16, 3, rows=32), classes(2, 32))
BATCHES = bz.data.Batches(features(4), classes(3))

# code, level, model, data, words of `got`, words of `fix`
FINDINGS = [
    # labels: values
    ("labels-out-of-range", "error", dense, labelled(classes(3) + 1), "1 to 3", "y = y - 1"),
    (
        "labels-out-of-range",
        "error",
        dense,
        labelled(classes(2) * 2 - 1),
        "-1 to 1",
        "(y + 1) // 2",
    ),
    ("labels-out-of-range", "error", dense, labelled(classes(2) * 255), "0 to 255", "y // 255"),
    ("labels-out-of-range", "error", dense, labelled(classes(3) * 40), "0 to 80", "return_inverse"),
    ("labels-out-of-range", "error", dense, labelled(classes(7)), "0 to 6", "Dense(7"),
    ("labels-out-of-range", "error", dense, labelled(classes(9) - 4), "-4 to 4", "np.unique"),
    (
        "labels-out-of-range",
        "error",
        lambda: dense(1, "sigmoid", "binary_crossentropy"),
        labelled(classes(2) + 1),
        "1 to 2",
        "y = y - 1",
    ),
    (
        "labels-out-of-range",
        "error",
        lambda: dense(1, "sigmoid", "binary_crossentropy"),
        labelled(classes(10)),
        "0 to 9",
        "Dense(10",
    ),
    (
        "labels-out-of-range",
        "error",
        lambda: dense(1, None, "hinge"),
        labelled(classes(2) + 1),
        "1 to 2",
        "np.where(y == 2, 1, -1)",
    ),
    ("labels-not-integers", "error", dense, labelled(features()), "float32", "mse"),
    (
        "labels-not-distribution",
        "error",
        lambda: dense(3, "softmax", "categorical_crossentropy"),
        labelled(np.eye(3)[classes(3)] * 0.5),
        "0.5",
        "y / y.sum",
    ),
    (
        "several-classes",
        "error",
        lambda: dense(3, "softmax", "categorical_crossentropy"),
        labelled(np.maximum(np.eye(3)[classes(3)], np.eye(3)[classes(3)[::-1]])),
        "up to 2",
        "sigmoid",
    ),
    (
        "labels-out-of-reach",
        "error",
        lambda: dense(1, "sigmoid", "mse"),
        labelled(features(1) * 5 + 20),
        "sigmoid",
        "remove the activation",
    ),
    (
        "labels-out-of-reach",
        "warning",
        lambda: dense(1, "relu", "mse"),
        labelled(spoiled(abs(features(1)), -3)),
        "-3",
        "remove the activation",
    ),
    (
        "unused-units",
        "warning",
        lambda: dense(10),
        labelled(classes(2)),
        "8 units never",
        "Dense(2",
    ),
    (
        "unused-units",
        "warning",
        lambda: dense(10, "softmax", "categorical_crossentropy"),
        labelled(np.eye(10)[classes(2)]),
        "8 units never",
        "Dense(2",
    ),
    (
        "unused-units",
        "warning",
        lambda: dense(4),
        labelled(classes(2) * 3),
        "2 units never",
        "np.unique",
    ),
    ("nan-in-y", "error", regressor, labelled(spoiled(features(1), np.nan)), "row 7", "isfinite"),
    ("nan-in-y", "error", regressor, labelled(spoiled(features(1), np.inf)), "row 7", "isfinite"),
    (
        "labels-not-numeric",
        "error",
        dense,
        labelled(np.array(["cat", "dog"] * 48)),
        "cat",
        "unique",
    ),
    (
        "constant-labels",
        "warning",
        dense,
        labelled(np.ones(N, int)),
        "all 96 labels are 1",
        "y was",
    ),
    ("constant-labels", "warning", regressor, labelled(np.full(N, 2.5)), "2.5", "y was"),
    (
        "class-imbalance",
        "warning",
        lambda: dense(2),
        labelled((np.arange(400) % 20 == 0).astype(int)),
        "20 rows of class 1 and 380 of class 0",
        "class_weight={0: 0.526, 1: 10}",
    ),
    # labels: shapes
    (
        "one-hot-with-sparse-loss",
        "error",
        dense,
        labelled(np.eye(3)[classes(3)]),
        "one-hot",
        "categorical_crossentropy",
    ),
    (
        "integer-labels",
        "error",
        lambda: dense(3, "softmax", "categorical_crossentropy"),
        labelled(classes(3)),
        "(n,)",
        "sparse_categorical_crossentropy",
    ),
    (
        "integer-labels",
        "error",
        lambda: dense(3, "sigmoid", "binary_crossentropy"),
        labelled(classes(3)),
        "(n,)",
        "to_categorical(y, 3)",
    ),
    (
        "label-broadcast",
        "error",
        lambda: dense(3, None, "mse"),
        labelled(features(1)),
        "(n, 1)",
        "Dense(1)",
    ),
    (
        "label-shape",
        "error",
        lambda: dense(3, None, "mse"),
        labelled(features()),
        "(n,)",
        "reshape",
    ),
    ("label-broadcast", "error", regressor, labelled(features(3)), "(n, 3)", "Dense(3)"),
    (
        "label-shape",
        "error",
        lambda: dense(1, "sigmoid", "binary_crossentropy"),
        labelled(np.eye(2)[classes(2)]),
        "one-hot",
        "argmax",
    ),
    # features
    (
        "nan-in-x",
        "error",
        regressor,
        (spoiled(features(4), np.nan), features(1)),
        "row 7",
        "nan_to",
    ),
    (
        "nan-in-x",
        "error",
        regressor,
        (spoiled(features(4), -np.inf), features(1)),
        "row 7",
        "nan_to",
    ),
    ("num-features", "error", regressor, (features(6), features(1)), "(n, 6)", "num_features=6"),
    ("num-features", "error", regressor, (features(), features(1)), "(n,)", "reshape(-1, 4)"),
    ("input-shape", "error", regressor, (features(2, 2), features(1)), "(n, 2, 2)", "reshape(len"),
    ("not-numeric", "error", regressor, (features(4).astype(str), features(1)), "dtype", "astype"),
    (
        "not-numeric",
        "error",
        regressor,
        (np.array([[1], [2, 3]] * 8, object), features(1, rows=16)),
        "different lengths",
        "pad_sequences",
    ),
    ("constant-features", "warning", regressor, (np.ones((N, 4)), features(1)), "96 rows", "x was"),
    (
        "feature-scale",
        "warning",
        regressor,
        (features(4) * [1, 1, 1, 1000], features(1)),
        "spread",
        "bz.data.normalize",
    ),
    (
        "feature-size",
        "warning",
        regressor,
        (features(4) * 5000, features(1)),
        "spread of about",
        "Normalization",
    ),
    (
        "token-range",
        "error",
        embedding,
        (classes(12, 80).reshape(16, 5), features(1, rows=16)),
        "11",
        "Embedding(12",
    ),
    # images
    (
        "channels-first",
        "error",
        cnn,
        images((3, 16, 16)),
        "(n, 3, 16, 16)",
        "transpose(0, 2, 3, 1)",
    ),
    (
        "channels-first",
        "error",
        lambda: cnn((None, None, 3)),
        images((3, 20, 20)),
        "(n, 3, 20, 20)",
        "transpose(0, 2, 3, 1)",
    ),
    ("image-size", "error", cnn, images((20, 16, 3)), "(n, 20, 16, 3)", "resize(x, (16, 16))"),
    ("image-channels", "error", cnn, images((16, 16, 1)), "(n, 16, 16, 1)", "np.repeat"),
    ("image-channels", "error", cnn, images((16, 16, 4)), "(n, 16, 16, 4)", "x[..., :3]"),
    ("image-channels", "error", cnn, images((16, 16)), "(n, 16, 16)", "np.repeat"),
    ("image-channels", "error", lambda: cnn((16, 16, 1)), images((16, 16, 3)), "3)", "mean("),
    ("pixels-scaled-twice", "error", cnn, images((16, 16, 3), 1 / 255), "0 to 1", "x * 255"),
    ("pixels-scaled-twice", "error", cnn, CENTRED, "-1 to 1", "(x + 1) * 127.5"),
    ("pixels-scaled-twice", "error", cnn, STANDARDISED, "pixels from -", "standardisation"),
    (
        "pixels-not-scaled",
        "warning",
        lambda: cnn(rescale=False),
        images((16, 16, 3)),
        "0 to 255",
        "Rescaling(1 / 255)",
    ),
    # both
    ("empty-data", "error", regressor, (features(4)[:0], features(1)[:0]), "(0, 4)", "read"),
    (
        "lengths-differ",
        "error",
        regressor,
        (features(4), features(1)[:50]),
        "96 rows of x",
        "row i of y",
    ),
    ("labels-missing", "error", regressor, (features(4), None), "no labels", "bz.fit(model, x, y)"),
    (
        "num-inputs",
        "error",
        regressor,
        ((features(4), features(1)), None),
        "2 arrays",
        "x, y = data",
    ),
    ("not-an-array", "error", regressor, ([[1.0], [2.0, 3]], [1, 2]), "lengths", "pad_sequences"),
    ("not-an-array", "error", regressor, ("pets/", None), "str", "bz.data.images("),
    ("not-an-array", "error", dense, ((BATCHES, BATCHES), None), "tuple", "validation_data=val"),
    ("not-an-array", "error", dense, (features(4), ["a", "b"] * 48), "list of str", "np.unique"),
    (
        "num-inputs",
        "error",
        cnn,
        ([*images((16, 16, 3))[0]], classes(2, 32)),
        "32 s",
        "np.stack(x)",
    ),
    ("num-inputs", "error", regressor, ([*features(4)], features(1)), "96 samples", "np.stack(x)"),
    (
        "num-inputs",
        "error",
        cnn,
        ([pixels(12, 9, 3)[0], pixels(16, 16, 3)[0]], classes(2, 2)),
        "(12, 9, 3) and (16, 16, 3)",
        "resize all to one size first",
    ),
    (
        "input-names",
        "error",
        two_outputs,
        ({"wrong": features(4)}, [features(1), features(2)]),
        "wrong",
        "'features'",
    ),
    (
        "num-targets",
        "error",
        two_outputs,
        ({"features": features(4)}, features(1)),
        "1 array",
        "'a'",
    ),
    (
        "target-names",
        "error",
        two_outputs,
        ({"features": features(4)}, {"a": features(1)}),
        "'a'",
        "'b'",
    ),
]


@pytest.mark.parametrize(
    "code, level, make, data, got, fix",
    FINDINGS,
    ids=[f"{i}-{row[0]}" for i, row in enumerate(FINDINGS)],
)
def test_mistake_is_found_alone_and_its_fix_named(code, level, make, data, got, fix):
    model = make()
    for report in (check(model, *data), check_before_fit(model, *data, batch_size=8)):
        assert report.notes == []
        found = report.findings
        if code not in ("num-inputs", "not-an-array"):  # for which other things are missing too
            assert [one.code for one in found] == [code]
        assert (found[0].code, found[0].level) == (code, level)
        assert got in found[0].got
        assert fix in found[0].fix


# === The model ===


def frozen():
    model = regressor()
    model.trainable = False
    return model


def frozen_layers():
    model = regressor()
    model.layers[0].trainable = False
    return model


def with_rate(rate, optimizer=keras.optimizers.Adam):
    return lambda: regressor(optimizer=optimizer(rate))


def dead_relu():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, activation="relu")])
    model.set_weights([np.zeros((4, 1)), np.array([-1.0])])
    model.compile(loss="mse")
    return model


def zero_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)])
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.compile(loss="mse")
    return model


def exploding():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, activation="exponential")])
    model.set_weights([np.full((4, 1), 1e4), np.zeros(1)])
    model.compile(loss="mse")
    return model


exponential = keras.optimizers.schedules.ExponentialDecay
MODELS = [
    ("nothing-trainable", "error", frozen, "trainable is False", "model.trainable = True"),
    ("nothing-trainable", "error", frozen_layers, "2 weights are frozen", "trainable = True"),
    ("learning-rate", "error", with_rate(0.0), "rate of 0", "learning_rate=0.001"),
    ("learning-rate", "error", with_rate(10.0), "rate of 10", "learning_rate=0.001"),
    ("learning-rate", "error", with_rate(-0.1), "rate of -0.1", "learning_rate=0.001"),
    ("learning-rate", "warning", with_rate(1.0), "rate of 1", "learning_rate=0.001"),
    ("learning-rate", "warning", with_rate(1e-9), "rate of 1e-09", "learning_rate=0.001"),
    ("learning-rate", "warning", with_rate(10.0, keras.optimizers.SGD), "10", "learning_rate=0.01"),
    ("learning-rate", "error", with_rate(1e3, keras.optimizers.SGD), "1000", "learning_rate=0.01"),
    ("learning-rate", "error", with_rate(exponential(0.1, 100, 10.0)), "schedule", "0.001"),
    ("learning-rate", "error", with_rate(exponential(float("nan"), 1, 1.0)), "schedule", "0.001"),
    ("zero-gradient", "error", dead_relu, "every weight", "relu"),
    ("zero-gradient", "error", zero_weights, "every kernel", "random weights"),
    ("loss-not-finite", "error", exploding, "a loss of", "scale x"),
]


def test_a_schedule_is_read_from_the_present_step():
    """The line of a warm-up that begins late is negative before its first step."""
    model = with_rate(bz.train.warmup_cosine(0.001, 10, 100, first_step=50))()
    x, y = features(4), features(1)
    assert [one.code for one in check(model, x, y).findings] == ["learning-rate"]
    model.optimizer.iterations.assign(50)
    assert check(model, x, y).ok


@pytest.mark.parametrize("code, level, make, got, fix", MODELS)
def test_model_that_cannot_learn_is_found(code, level, make, got, fix):
    x, y = features(4), abs(features(1)) + 0.1
    for report in (check(make(), x, y), check_before_fit(make(), x, y)):
        assert [(one.code, one.level) for one in report.findings] == [(code, level)]
        assert got in report.findings[0].got
        assert fix in report.findings[0].fix


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(1.0), keras.optimizers.Adam(0.1), "adadelta", "adam", "sgd"]
)
def test_usual_learning_rates_are_fine(optimizer):
    assert check(regressor(optimizer=optimizer), features(4), features(1)).ok


def test_model_that_is_not_compiled():
    model = bz.models.mlp(4, (8,), num_outputs=3, task="multiclass")
    report = check(model, features(4), classes(3))
    assert report.ok
    assert "isn't compiled" in report.notes[0]
    # The labels are held against the loss that the output asks for.
    assert check(model, features(4), classes(3) + 1).errors[0].code == "labels-out-of-range"
    report = check_before_fit(model, features(4), classes(3))
    assert [(one.code, one.fix) for one in report.errors] == [("not-compiled", "bz.compile(model)")]


def test_names_of_losses_that_are_no_outputs():
    model = two_outputs()
    model.compile(loss={"a": "mse", "c": "mse"})
    codes = [one.code for one in check(model, features(4), [features(1), features(2)]).errors]
    assert codes == ["loss-names"]


# === The data as a whole ===


def batches(y, shuffle=False, **arguments):
    return bz.data.Batches(features(4, rows=len(y)), y, batch_size=16, shuffle=shuffle, **arguments)


def test_sorted_labels_that_are_never_shuffled():
    y = np.sort(classes(3))
    assert [one.code for one in check(dense(), batches(y)).findings] == ["sorted-labels"]
    assert check(dense(), batches(y, shuffle=True)).ok
    assert check(dense(), batches(classes(3))).ok
    report = check_before_fit(dense(), *labelled(y), shuffle=False)
    assert [one.code for one in report.findings] == ["sorted-labels"]
    assert check_before_fit(dense(), *labelled(y), shuffle=True).ok


class Stream(keras.utils.PyDataset):
    """Batches whose labels come in order of class."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def __len__(self):
        return len(self.y) // 16

    def __getitem__(self, i):
        return features(4, rows=16) + i + np.random.normal(), self.y[16 * i : 16 * i + 16]


def test_labels_of_a_stream():
    report = check(dense(), Stream(np.repeat([0, 1, 2], 160)))
    assert [(one.code, one.got) for one in report.findings] == [
        ("constant-labels", "the first 128 labels are all 0")
    ]
    report = check(dense(10), Stream(classes(2, 320)))
    assert [one.code for one in report.findings] == ["unused-units"]
    assert check(dense(10), Stream(np.repeat(np.arange(10), 32))).ok  # the rest may come later


AMOUNTS = [
    ("fewer-than-a-batch", "warning", {"batch_size": 200}, "96 rows for batches of 200"),
    (
        "data-exhausted",
        "warning",
        {"steps_per_epoch": 2, "epochs": 4},
        "3 batches for 4 epochs of 2",
    ),
    (
        "data-exhausted",
        "warning",
        {"steps_per_epoch": 5, "epochs": 2},
        "3 batches for 2 epochs of 5",
    ),
]


@pytest.mark.parametrize("code, level, arguments, got", AMOUNTS)
def test_amount_of_data(code, level, arguments, got):
    report = check_before_fit(
        regressor(), features(4), features(1), **{"batch_size": 32, **arguments}
    )
    assert [(one.code, one.level) for one in report.findings] == [(code, level)]
    assert got in report.findings[0].got


@pytest.mark.parametrize("epochs, steps", [(50, None), (2, 3), (7, 1), (1, 2)])
def test_data_that_ends_between_two_epochs_is_fine(epochs, steps):
    data = features(4), features(1)
    assert check_before_fit(regressor(), *data, epochs=epochs, steps_per_epoch=steps).ok


def test_run_that_ends_in_the_warm_up_is_fine():
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, 1000, warmup_target=0.001, warmup_steps=100
    )
    model = regressor(optimizer=keras.optimizers.Adam(schedule))
    assert check_before_fit(model, features(4), features(1), steps_per_epoch=1).ok


def test_small_batches_object():
    report = check(dense(), batches(classes(3, 9)))
    assert [one.code for one in report.findings] == ["fewer-than-a-batch"]


def test_one_shot_generator_is_not_consumed():
    def endless():
        while True:
            yield features(4), classes(3)

    generator = endless()
    report = check(dense(), generator)
    assert [(one.code, one.level) for one in report.findings] == [("not-checked", "warning")]
    report = check_before_fit(dense(), generator, steps_per_epoch=2, epochs=2)
    assert report.ok
    assert "one-shot iterator" in report.notes[0]
    assert generator.gi_frame.f_lasti == endless().gi_frame.f_lasti  # it hasn't started
    report = check_before_fit(dense(), generator, epochs=2)
    assert [one.code for one in report.errors] == ["data-exhausted"]
    # What needs no data is checked all the same.
    wrong = dense(3, "softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert "loss-vs-activation" in [one.code for one in check(wrong, generator).errors]


def test_labels_next_to_a_dataset():
    report = check(dense(), batches(classes(3)), classes(3))
    assert [one.code for one in report.errors] == ["labels-twice"]


WEIGHTS = [
    ("weights-length", np.ones(50), "50 weights for 96 rows"),
    ("negative-weights", np.linspace(-1, 1, N), "-1"),
    ("nan-in-weights", np.full(N, np.nan), "NaN"),
    ("zero-weights", np.zeros(N), "only zeros"),
]


@pytest.mark.parametrize("code, weight, got", WEIGHTS)
def test_sample_weights(code, weight, got):
    report = check(regressor(), features(4), features(1), sample_weight=weight)
    assert [one.code for one in report.errors] == [code]
    assert got in report.errors[0].got


CLASS_WEIGHTS = [
    ("error", {0: 1.0, 3: 2.0}, classes(3), "the key 3", "{0: ..., 1: ..., 2: ...}"),
    ("error", {-1: 1.0, "cat": 2.0}, classes(3), "the keys -1, cat", "0: ..."),
    ("warning", {0: 1.0, 2: 2.0}, classes(2), "a weight for 2", "{0: ..., 1: ...}"),
]


@pytest.mark.parametrize("level, weight, y, got, fix", CLASS_WEIGHTS)
def test_class_weights(level, weight, y, got, fix):
    for look in (check, check_before_fit):
        report = look(dense(), features(4), y, class_weight=weight)
        found = [one for one in report.findings if one.code == "class-weight-keys"]
        assert [one.level for one in found] == [level]
        assert got in found[0].got
        assert fix in found[0].fix
    assert check(dense(), features(4), classes(3), class_weight={0: 1.0, 2: 3.0}).ok


@pytest.mark.parametrize("model", [cnn(rescale=False), cnn((None, None, 3), rescale=False)])
@pytest.mark.parametrize("data", [CENTRED, STANDARDISED])
def test_centred_pixels_are_right_for_a_model_that_does_not_scale(model, data):
    assert check(model, *data).ok


def test_lists_of_numbers_are_arrays():
    x, y = features(4), classes(3)
    assert check(dense(), x.tolist(), y.tolist(), validation_data=((x + 1).tolist(), list(y))).ok
    assert check_before_fit(dense(), x.tolist(), y.tolist(), validation_split=0.2).ok


# === Training against validation data ===


def test_rows_in_common():
    x, y = features(4), classes(3)
    report = check(dense(), x, y, validation_data=(x[:20].copy(), y[:20]))
    assert [(one.code, one.level) for one in report.findings] == [("rows-in-common", "error")]
    assert report.findings[0].got == "20 of 20 validation rows are training rows too"
    mostly_new = np.concatenate([x[:1], features(4, rows=299) + 9])
    report = check(dense(), x, y, validation_data=(mostly_new, classes(3, 300)))
    assert [(one.code, one.level) for one in report.findings] == [("rows-in-common", "warning")]
    assert check(dense(), x, y, validation_data=(x[:20] + 1, y[:20])).ok


def test_rows_in_common_of_many_rows_are_estimated():
    x, y = features(4, rows=9000), classes(3, 9000)
    val = np.concatenate([x[:3000], features(4, rows=3000) + 9])
    report = check_before_fit(dense(), x, y, validation_data=(val, classes(3, 6000)))
    assert [(one.code, one.level) for one in report.findings] == [("rows-in-common", "error")]
    assert check(dense(), x, y, validation_data=(val, classes(3, 6000))).findings[0].got == (
        "3000 of 6000 validation rows are training rows too"
    )


def test_almost_equal_rows_are_different_rows():
    """Keys are equal, rows are not: they are compared in full."""
    x = np.zeros((40, 1000), "float32")
    x[:, 0] = np.arange(40)
    val = x.copy()
    val[:, 1:] += 1e-20
    model = keras.Sequential([keras.Input((1000,)), layers.LayerNormalization(), layers.Dense(1)])
    model.compile(loss="mse")
    assert check(model, x, features(1, rows=40), validation_data=(val, features(1, rows=40))).ok


def test_classes_that_one_side_lacks():
    x, y = features(4), classes(3)
    new = features(4, rows=30) + 5
    report = check(dense(), x, y, validation_data=(new, classes(2, 30)))
    assert [one.code for one in report.findings] == ["class-missing-in-validation"]
    assert report.findings[0].got == "no row of class 2"
    report = check(dense(4), x, y, validation_data=(new, np.arange(30) % 4))
    assert "class-missing-in-training" in [one.code for one in report.findings]


def test_validation_split_of_sorted_data():
    y = np.sort(classes(3))
    report = check_before_fit(dense(), *labelled(y), validation_split=0.25)
    assert [one.code for one in report.findings] == ["class-missing-in-validation"]
    y = np.tile([0, 1, 2], 32)
    assert check_before_fit(dense(), *labelled(y), validation_split=0.25).ok


def test_wrong_validation_labels_are_named_as_such():
    report = check(
        dense(), features(4), classes(3), validation_data=(features(4, rows=20) + 1, classes(5, 20))
    )
    assert [(one.code, one.where) for one in report.errors] == [
        ("labels-out-of-range", "validation y")
    ]


@pytest.mark.parametrize("without_y", [features(4) + 1, bz.data.Batches(features(4) + 1)])
def test_validation_labels_that_are_missing(without_y):
    report = check(dense(), features(4), classes(3), validation_data=without_y)
    assert [(one.code, one.fix) for one in report.errors] == [
        ("labels-missing", "validation_data=(x_val, y_val)")
    ]


# === Nothing is changed ===


def noisy_model():
    stack = [keras.Input((16, 16, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]
    stack += [layers.BatchNormalization(), layers.GaussianNoise(0.1, seed=1)]
    stack += [layers.GlobalAveragePooling2D(), layers.Dropout(0.5, seed=1)]
    stack += [layers.Dense(2, activation="softmax", activity_regularizer="l2")]
    model = keras.Sequential(stack)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((16, 16, 3))
    model.fit(x, y, epochs=1, verbose=0)
    return model, x, y


def state(model):
    kept = [*model.variables, *model.optimizer.variables]
    kept += [variable for metric in model.metrics for variable in metric.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in kept]


def test_nothing_is_changed():
    model, x, y = noisy_model()
    x = np.concatenate([x, x + 0.5])
    y = np.concatenate([y, y])
    before, x_before, y_before = state(model), x.copy(), y.copy()
    numpy_state = np.random.get_state()[1].copy()
    assert check(model, x, y, validation_data=(x + 0.25, y)).ok
    assert check_before_fit(model, x, y, epochs=3).ok
    after = state(model)
    assert len(before) == len(after) > 8
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(y, y_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_reading_a_dataset_leaves_the_global_random_state():
    numpy_state = np.random.get_state()[1].copy()
    check(dense(), Stream(classes(3, 320)))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_a_check_that_fails_becomes_a_note():
    class Broken(Stream):
        def __getitem__(self, i):
            raise OSError("the disk is gone")

    report = check_before_fit(dense(), Broken(classes(3)))
    assert report.ok
    assert report.notes == ["the data not checked: OSError: the disk is gone"]


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"`model` is 'model.keras'; expected a keras.Model"):
        check("model.keras", features(4))
    with pytest.raises(TypeError, match=r"`data` is None; expected arrays or a dataset"):
        check(dense(), None)


# === tf.data ===


@pytest.mark.tensorflow
def test_tf_datasets():
    import tensorflow as tf

    x, y = features(4), classes(3)
    data = tf.data.Dataset.from_tensor_slices((x, y))
    report = check(dense(), data)
    assert [(one.code, one.fix) for one in report.errors] == [
        ("no-batch-axis", "dataset = dataset.batch(32)")
    ]
    report = check_before_fit(dense(), data.batch(32).repeat())
    assert [one.code for one in report.errors] == ["endless-data"]
    assert check(dense(), data.batch(32).repeat()).ok
    report = check_before_fit(dense(), data.batch(32), steps_per_epoch=2, epochs=2)
    assert [one.code for one in report.warnings] == ["data-exhausted"]
    report = check(dense(), data.batch(200, drop_remainder=True))
    assert [one.code for one in report.errors] == ["empty-data"]
    report = check(dense(), tf.data.Dataset.from_tensor_slices(x).batch(32))
    assert [one.code for one in report.errors] == ["labels-missing"]
