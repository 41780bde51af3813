"""`finetune`: what is trained, what stays, stored features, LoRA, resuming, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.train import Stage, finetune
from bigzoo.train._blocks import dissect
from bigzoo.train._state import value_of

X, Y = bz.data.drawn_pets(24, image_size=(16, 16), seed=0)
X_VAL, Y_VAL = bz.data.drawn_pets(10, image_size=(16, 16), seed=1)
QUIET = {"verbose": 0, "seed": 0, "batch_size": 8}


def small_cnn(dropout=0.0, classifier_activation="softmax"):
    """Convolutions with normalisations, as our models have them, in a network that builds fast."""
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="preprocess")(image)
    for name in ("stem", "stage1_block0", "stage1_block1", "last"):
        x = keras.layers.Conv2D(4, 3, 2, "same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(2, classifier_activation, name="predictions")(x)
    model = keras.Model(image, x)
    pretend_trained(model)
    return model


def nested(trained_call=False):
    """A whole network as one layer, as with keras.applications."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1_conv")(image)
    x = keras.layers.BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Conv2D(4, 3, name="conv2_conv")(x)
    x = keras.layers.BatchNormalization(name="conv2_bn")(x)
    base = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="base")
    image = keras.Input((8, 8, 3))
    x = base(image, training=True) if trained_call else base(image)
    x = keras.layers.Dense(5, "relu", name="hidden")(x)
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="predictions")(x))
    pretend_trained(model)
    return model


