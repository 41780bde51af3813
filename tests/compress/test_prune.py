"""`prune`: exactly so many zeros, kept during the training, on every backend."""

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress import prune
from bigzoo.compress._prune import Masks, mask_of, sparsity_at
from bigzoo.train._state import sync, value_of

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64") + (X[:, 2] > 0.5)
QUIET = {"verbose": 0, "latency": False}
# JAX compiles each operation by itself then, and so takes longer.
EAGER = keras.backend.backend() != "jax"


def make_model(**settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(20, "relu", name="a"),
            L.BatchNormalization(name="norm"),
            L.Dense(10, "relu", name="b"),
            L.Dense(3, "softmax", name="out"),
        ],
        name="net",
    )
    settings = {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9), **settings}
    model.compile(loss="sparse_categorical_crossentropy", **settings)
    return model


def kernel_of(model, name):
    sync(model)
    return np.array(value_of(model.get_layer(name).weights[0]))


def zeros(model, name):
    return int((kernel_of(model, name) == 0).sum())


@pytest.mark.parametrize("schedule", ["cubic", "constant"])
def test_exactly_so_many_zeros(schedule):
    model = make_model(run_eagerly=EAGER)
    before = [value_of(weight).tobytes() for weight in model.weights]
    pruned = prune(model, (X, Y), 0.8, 2, schedule, **QUIET)
    assert [value_of(weight).tobytes() for weight in model.weights] == before
    assert [zeros(pruned, name) for name in ("a", "b", "out")] == [96, 160, 24]
    others = [w for w in pruned.weights if w.name not in ("kernel", "moving_mean")]
    assert all(np.abs(value_of(weight)).sum() > 0 for weight in others)
    assert [one.name for one in pruned.layers] == ["a", "norm", "b", "out"]
    assert isinstance(pruned, keras.Sequential) and pruned.name == "net"
    # Really trained: what stays isn't what it was.
    kept = kernel_of(pruned, "a") != 0
    assert np.abs(kernel_of(pruned, "a") - kernel_of(model, "a"))[kept].max() > 1e-4


@pytest.mark.parametrize("steps", [1, 3])
def test_zeros_hold_during_the_training(steps, monkeypatch):
    """What the next step starts from has the zeros, wherever the backend keeps its weights."""
    if steps > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras runs step by step on PyTorch")
    found = []

    def watched(self):
        values = [np.array(value_of(weight)) for weight in self.weights]
        masks = [np.array(keras.ops.convert_to_numpy(mask)) for mask in self.values]
        # Before the zeros are set again: as large as so few steps of 1e-6 can make them.
        found.append(max(np.abs(v[m == 0]).max() for v, m in zip(values, masks, strict=True)))
        original(self)

    original = Masks.apply
    monkeypatch.setattr(Masks, "apply", watched)
    model = make_model(optimizer=keras.optimizers.SGD(1e-6), steps_per_execution=steps)
    pruned = prune(model, (X, Y), 0.5, 2, "constant", batch_size=8, frequency=10**6, **QUIET)
    assert found[0] > 1e-2  # the first time they are still there
    assert len(found) >= 2 * 8 / steps
    assert max(found[1:-1]) < 1e-4
    # Without a weight at zero before its time, a loss of the gradient would go unseen.
    assert any(value > 0 for value in found[1:-1])
    assert zeros(pruned, "a") == 60


def test_the_zeros_grow(monkeypatch):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(zeros(self.model, "b"))

    model = make_model(run_eagerly=EAGER)
    pruned = prune(model, (X, Y), 0.75, 4, batch_size=16, frequency=1, callbacks=Watch(), **QUIET)
    assert seen == sorted(seen) and len(seen) == 16
    assert 0 < seen[0] < 60 and seen[-1] == 150
    assert seen.index(150) == 8  # 60% of 16 batches, 9 of them, rounded to whole weights
    assert zeros(pruned, "b") == 150


