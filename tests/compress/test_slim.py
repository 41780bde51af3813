"""`slim`: smaller, trained on, compiled as before, with a receipt; one clear message otherwise."""

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress import slim
from bigzoo.compress._rebuild import copy_with_weights
from bigzoo.compress._slim import cut
from bigzoo.compress._tune import compile_like, fresh_optimizer
from bigzoo.train._state import value_of

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(60, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64") + (X[:, 2] > 0.5)
HELD_OUT = (X[:20] + 1, Y[:20])
QUIET = {"verbose": 0, "latency": False}
# JAX compiles each operation by itself then, and so takes longer.
EAGER = keras.backend.backend() != "jax"


def make_model(**settings):
    keras.utils.set_random_seed(0)
    # Without compiling, these tests take a third of the time.
    settings = {"optimizer": keras.optimizers.SGD(0.25, momentum=0.5), **settings}
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(16, "relu", name="a"),
            L.BatchNormalization(name="norm"),
            L.Dense(12, "relu", name="b"),
            L.Dense(3, "softmax", name="out"),
        ],
        name="small_net",
    )
    model.compile(loss="sparse_categorical_crossentropy", run_eagerly=EAGER, **settings)
    return model


def bytes_of(model):
    return [value_of(weight).tobytes() for weight in model.weights]


