"""Loss, metrics and optimizer that follow from the model, and the errors where they can't."""

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train import warmup_cosine
from bigzoo.train._schedule import extend, schedule_of

L = keras.layers


def dense(units, activation=None, hidden=True):
    layers = [keras.Input((4,))]
    if hidden:
        layers.append(L.Dense(8, activation="relu"))
    return keras.Sequential([*layers, L.Dense(units, activation=activation)])


def conv(norm=True, units=2):
    layers = [keras.Input((8, 8, 3)), L.Conv2D(4, 3, strides=2)]
    if norm:
        layers.append(L.BatchNormalization())
    return keras.Sequential([*layers, L.Flatten(), L.Dense(units, activation="softmax")])


def labels(task, units, n=20):
    rng = np.random.default_rng(0)
    if task == "multiclass":
        return rng.integers(0, units, n)
    if task in ("binary", "multilabel"):
        return rng.integers(0, 2, (n, units)).astype("float32")
    return rng.normal(size=(n, units)).astype("float32")


CE, BCE = "sparse_categorical_crossentropy", "binary_crossentropy"


@pytest.mark.parametrize(
    ("units", "activation", "task", "loss", "from_logits", "metrics", "targets"),
    [
        (3, "softmax", None, CE, False, ["accuracy"], "multiclass"),
        (3, "softmax", "multiclass", CE, False, ["accuracy"], "multiclass"),
        (2, "softmax", "binary", CE, False, ["accuracy"], "multiclass"),
        (1, "sigmoid", None, BCE, False, ["accuracy"], "binary"),
        (1, "sigmoid", "binary", BCE, False, ["accuracy"], "binary"),
        (1, "sigmoid", "multilabel", BCE, False, ["binary_accuracy", "auc"], "multilabel"),
        (4, "sigmoid", None, BCE, False, ["binary_accuracy", "auc"], "multilabel"),
        (4, "sigmoid", "multilabel", BCE, False, ["binary_accuracy", "auc"], "multilabel"),
        (1, None, None, "mse", False, ["mae"], "regression"),
        (3, None, None, "mse", False, ["mae"], "regression"),
        (1, "softplus", "regression", "mse", False, ["mae"], "regression"),
        (1, None, "binary", BCE, True, ["accuracy"], "binary"),
        (2, None, "binary", CE, True, ["accuracy"], "multiclass"),
        (3, None, "multiclass", CE, True, ["accuracy"], "multiclass"),
        (3, None, "multilabel", BCE, True, ["binary_accuracy", "auc"], "multilabel"),
    ],
)
def test_loss_and_metrics(units, activation, task, loss, from_logits, metrics, targets):
    model = dense(units, activation)
    assert bz.compile(model, task, speed="keras", verbose=False) is model
    name = model.loss if isinstance(model.loss, str) else model.loss.name
    assert name == loss
    config = {} if isinstance(model.loss, str) else model.loss.get_config()
    assert config.get("from_logits", False) == from_logits
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    result = model.evaluate(x, labels(targets, units), verbose=0, return_dict=True)
    assert sorted(result) == sorted(["loss", *metrics])
    assert all(np.isfinite(value) for value in result.values())


@pytest.mark.parametrize(("task", "units"), [("binary", 1), ("multilabel", 3)])
def test_accuracy_of_logits_has_its_threshold_at_zero(task, units):
    """A logit of 0.2 means class 1; with the usual threshold of 0.5 it would count as class 0."""
    model = keras.Sequential([keras.Input((units,)), L.Dense(units, kernel_initializer="identity")])
    bz.compile(model, task, speed="keras", verbose=False)
    x = np.full((6, units), 0.2, "float32")
    result = model.evaluate(x, np.ones((6, units)), verbose=0, return_dict=True)
    assert result["accuracy" if task == "binary" else "binary_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("units", "activation", "task", "text"),
    [
        (3, "softmax", "binary", r"expected Dense\(1, activation='sigmoid'\)"),
        (3, "softmax", "multilabel", r"expected Dense\(n, activation='sigmoid'\)"),
        (3, "softmax", "regression", r"expected Dense\(n\) without.*use task='multiclass'"),
        (1, "softmax", None, r"softmax of one unit is always 1. Use Dense\(1, activation='sigm"),
        (1, "softmax", "binary", "softmax of one unit is always 1"),
        (1, "sigmoid", "multiclass", r"Dense\(k, activation='softmax'\).*or use task='binary'"),
        (1, "sigmoid", "regression", "or give loss='mse'"),
        (4, "sigmoid", "binary", r"sigmoid with 4 units; expected Dense\(1.*task='multilabel'"),
        (4, "sigmoid", "multiclass", "activation='softmax'"),
        (1, None, "multiclass", r"linear with 1 unit; expected Dense\(k\)"),
        (3, None, "binary", r"linear with 3 units; expected Dense\(1\)"),
        (2, "relu", None, "is 'relu with 2 units'; expected a softmax, sigmoid or linear output"),
        (2, "tanh", "binary", "expected probabilities or logits for task='binary'"),
        (2, None, "classification", "`task` is 'classification'; expected a known name"),
        (2, None, "multi_class", "Did you mean 'multiclass'"),
    ],
)
def test_contradictions(units, activation, task, text):
    model = dense(units, activation)
    with pytest.raises(ValueError, match=text):
        bz.compile(model, task)
    assert not model.compiled