def dense_on_pixels():
    """A nested network that LoRA can adapt, with moving statistics."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="norm0")(image)
    x = keras.layers.Dense(4, "relu", name="low")(x)
    x = keras.layers.Dense(4, "relu", name="mid")(x)
    inner = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name="inner")
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="predictions")(inner(image)))
    pretend_trained(model)
    return model


def with_attention(dropout=0.0):
    keras.utils.set_random_seed(1)
    ids = keras.Input((6,), dtype="int32", name="token_ids")
    x = keras.layers.Embedding(11, 8, name="token_embedding")(ids)
    for i in range(2):
        attended = keras.layers.MultiHeadAttention(
            2, 4, dropout=dropout, name=f"layer{i}_attention"
        )(x, x)
        x = keras.layers.LayerNormalization(name=f"layer{i}_norm")(
            keras.layers.Add()([x, attended])
        )
        x = keras.layers.Dense(8, "gelu", name=f"layer{i}_mlp")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(ids, keras.layers.Dense(2, "softmax", name="predictions")(x))


def words(pooled):
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    x = keras.layers.Embedding(11, 8, name="token_embedding")(ids)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x) if pooled else x
    return keras.Model(ids, keras.layers.Dense(2, "softmax", name="predictions")(x))


def pretend_trained(model):
    """Moving statistics that a single batch would change visibly."""
    rng = np.random.default_rng(3)
    for layer in all_norms(model):
        shape = layer.moving_mean.shape
        layer.moving_mean.assign(rng.normal(size=shape).astype("float32"))
        layer.moving_variance.assign(rng.uniform(0.5, 2, size=shape).astype("float32"))


def all_norms(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def values(weights):
    return [np.array(value_of(weight)) for weight in weights]


def changed(model, before):
    """Names of the weights that differ from `before`."""
    now = values(model.weights)
    pairs = zip(model.weights, before, now, strict=True)
    return {weight.path for weight, old, new in pairs if not np.array_equal(old, new)}


def statistics(model):
    return values(
        v for layer in all_norms(model) for v in (layer.moving_mean, layer.moving_variance)
    )


def same_bits(one, other):
    pairs = list(zip(one, other, strict=True))
    return len(pairs) > 0 and all(np.array_equal(a, b) for a, b in pairs)


TEXT_X = np.random.default_rng(0).integers(0, 11, (24, 6))

# === What is trained ===


def test_the_head_alone_then_the_top():
    model = small_cnn()
    before = values(model.weights)
    finetune(model, X, Y, head_epochs=1, epochs=0, **QUIET)
    assert changed(model, before) == {"predictions/kernel", "predictions/bias"}
    history = finetune(model, X, Y, head_epochs=1, epochs=2, unfreeze=1, **QUIET)
    assert changed(model, before) == {"predictions/kernel", "predictions/bias", "last_conv/kernel"}
    assert history.epoch == [0, 1, 2]
    assert len(history.history["loss"]) == 3
    assert [stage.epochs for stage in history.stages] == [1, 2]
    assert history.interrupted is None


@pytest.mark.parametrize(
    ("make", "cache"),
    [(small_cnn, "auto"), (nested, False), (lambda: nested(trained_call=True), "auto")],
)
def test_moving_statistics_stay_bit_for_bit(make, cache):
    model = make()
    before, weights = statistics(model), values(model.weights)
    x = X[:, : model.input_shape[1], : model.input_shape[2]]
    settings = {"unfreeze": "all", "cache_features": cache, **QUIET}
    finetune(model, x, Y, head_epochs=1, epochs=2, **settings)
    assert same_bits(statistics(model), before)
    kernels = {v.path for v in model.weights if "conv" in v.path and v.path.endswith("kernel")}
    assert kernels <= changed(model, weights)


def test_the_comparison_of_statistics_sees_a_training_in_the_usual_way():
    model = nested()
    before = statistics(model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X[:, :8, :8], Y, verbose=0)
    assert not same_bits(statistics(model), before)


def test_flags_are_those_of_the_last_stage():
    model = nested()
    x = X[:, :8, :8]
    finetune(model, x, Y, stages=[{"epochs": 1, "unfreeze": ["conv2_*"]}], **QUIET)
    base = model.get_layer("base")
    flags = {layer.name: layer.trainable for layer in base.layers if layer.weights}
    assert flags == {
        "conv1_conv": False, "conv1_bn": False, "conv2_conv": True, "conv2_bn": False
    }  # fmt: skip
    assert {v.path for v in model.trainable_weights} == {
        "conv2_conv/kernel",
        "conv2_conv/bias",
        "hidden/kernel",
        "hidden/bias",
        "predictions/kernel",
        "predictions/bias",
    }


# === Head and blocks ===


def names(units):
    return [unit.path for unit in units]


def test_parts_of_a_network():
    found = dissect(bz.models.cnn((16, 16, 3), num_classes=2))
    assert names(found.head) == ["predictions"]
    assert [names(block)[-1] for block in found.blocks] == [
        "last_conv",
        "stage3_block1_1_conv",
        "stage3_in_conv",
        "stage2_block1_1_conv",
        "stage2_in_conv",
        "stage1_block1_1_conv",
        "stage1_in_conv",
        "stem_conv",
    ]
    inside = dissect(nested())
    assert names(inside.head) == ["hidden", "predictions"]
    assert [names(block) for block in inside.blocks] == [
        ["base/conv2_bn", "base/conv2_conv"],
        ["base/conv1_bn", "base/conv1_conv"],
    ]
    text = dissect(with_attention())
    assert [len(block) for block in text.blocks] == [3, 3, 1]
    assert names(dissect(nested(), head=["predictions"]).head) == ["predictions"]


def test_parts_of_models_in_other_forms():
    sequential = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="one"),
            keras.layers.Dense(3, name="two"),
            keras.layers.Dropout(0.5),
            keras.layers.Activation("softmax"),
        ]
    )
    found = dissect(sequential)
    assert names(found.head) == ["two"]
    assert [names(block) for block in found.blocks] == [["one"]]
    x = keras.Input((4,))
    body = keras.layers.Dense(3, name="body")(x)
    a, b = keras.layers.Dense(1, name="a")(body), keras.layers.Dense(1, name="b")(body)
    found = dissect(keras.Model(x, [a, keras.ops.exp(b)]))
    assert set(names(found.head)) == {"a", "b"}
    whole = keras.Model(x, keras.layers.Softmax()(keras.Model(x, a, name="inner")(x)))
    assert names(dissect(whole).head) == ["inner/a"]
    whole = keras.Model(x, keras.Model(x, a, name="inner")(x))
    assert names(dissect(whole).head) == ["inner/a"]


def test_a_layer_that_reads_its_own_output_back_is_the_head():
    ids = keras.Input((None,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(7, 4, name="token_embedding")
    x = keras.layers.Dense(4, name="layer0_mlp")(embedding(ids))
    model = keras.Model(ids, embedding(x, reverse=True))
    found = dissect(model)
    assert names(found.head) == ["token_embedding"]
    assert [names(block) for block in found.blocks] == [["layer0_mlp"]]


# === Learning rates ===


def test_each_block_has_its_rate():
    """One step of AdamW moves each weight by at most its rate, and most of them by about it."""
    model = with_attention()
    before = values(model.weights)
    stage = Stage(1, "all", learning_rate=1e-2, layer_decay=0.1, warmup_steps=0)
    data = bz.data.Batches(TEXT_X, Y, batch_size=24)
    finetune(model, data, stages=[stage], weight_decay=0, verbose=0)
    moved = {
        weight.path: np.abs(new - old).max()
        for weight, old, new in zip(model.weights, before, values(model.weights), strict=True)
    }
    expected = {
        "predictions/kernel": 1e-2,
        "layer1_mlp/kernel": 1e-3,
        "layer1_attention/query/kernel": 1e-3,
        "layer0_norm/gamma": 1e-4,
        "layer0_mlp/kernel": 1e-4,
    }
    for path, rate in expected.items():
        assert moved[path] == pytest.approx(rate, rel=0.02), path


# === Stored features ===


def trained(cache, dropout=0.0, x=X, **settings):
    model = small_cnn(dropout=dropout)
    data = bz.data.Batches(x, Y, batch_size=7, shuffle=True, seed=3)
    validation = bz.data.Batches(X_VAL, Y_VAL, batch_size=4)
    settings = {"head_epochs": 3, "epochs": 1, "unfreeze": 1, "verbose": 0, **settings}
    history = finetune(model, data, validation_data=validation, cache_features=cache, **settings)
    return model, history.history


def test_stored_features_change_nothing_but_the_time():
    # On torch, dropout draws from torch's own random numbers.
    dropout = 0.0 if keras.backend.backend() == "torch" else 0.3
    model, history = trained(True, dropout)
    whole, log = trained(False, dropout)
    untrained = small_cnn(dropout)
    for got, wanted in zip(values(model.weights), values(whole.weights), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)
    for name in log:
        np.testing.assert_allclose(history[name], log[name], atol=1e-4)
    kernels = [values([one.get_layer("predictions").kernel])[0] for one in (whole, untrained)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # there was something to compare


def test_auto_stores_what_can_be_stored(monkeypatch):
    found = []

    def fake_fit(model, *data, **settings):
        found.append(model)
        history = keras.callbacks.History()
        history.epoch, history.interrupted = [], None
        return history

    monkeypatch.setattr("bigzoo.train._finetune_stage.fit", fake_fit)

    def is_stored(model, x, y=None, **more):
        settings = {"verbose": 0, "head_epochs": 1, "epochs": 0, "check": False, **more}
        finetune(model, x, y, **settings)
        return found[-1] is not model

    augmented = bz.data.Batches(X, Y, augment=lambda x, y, rng: (x, y))
    assert is_stored(small_cnn(), X, Y)
    assert is_stored(small_cnn(dropout=0.5), bz.data.Batches(X, Y))
    assert not is_stored(small_cnn(), X, Y, cache_features=False)
    assert not is_stored(small_cnn(), augmented)
    assert not is_stored(small_cnn(), X, Y, callbacks=keras.callbacks.LambdaCallback())
    assert is_stored(small_cnn(), X, Y, callbacks=keras.callbacks.EarlyStopping("loss"))
    assert is_stored(nested(), X[:, :8, :8], Y, validation_data=(X_VAL[:, :8, :8], Y_VAL))
    assert not is_stored(with_attention(dropout=0.1), TEXT_X, Y)
    assert is_stored(with_attention(), TEXT_X, Y)
    texts, labels = ["a b", "a b c d e"] * 4, [0, 1] * 4
    tok = bz.data.text.Tokenizer.train(texts)
    settings = {"tokenizer": tok, "inputs": "token_ids", "buckets": (3, 6), "batch_size": 1}
    batches = bz.data.text.TextBatches(texts, labels, **settings)
    assert is_stored(words(pooled=True), batches)
    assert not is_stored(words(pooled=False), batches)  # features of different lengths
    monkeypatch.setattr("bigzoo.train._stored_features.available_bytes", lambda: 100)
    assert not is_stored(small_cnn(), X, Y)
    assert is_stored(small_cnn(), X, Y, cache_features=True)


@pytest.mark.parametrize(
    ("make", "data", "text"),
    [
        (small_cnn, bz.data.Batches(X, Y, augment=lambda x, y, rng: (x, y)), "are augmented"),
        (lambda: with_attention(0.1), bz.data.Batches(TEXT_X, Y), "is random in training"),
        (
            lambda: keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, "softmax")]),
            bz.data.Batches(TEXT_X.astype("float32"), Y),
            "no frozen layer lies below the head",
        ),
    ],
)
def test_features_that_cannot_be_stored(make, data, text):
    with pytest.raises(ValueError, match=f"`cache_features` is True, but .*{text}"):
        finetune(make(), data, cache_features=True, head_epochs=1, epochs=0, verbose=0)


# === LoRA ===


def test_lora_trains_a_low_rank_update_and_leaves_a_plain_model():
    model = with_attention()
    before, paths = values(model.weights), [weight.path for weight in model.weights]
    stage = Stage(2, ["layer1_*"], learning_rate=1e-2)
    finetune(model, TEXT_X, Y, stages=[stage], lora=2, **QUIET)
    assert [weight.path for weight in model.weights] == paths
    kernels = {
        "layer1_mlp/kernel",
        *(f"layer1_attention/{n}/kernel" for n in ("query", "key", "value", "attention_output")),
    }
    assert changed(model, before) == kernels | {"predictions/kernel", "predictions/bias"}
    place = paths.index("layer1_mlp/kernel")
    update = values(model.weights)[place] - before[place]
    assert np.linalg.matrix_rank(update, tol=1e-5) == 2


def test_merged_lora_gives_the_same_outputs():
    model = with_attention()
    for layer in (model.get_layer("layer0_mlp"), model.get_layer("token_embedding")):
        layer.enable_lora(2, lora_alpha=6)
    model.get_layer("layer1_attention").query_dense.enable_lora(3)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora" in weight.path:
            weight.assign(rng.normal(size=weight.shape).astype("float32") * 0.3)
    plain = bz.train.merge_lora(model)
    assert plain.count_params() == with_attention().count_params() < model.count_params()
    got, wanted = plain.predict(TEXT_X, verbose=0), model.predict(TEXT_X, verbose=0)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(with_attention().predict(TEXT_X, verbose=0) - wanted).max() > 1e-3
    assert not plain.get_layer("layer0_mlp").get_config().get("lora_rank")


def test_lora_in_a_nested_model_keeps_statistics():
    model = dense_on_pixels()
    before, weights = statistics(model), values(model.weights)
    x = X[:, :8, :8] / 255
    finetune(model, x, Y, head_epochs=1, epochs=2, lora=1, check=False, **QUIET)
    assert same_bits(statistics(model), before)
    assert changed(model, weights) == {
        "low/kernel", "mid/kernel", "predictions/kernel", "predictions/bias"
    }  # fmt: skip


# === Afterwards ===


def test_the_model_loads_in_plain_keras_and_trains_on(tmp_path, run_python):
    model = small_cnn()
    finetune(model, X, Y, head_epochs=1, epochs=1, **QUIET)
    assert type(model.optimizer).__name__ == "AdamW"
    assert model.optimizer.__class__.__module__.startswith("keras.")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X[:4])
    np.save(tmp_path / "y.npy", model.predict(X[:4], verbose=0))
    code = f"""