def test_slim_is_smaller_trained_and_compiled_alike():
    model = make_model(metrics=["accuracy"])
    model.class_names = ("x", "y", "z")
    before = bytes_of(model)
    small = slim(model, (X, Y), epochs=1, validation_data=HELD_OUT, **QUIET)
    assert bytes_of(model) == before
    assert [getattr(one, "units", None) for one in small.layers] == [8, None, 6, 3]
    assert small.class_names == ("x", "y", "z")
    assert small.loss == model.loss and small.optimizer is not model.optimizer
    assert float(small.optimizer.learning_rate) == 0.25
    assert small.optimizer.momentum == 0.5
    assert int(small.optimizer.iterations) == 2
    assert set(small.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    receipt = small.receipt
    assert receipt.action == "slim" and receipt.score_name == "accuracy"
    assert receipt.score_rows == 20 and receipt.latencies == ()
    assert receipt.after.params < 0.45 * receipt.before.params
    text = str(receipt)
    assert "14 of 28 channels cut, in 2 groups (ratio 0.5)" in text
    assert "'out': it makes an output" in text and "Scores are of validation_data" in text


def test_training_is_from_the_cut_weights():
    model = make_model()
    model.fit(X, Y, epochs=10, verbose=0)
    small = slim(model, (X, Y), 0.25, epochs=5, **QUIET)
    right = np.mean(model.predict_on_batch(X).argmax(axis=1) == Y)
    assert small.receipt.before.score == pytest.approx(right)
    assert small.receipt.after.score > right - 0.1


def test_without_training():
    model = make_model()
    small = slim(model, X, epochs=0, **QUIET)
    assert "Not trained after the cut" in str(small.receipt)
    assert small.receipt.score_name == ""
    kept = np.isin(value_of(model.layers[0].weights[1]), value_of(small.layers[0].weights[1]))
    assert kept.all()
    again = slim(model, X, epochs=0, **QUIET)
    assert bytes_of(again) == bytes_of(small)


def test_uncompiled_models_and_data_sets():
    model = bz.models.mlp(6, (16,), num_outputs=3, task="multiclass")
    data = bz.data.arrays(X, Y, batch_size=16, class_names=("p", "q", "r"))
    small = slim(model, data, epochs=1, learning_rate=0.01, callbacks=_Count(), **QUIET)
    assert small.loss == "sparse_categorical_crossentropy"
    assert not model.compiled
    assert "the training data" in str(small.receipt)
    assert small.class_names == ("p", "q", "r")
    assert _Count.epochs == 1


class _Count(keras.callbacks.Callback):
    epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        _Count.epochs += 1


def own_loss(y, outputs):
    return keras.losses.sparse_categorical_crossentropy(y, outputs)


def test_settings_are_taken_over():
    model = make_model()
    model.compile("adam", own_loss, metrics=[keras.metrics.MeanSquaredError("own")])
    made = copy_with_weights(model)
    compile_like(model, made, 0.003)
    assert made.loss is own_loss
    assert float(made.optimizer.learning_rate) == pytest.approx(0.003)
    model = bz.models.mlp(6, (16,), num_outputs=3, task="multiclass")
    bz.compile(model, learning_rate=0.01, verbose=False)
    made = copy_with_weights(model)
    compile_like(model, made, None)
    assert made.steps_per_execution == model.steps_per_execution
    assert made.jit_compile == model.jit_compile
    assert made.optimizer.get_config() == model.optimizer.get_config()
    compile_like(model, made, 0.5)
    rate = made.optimizer.get_config()["learning_rate"]["config"]
    assert max(rate["initial_learning_rate"], rate.get("warmup_target") or 0) == pytest.approx(0.5)


def test_targets_beside_the_data_and_several_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    x = L.Dense(8, "relu")(L.Concatenate()([a, b]))
    outputs = {"kind": L.Dense(3, "softmax", name="kind")(x), "size": L.Dense(1, name="size")(x)}
    model = keras.Model({"a": a, "b": b}, outputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    model.compile("sgd", losses, run_eagerly=EAGER)
    y = {"kind": Y, "size": X[:, :1]}
    small = slim(model, {"a": X, "b": X[:, :2]}, epochs=1, y=y, **QUIET)
    assert small.receipt.score_name == "loss"
    assert small.count_params() < model.count_params()


def own_metric(y, outputs):
    return keras.ops.mean(outputs, axis=-1)


def test_a_metric_that_keras_cannot_copy_is_named():
    model = make_model(metrics=["accuracy", own_metric])
    small = slim(model, X, epochs=0, **QUIET)
    assert any("left out: 'own_metric'" in note for note in small.receipt.notes)
    assert set(small.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "accuracy"}


def test_frozen_layers_are_trained_too_and_frozen_again():
    model = make_model()
    model.get_layer("a").trainable = False
    small = slim(model, (X, Y), epochs=1, **QUIET)
    assert "Trained although frozen: 'a'; they are frozen again." in small.receipt.notes
    layer, given = small.get_layer("a"), value_of(model.get_layer("a").kernel)
    trained = np.array(value_of(layer.kernel))
    assert not np.isin(trained, given).any()
    assert not layer.trainable and small.get_layer("b").trainable
    small.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(value_of(layer.kernel), trained)
    assert np.isin(value_of(cut(model, 0.5)[0].get_layer("a").kernel), given).all()


def test_numbers_name_no_class():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8), L.Dense(1)])
    model.compile("sgd", "mse")
    receipt = slim(model, (X, X[:, :1]), epochs=0, **QUIET).receipt
    assert receipt.difference.agreement is None and receipt.score_name == "loss"


def _adamw():
    return keras.optimizers.AdamW(bz.train.warmup_cosine(0.1), weight_decay=0.5)


@pytest.mark.parametrize(
    "optimizer",
    [
        _adamw,
        # Outside of a compiled step, Keras' loss scaling fails on JAX.
        pytest.param(
            lambda: keras.optimizers.LossScaleOptimizer(_adamw()), marks=pytest.mark.tensorflow
        ),
    ],
)
def test_weight_decay_leaves_biases_alone(optimizer):
    model = make_model(optimizer=optimizer())
    made = fresh_optimizer(model)
    weights = [keras.Variable(np.ones(2), name=name) for name in ("kernel", "bias")]
    made.build(weights)
    made.apply([keras.ops.zeros(2), keras.ops.zeros(2)], weights)
    kernel, bias = (value_of(weight)[0] for weight in weights)
    assert kernel < 1 and bias == 1


class OwnCall(keras.Model):
    def call(self, x):
        return 2 * super().call(x)