def test_a_subclassed_model_needs_to_be_told():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(ValueError, match=r"Give task='regression', or loss="):
        bz.compile(Own())
    model = bz.compile(Own(), loss="mse", verbose=False)
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"), verbose=0)
    assert bz.compile(Own(), "regression", verbose=False).loss == "mse"


def two_outputs():
    inputs = keras.Input((4,))
    outputs = [L.Dense(1, name="price")(inputs), L.Dense(3, "softmax", name="kind")(inputs)]
    return keras.Model(inputs, outputs)


def test_several_outputs(capsys):
    model = bz.compile(two_outputs(), loss_weights={"price": 0.5, "kind": 1.0}, speed="keras")
    assert model.loss == {"price": "mse", "kind": CE}
    x = np.ones((8, 4), "float32")
    y = {"price": np.ones((8, 1), "float32"), "kind": np.zeros(8, "int64")}
    history = model.fit(x, y, verbose=0).history
    assert {"price_mae", "kind_accuracy"} <= set(history)
    line = capsys.readouterr().out
    assert "price: regression (linear, 1 unit): mse + mae" in line
    assert line.count("\n") == 1
    bz.compile(two_outputs(), {"price": "regression"}, verbose=False)
    with pytest.raises(ValueError, match=r"`task` is 'cost'.* Known: 'kind', 'price'"):
        bz.compile(two_outputs(), {"cost": "regression"})


def test_a_dict_of_outputs():
    inputs = keras.Input((4,))
    outputs = {"a": L.Dense(1, name="x1")(inputs), "b": L.Dense(2, "softmax", name="x2")(inputs)}
    model = bz.compile(keras.Model(inputs, outputs), speed="keras", verbose=False)
    y = {"a": np.ones((8, 1), "float32"), "b": np.zeros(8, "int64")}
    assert "b_accuracy" in model.fit(np.ones((8, 4), "float32"), y, verbose=0).history


def test_what_is_given_is_passed_through():
    model = dense(3, "softmax")
    optimizer = keras.optimizers.SGD(0.5)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    metrics = [keras.metrics.TopKCategoricalAccuracy(k=2)]
    bz.compile(model, None, optimizer, None, loss, metrics, "keras", verbose=False)
    assert model.optimizer is optimizer
    assert model.loss is loss
    config = model.get_compile_config()
    assert config["optimizer"]["config"]["learning_rate"] == pytest.approx(0.5)
    assert config["metrics"][0]["class_name"] == "TopKCategoricalAccuracy"


@pytest.mark.parametrize(
    ("units", "activation", "loss", "metric"),
    [
        (3, "softmax", "categorical_crossentropy", "accuracy"),
        (3, "softmax", "sparse_categorical_crossentropy", "accuracy"),
        (1, "sigmoid", "mse", "accuracy"),
        (4, "sigmoid", "binary_focal_crossentropy", "binary_accuracy"),
        (1, None, keras.losses.BinaryCrossentropy(from_logits=True), "accuracy"),
        (1, None, "huber", "mae"),
        (1, None, "log_cosh", None),
        (1, None, lambda y, p: keras.ops.mean((y - p) ** 2), None),
    ],
)
def test_metrics_beside_a_given_loss(units, activation, loss, metric):
    model = bz.compile(dense(units, activation), loss=loss, speed="keras", verbose=False)
    y = labels("multiclass" if "sparse" in str(loss) else "multilabel", units)
    if loss == "categorical_crossentropy":
        y = np.eye(units)[np.arange(20) % units]
    result = model.evaluate(np.ones((20, 4), "float32"), y, verbose=0, return_dict=True)
    assert sorted(result) == sorted(["loss", *([metric] if metric else [])])