import keras, numpy as np, sys
folder = {str(tmp_path)!r}
model = keras.models.load_model(folder + "/model.keras")
got = model.predict(np.load(folder + "/x.npy"), verbose=0)
print(np.abs(got - np.load(folder + "/y.npy")).max() < 1e-5, "bigzoo" in sys.modules)
"""
    assert run_python(code, backend=keras.backend.backend()).split()[-2:] == ["True", "False"]
    log = bz.fit(model, X, Y, epochs=1, verbose=0)
    assert np.isfinite(log.history["loss"]).all()


def test_loss_and_metrics_of_a_compiled_model_are_kept():
    model = small_cnn(classifier_activation=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(1)])
    history = finetune(model, X, Y, head_epochs=1, epochs=1, **QUIET)
    assert {"loss", "accuracy", "sparse_top_k_categorical_accuracy"} <= set(history.history)
    assert model.loss.from_logits
    other = small_cnn(classifier_activation=None)
    finetune(other, X, np.eye(2)[Y], loss="mse", metrics=[], head_epochs=1, epochs=0, **QUIET)
    assert other.loss == "mse"


def test_class_names_of_the_data_stay_on_the_model():
    model = small_cnn()
    data = bz.data.Batches(X, Y, class_names=("cat", "dog"))
    finetune(model, data, head_epochs=1, epochs=0, verbose=0)
    assert model.class_names == ("cat", "dog")


def test_other_models_of_the_same_layers_are_not_disturbed(tmp_path):
    """Storing features takes the model apart; nothing of that must stay."""
    model = small_cnn()
    config = model.get_config()
    finetune(model, X, Y, head_epochs=1, epochs=0, cache_features=True, **QUIET)
    features = keras.Model(model.input, model.get_layer("global_pool").output)
    assert features.predict(X[:2], verbose=0).shape == (2, 4)
    again = keras.Model.from_config(model.get_config())
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    for entry in (config, finetuned := model.get_config()):
        for layer in entry["layers"]:
            layer["config"].pop("trainable", None)
    assert config["layers"] == finetuned["layers"]


# === Resume ===


class Stop(keras.callbacks.Callback):
    """Ends the program, as a crash would, in the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place = epoch, batch
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) >= self.place:
            raise KeyboardInterrupt