class OwnStep(keras.Model):
    def train_step(self, *given):
        return super().train_step(*given)


def graph(kind):
    x = keras.Input((6,))
    return kind(x, L.Dense(3, "softmax")(L.Dense(8)(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        return self.dense(x)


def only_outputs():
    return keras.Sequential([keras.Input((6,)), L.Dense(3, name="only")])


def only_recurrent():
    return keras.Sequential(
        [keras.Input((4, 6)), L.LSTM(8, name="memory"), L.Dense(3, "softmax", name="out")]
    )


def diverged():
    model = make_model()
    model.layers[0].set_weights([np.full((6, 16), np.nan), np.zeros(16)])
    return model


BAD = [
    (make_model, (X, Y), {"ratio": 0}, ValueError, "`ratio` is 0; expected .* above 0"),
    (make_model, (X, Y), {"ratio": 1.0}, ValueError, "`ratio` is 1.0; expected .* below 1"),
    (make_model, (X, Y), {"ratio": "half"}, TypeError, "`ratio` is 'half'"),
    (make_model, (X, Y), {"epochs": -1}, ValueError, "`epochs` is -1"),
    (make_model, (X, Y), {"batch_size": 0}, ValueError, "`batch_size` is 0"),
    (make_model, (X, Y), {"learning_rate": 0}, ValueError, "`learning_rate` is 0"),
    (make_model, (X, Y), {"seed": -1}, ValueError, "`seed` is -1"),
    (make_model, (X, Y), {"latency": 1}, TypeError, "`latency` is 1"),
    (make_model, (X[:0], Y[:0]), {}, ValueError, "`data` has no rows"),
    (make_model, (X, Y[:9]), {}, ValueError, "`data` has arrays of 9 and 60 rows"),
    (make_model, (X[:, :4], Y), {}, ValueError, "`data` doesn't fit the model 'small_net'"),
    (make_model, X, {}, ValueError, "`data` has no targets; .*epochs=0"),
    (make_model, (X, Y), {"y": Y}, ValueError, "`y` is .* Leave `y` out"),
    (make_model, None, {}, TypeError, "`data` is None"),
    (
        make_model,
        (X, Y),
        {"validation_data": (X[:, :2], Y)},
        ValueError,
        "`validation_data` doesn't fit the model",
    ),
    (make_model, (X, Y), {"ratio": 0.01}, ValueError, "no channels that can be cut by .* 0.01"),
    (lambda: "model", (X, Y), {}, TypeError, "`model` is 'model'; expected a keras.Model"),
    (Subclassed, (X, Y), {}, ValueError, "expected a functional model or a built Sequential"),
    (lambda: keras.Sequential([L.Dense(2)]), (X, Y), {}, ValueError, "build the Sequential"),
    (only_outputs, (X, Y), {}, ValueError, "no channels .*'only': it makes an output"),
    (
        only_recurrent,
        (np.zeros((5, 4, 6), "float32"), Y[:5]),
        {},
        ValueError,
        "'memory': 'memory' is recurrent; .* Expected layers such as Conv2D",
    ),
    (lambda: graph(OwnCall), (X, Y), {}, ValueError, "OwnCall, which has a `call` of its own"),
    (lambda: graph(OwnStep), (X, Y), {}, ValueError, "has a `train_step` of its own.*epochs=0"),
    (make_model, (X, Y), {"validation_data": X}, ValueError, "`validation_data` has no targets"),
    (diverged, (X, Y), {}, ValueError, "weights that are NaN or infinite"),
]


@pytest.mark.parametrize(("make", "data", "arguments", "error", "text"), BAD)
def test_bad_input(make, data, arguments, error, text):
    with pytest.raises(error, match=text):
        slim(make(), data, **{**QUIET, **arguments})


@pytest.mark.large
def test_the_receipt_measures():
    small = slim(make_model(), (X, Y), epochs=1, verbose=0)
    assert [one.batch_size for one in small.receipt.latencies] == [1, 32]
    assert small.receipt.after.flops < small.receipt.before.flops