def test_no_metrics_and_a_single_one():
    model = bz.compile(dense(1), metrics=[], speed="keras", verbose=False)
    x = np.ones((4, 4), "float32")
    assert list(model.evaluate(x, x[:, :1], verbose=0, return_dict=True)) == ["loss"]
    model = bz.compile(dense(1), metrics="mape", speed="keras", verbose=False)
    assert len(model.evaluate(x, x[:, :1], verbose=0)) == 2


@pytest.mark.parametrize(
    ("model", "name", "peak"),
    [
        (lambda: conv(norm=True), "AdamW", 2e-3),
        (lambda: conv(norm=False), "AdamW", 1e-3),
        (lambda: dense(1), "Adam", 1e-3),
        (lambda: dense(1, hidden=False), "Adam", 0.1),
        (lambda: bz.models.linear_regression(1000), "Adam", 0.01),
        (lambda: bz.models.logistic_regression(4, 3), "Adam", 0.1),
    ],
)
def test_default_optimizers(model, name, peak):
    model = bz.compile(model(), verbose=False)
    assert type(model.optimizer).__name__ == name
    schedule = schedule_of(model)
    assert schedule.learning_rate == pytest.approx(peak)
    assert schedule.total_steps is None


def test_weight_decay_leaves_out_biases_and_normalisation():
    """With gradients of zero only weight decay moves the weights."""
    model = bz.compile(conv(), learning_rate=0.1, speed="keras", verbose=False)
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        decayed = float(keras.ops.min(variable)) < 1
        assert decayed == (variable.name == "kernel"), variable.path