@pytest.mark.parametrize("lora", [None, 2])
def test_a_crash_in_the_second_stage_is_made_good(tmp_path, lora, monkeypatch):
    monkeypatch.setattr("bigzoo.train._resume.MAX_SHARE", 1e9)

    def run(folder, *callbacks):
        model = dense_on_pixels()
        history = finetune(
            model,
            X[:, :8, :8] / 255,
            Y,
            stages=[Stage(1, "head", 1e-2), Stage(2, "top", 1e-2)],
            lora=lora,
            resume=folder,
            cache_features=False,
            check=False,
            callbacks=list(callbacks),
            **QUIET,
        )
        return values(model.weights), history

    whole, history = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Stop(2, 1))
    assert (tmp_path / "cut" / "stage2" / "checkpoint.npz").exists()
    assert not (tmp_path / "cut" / "stage1_features").exists()
    resumed, log = run(tmp_path / "cut")
    assert same_bits(resumed, whole)
    assert log.epoch == history.epoch == [0, 1, 2]
    assert log.history == history.history


# === Bad input ===


def never_built():
    return keras.Sequential([keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"unfreeze": "botom"}, ValueError, "`unfreeze` is 'botom'; .*Patterns of layer names go"),
        ({"unfreeze": "top3"}, ValueError, "Did you mean 'top'"),
        ({"unfreeze": 9}, ValueError, "at most 4. The model has 4 blocks below its head"),
        ({"unfreeze": 1.5}, TypeError, "`unfreeze` is 1.5; expected an integer"),
        (
            {"unfreeze": ["stem_cnv"]},
            ValueError,
            "`unfreeze` is 'stem_cnv'; .*Did you mean 'stem_conv'",
        ),
        ({"unfreeze": [3]}, TypeError, "a pattern of layer names, a str"),
        ({"head": ["nothing"]}, ValueError, "`head` is 'nothing'; expected the name of a layer"),
        ({"epochs": 0, "head_epochs": 0}, ValueError, "at least 1 where head_epochs is 0"),
        ({"epochs": -1}, ValueError, "`epochs` is -1"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` is 0; .*above 0"),
        ({"head_learning_rate": -1}, ValueError, "`head_learning_rate` is -1"),
        ({"layer_decay": 1.5}, ValueError, "`layer_decay` is 1.5; .*at most 1"),
        ({"warmup_steps": -1}, ValueError, "`warmup_steps` is -1"),
        ({"weight_decay": -0.1}, ValueError, "`weight_decay` is -0.1"),
        ({"lora": 0}, ValueError, "`lora` is 0; expected an integer at least 1"),
        ({"lora": 2, "epochs": 0}, ValueError, "None where only the head is trained"),
        ({"lora": 2}, ValueError, "layers of which at least one is Dense, EinsumDense"),
        ({"cache_features": "yes"}, ValueError, "`cache_features` is 'yes'"),
        ({"cache_features": 1}, TypeError, "`cache_features` is 1"),
        ({"stages": []}, ValueError, "at least one stage"),
        ({"stages": {"epochs": 1}}, TypeError, "a list of bz.train.Stage or of dicts"),
        ({"stages": [{"epoch": 1}]}, ValueError, "Did you mean 'epochs'"),
        ({"stages": [{"unfreeze": 1}]}, ValueError, "a dict with 'epochs'"),
        ({"stages": [3]}, TypeError, r"`stages\[0\]` is 3"),
        ({"stages": [Stage(0)]}, ValueError, r"`stages\[0\].epochs` is 0"),
        ({"verbose": 3}, TypeError, "`verbose` is 3"),
        ({"seed": -1}, ValueError, "`seed` is -1"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"task": "regresion"}, ValueError, "Did you mean 'regression'"),
        ({"data": iter([(X, Y)])}, TypeError, "a data set that can be read again"),
        ({"data": "pets/"}, TypeError, "`x` is 'pets/'"),
        ({"y": np.full(24, 7)}, ValueError, "7"),
        ({"model": "resnet"}, TypeError, "`model` is 'resnet'; expected a keras.Model"),
        ({"model": never_built()}, ValueError, "whose graph of layers is known"),
    ],
)
def test_bad_input_leaves_the_model_as_it_was(arguments, error, text):
    model = small_cnn()
    model.get_layer("stem_conv").trainable = False
    before, flags = values(model.weights), [layer.trainable for layer in model.layers]
    settings = {"model": model, "data": X, "y": Y, "verbose": 0, **arguments}
    if "data" in arguments:
        settings["y"] = None
    with pytest.raises(error, match=text):
        finetune(settings.pop("model"), settings.pop("data"), settings.pop("y"), **settings)
    assert same_bits(values(model.weights), before)
    assert [layer.trainable for layer in model.layers] == flags


def test_a_loss_that_cannot_be_compiled_anew():
    model = small_cnn()
    model.compile("sgd", lambda y, p: keras.ops.mean(p))
    with pytest.raises(ValueError, match="Give `loss=` and `metrics=` here"):
        finetune(model, X, Y, head_epochs=1, epochs=0, **QUIET)


def test_lora_that_is_there_already():
    model = with_attention()
    model.get_layer("layer1_mlp").enable_lora(2)
    with pytest.raises(ValueError, match=r"'layer1_mlp' has LoRA already; .*merge_lora"):
        finetune(model, TEXT_X, Y, lora=2, **QUIET)