OPTIMIZERS = {
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "average": lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_what_is_out_stays_out(name):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(kernel_of(self.model, "b") == 0)

    model = make_model(optimizer=OPTIMIZERS[name](), run_eagerly=EAGER)
    pruned = prune(model, (X, Y), 0.8, 4, batch_size=16, callbacks=Watch(), **QUIET)
    out = kernel_of(pruned, "b") == 0
    assert out.sum() == 160
    assert all(out[before].all() for before in seen)


def test_some_training_is_left_after_the_last_growth():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(zeros(self.model, "b"))

    model = make_model(run_eagerly=EAGER)
    prune(model, (X, Y), 0.8, 5, batch_size=64, frequency=10**6, callbacks=Watch(), **QUIET)
    assert seen == [0, 0, 160, 160, 160]


@pytest.mark.large
def test_with_the_speed_settings_of_compile():
    model = bz.models.mlp(6, (20, 10), num_outputs=3, task="multiclass")
    bz.compile(model, verbose=False)
    pruned = prune(model, (X, Y), 0.9, 2, batch_size=16, **QUIET)
    assert pruned.steps_per_execution == model.steps_per_execution
    assert zeros(pruned, "hidden1") == 108 and zeros(pruned, "hidden2") == 180


@pytest.mark.parametrize(
    ("progress", "schedule", "wanted"),
    [
        (0.0, "cubic", 0.0),
        (0.3, "cubic", 0.8 * (1 - 0.125)),
        (0.6, "cubic", 0.8),
        (1.0, "cubic", 0.8),
        (0.0, "constant", 0.8),
    ],
)
def test_schedule(progress, schedule, wanted):
    """Zhu and Gupta 2017, equation 1, from 0."""
    assert sparsity_at(progress, 0.8, schedule) == pytest.approx(wanted)


def test_the_smallest_go_and_one_stays():
    sizes = np.array([[3.0, 1.0], [4.0, 2.0]])
    np.testing.assert_array_equal(mask_of(sizes, 0.5), [[True, False], [True, False]])
    np.testing.assert_array_equal(mask_of(sizes, 0.999), [[False, False], [True, False]])
    assert mask_of(sizes, 0.01).all()
    assert mask_of(np.ones((10, 10)), 0.37).sum() == 63  # equal ones, too


def test_one_shot():
    model = make_model()
    pruned = prune(model, X, 0.5, epochs=0, **QUIET)
    kernel, given = kernel_of(pruned, "b"), kernel_of(model, "b")
    kept = kernel != 0
    assert kept.sum() == 100
    np.testing.assert_array_equal(kernel[kept], given[kept])
    assert np.abs(given[~kept]).max() <= np.abs(given[kept]).min()


def own_loss(y, outputs):
    return keras.losses.sparse_categorical_crossentropy(y, outputs)


def test_a_loss_that_keras_cannot_copy():
    model = make_model(run_eagerly=EAGER)
    model.compile("sgd", own_loss, run_eagerly=EAGER)
    assert prune(model, (X, Y), 0.5, 1, **QUIET).loss is own_loss


def test_chosen_layers():
    model = make_model()
    pruned = prune(model, (X, Y), 0.5, 0, layers=["b", "o*"], **QUIET)
    assert [zeros(pruned, name) for name in ("a", "b", "out")] == [0, 100, 15]


def every_kind():
    """Convolutions, recurrence, attention, a nested model, a table of words."""
    ids = keras.Input((6,), dtype="int32")
    x = L.Embedding(10, 8, name="words")(ids)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = L.Conv1D(6, 3, name="conv")(x)
    x = L.SeparableConv1D(6, 2, name="separable")(x)
    x = L.DepthwiseConv1D(2, name="depthwise")(x)
    x = L.LSTM(5, name="memory")(x)
    inner = keras.Sequential([keras.Input((5,)), L.Dense(4, name="inner_dense")], name="inner")
    return keras.Model(ids, L.Dense(3, "softmax", name="out")(inner(x)))


def test_every_kind_of_kernel():
    model = every_kind()
    x = rng.integers(0, 10, (8, 6))
    pruned = prune(model, x, 0.5, 0, **QUIET)
    shares = {
        weight.path.removeprefix("functional/"): float(np.mean(value_of(weight) == 0))
        for weight in pruned.weights
        if len(weight.shape) > 1
    }
    assert shares["words/embeddings"] == 0 and shares["depthwise/kernel"] == 0
    for part in ("attention/query/kernel", "conv/kernel", "separable/pointwise_kernel"):
        assert shares[part] == 0.5, part
    lstm = [share for path, share in shares.items() if "recurrent_kernel" in path]
    inner = [share for path, share in shares.items() if "inner_dense/kernel" in path]
    assert lstm == [0.5] and inner == [0.5]
    words = prune(model, x, 0.5, 0, layers=["words"], **QUIET)
    assert np.mean(value_of(words.get_layer("words").weights[0]) == 0) == 0.5


def test_receipt():
    model = make_model(run_eagerly=EAGER)
    pruned = prune(model, (X, Y), 0.8, 1, validation_data=(X[:30] + 1, Y[:30]), **QUIET)
    receipt = pruned.receipt
    assert receipt.action == "prune" and receipt.score_rows == 30
    assert receipt.after.zero_params >= 280
    assert receipt.after.params == receipt.before.params
    assert "Zeros alone give no speed" in str(receipt)
    assert "0.8 of each kernel of 3 layers" in str(receipt)


def test_data_sets_and_uncompiled_models():
    model = bz.models.mlp(6, (16,), num_outputs=3, task="multiclass")
    data = bz.data.arrays(X, Y, batch_size=16, class_names=("p", "q", "r"))
    pruned = prune(model, data, epochs=1, **QUIET)
    assert zeros(pruned, "hidden1") == 77 and pruned.class_names == ("p", "q", "r")
    assert not model.compiled


class Subclassed(keras.Model):
    def call(self, x):
        return x


def no_kernels():
    return keras.Sequential([keras.Input((6,)), L.BatchNormalization()])


BAD = [
    (make_model, (X, Y), {"sparsity": 0}, ValueError, "`sparsity` is 0; expected .* above 0"),
    (make_model, (X, Y), {"sparsity": 1}, ValueError, "`sparsity` is 1; expected .* below 1"),
    (make_model, (X, Y), {"sparsity": 80}, ValueError, "`sparsity` is 80"),
    (make_model, (X, Y), {"sparsity": None}, TypeError, "`sparsity` is None"),
    (make_model, (X, Y), {"schedule": "cubik"}, ValueError, "Did you mean 'cubic'"),
    (make_model, (X, Y), {"frequency": 0}, ValueError, "`frequency` is 0"),
    (make_model, (X, Y), {"epochs": 1.5}, TypeError, "`epochs` is 1.5"),
    (make_model, (X, Y), {"layers": ["c*"]}, ValueError, "`layers` is 'c\\*'; .* Known"),
    (make_model, (X, Y), {"layers": ["norm"]}, ValueError, "`layers` is .*with kernels"),
    (make_model, (X[:0], Y[:0]), {}, ValueError, "`data` has no rows"),
    (make_model, (X[:, :2], Y), {}, ValueError, "`data` doesn't fit the model 'net'"),
    (make_model, X, {}, ValueError, "`data` has no targets"),
    (no_kernels, (X, Y), {}, ValueError, "`model` is .*; expected a model with kernels"),
    (Subclassed, (X, Y), {}, ValueError, "expected a functional model or a built Sequential"),
    (lambda: keras.Sequential([L.Dense(2)]), (X, Y), {}, ValueError, "build the Sequential"),
    (lambda: 3, (X, Y), {}, TypeError, "`model` is 3; expected a keras.Model"),
]


@pytest.mark.parametrize(("make", "data", "arguments", "error", "text"), BAD)
def test_bad_input(make, data, arguments, error, text):
    with pytest.raises(error, match=text):
        prune(make(), data, **{**QUIET, **arguments})


def test_quantised_models_are_refused():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, name="q"), L.Dense(3)])
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"quantised; expected floats\. Prune first"):
        prune(model, X, 0.5, 0, **QUIET)