def test_learning_rates():
    model = bz.compile(dense(1), learning_rate=0.02, verbose=False)
    assert schedule_of(model).learning_rate == 0.02
    model = bz.compile(dense(1), optimizer="sgd", learning_rate=0.3, verbose=False)
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.3)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    for optimizer in (None, "adam"):
        model = bz.compile(dense(1), optimizer=optimizer, learning_rate=schedule, verbose=False)
        assert schedule_of(model) is None
        config = model.optimizer.get_config()["learning_rate"]
        assert config["class_name"] == "CosineDecay"
    model = bz.compile(dense(1), learning_rate=warmup_cosine(0.5, 3), verbose=False)
    assert schedule_of(model).warmup_steps == 3
    bz.compile(dense(1), learning_rate=np.float32(0.1), verbose=False)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": 3}, TypeError, r"`model` is 3; expected a keras\.Model"),
        ({"task": 1}, TypeError, "`task` is 1; expected None, a name"),
        ({"optimizer": "adamm"}, ValueError, "`optimizer` is 'adamm'.*Did you mean 'adam'"),
        ({"optimizer": 3}, TypeError, "`optimizer` is 3; expected None, a name"),
        ({"optimizer": keras.optimizers.Adam}, TypeError, r"Make an object of it: Adam\(\)"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` is 0; expected a finite number"),
        ({"learning_rate": -0.1}, ValueError, "Common values lie between"),
        ({"learning_rate": float("nan")}, ValueError, "`learning_rate` is nan"),
        ({"learning_rate": float("inf")}, ValueError, "`learning_rate` is inf"),
        ({"learning_rate": 50}, ValueError, "`learning_rate` is 50"),
        ({"learning_rate": "big"}, TypeError, "`learning_rate` is 'big'"),
        (
            {"optimizer": keras.optimizers.SGD(), "learning_rate": 0.1},
            ValueError,
            "Give the learning rate to the optimizer object itself",
        ),
        ({"loss": "mean_squared_eror"}, ValueError, "Did you mean 'mean_squared_error'"),
        ({"loss": 3}, TypeError, "`loss` is 3"),
        ({"loss": keras.losses.MeanSquaredError}, TypeError, r"MeanSquaredError\(\)"),
        ({"metrics": ["acuracy"]}, ValueError, "knows. Did you mean 'accuracy' or 'binary_acc"),
        ({"loss": "crosentropy"}, ValueError, "Did you mean 'crossentropy'"),
        ({"loss": "accuracy"}, ValueError, "`loss` is 'accuracy'; expected a name that Keras"),
        ({"task": "adam"}, ValueError, r"`task` is 'adam'; .*'binary'.* Write optimizer=\"adam\"."),
        ({"task": "mse"}, ValueError, r"`task` is 'mse'; .* Write loss=\"mse\"."),
        ({"task": keras.optimizers.SGD()}, TypeError, r"Write optimizer=SGD\(\.\.\.\)"),
        ({"task": keras.losses.Huber()}, TypeError, r"Write loss=Huber\(\.\.\.\)"),
        ({"loss_weights": "a"}, TypeError, "`loss_weights` is 'a'; expected a list or dict of num"),
        ({"loss_weights": {"output": "a"}}, TypeError, r"`loss_weights\['output'\]` is 'a'"),
        ({"loss_weights": [1, 2]}, ValueError, "`loss_weights` has 2 entries; expected 1, one for"),
        ({"loss_weights": {"age": 1}}, ValueError, "`loss_weights` has the key 'age'; .*outputs"),
        ({"loss": {"age": "mse"}}, ValueError, "`loss` has the key 'age'; expected the names"),
        ({"metrics": {"age": ["mae"]}}, ValueError, "`metrics` has the key 'age'; expected the n"),
        ({"metrics": [keras.metrics.AUC]}, TypeError, r"Make an object of it: AUC\(\)"),
        ({"metrics": 5}, TypeError, "`metrics` is 5; expected a list of metrics"),
        ({"metrics": [5]}, TypeError, "`metrics` is 5; expected a name"),
        ({"speed": "fast"}, ValueError, "`speed` is 'fast'; expected a known name"),
        ({"speed": None}, TypeError, "`speed` is None"),
        ({"verbose": 2}, TypeError, "`verbose` is 2; expected True or False"),
    ],
)
def test_bad_input(arguments, error, text):
    model = dense(1)
    with pytest.raises(error, match=text):
        bz.compile(**{"model": model, **arguments})
    assert not model.compiled


def test_one_line_says_what_was_chosen(capsys):
    bz.compile(dense(3, "softmax"), speed="keras")
    assert capsys.readouterr().out == (
        "bigzoo.compile: multiclass (softmax, 3 units): sparse_categorical_crossentropy + accuracy;"
        " Adam, learning rate 0.001 with warm-up and cosine; jit_compile=auto,"
        " steps_per_execution=1 (as Keras does)\n"
    )
    bz.compile(dense(3), optimizer="sgd", learning_rate=0.1, loss="mse", speed="keras")
    line = capsys.readouterr().out
    assert line.startswith("bigzoo.compile: loss as given; SGD, learning rate 0.1; ")
    bz.compile(dense(3), verbose=False)
    assert capsys.readouterr().out == ""


def test_float16_gets_keras_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    model = bz.compile(dense(1), verbose=False)
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    assert schedule_of(model).learning_rate == pytest.approx(1e-3)


def test_a_compiled_model_is_saved_and_loaded_whole(tmp_path):
    model = bz.compile(conv(), verbose=False)
    model.fit(np.ones((8, 8, 8, 3), "float32"), np.zeros(8, "int64"), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.loss == model.loss
    assert schedule_of(loaded).get_config() == schedule_of(model).get_config()


def test_reaches_the_noise_floor_on_a_line():
    x, y = bz.data.linear(n=100, weights=(3.0, 2.0), noise=0.1, seed=0)
    best = bz.solve(bz.models.linear_regression(2), x, y).mse
    model = bz.compile(bz.models.linear_regression(2), verbose=False)
    extend(model, 100 * 4)
    # One call of the step for an epoch: the same updates as `fit` without its cost per epoch.
    rng = np.random.default_rng(0)
    for _ in range(100):
        for rows in np.array_split(rng.permutation(100), 4):
            model.train_on_batch(x[rows], y[rows])
    residual = float(np.mean((model.predict_on_batch(x) - y) ** 2))
    assert residual < best * 1.02
