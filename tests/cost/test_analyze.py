"""`analyze`: numbers by closed formula on every backend, and a model that is left as it was."""

import gc
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import bigzoo as bz
from bigzoo.cost import CostReport, analyze
from bigzoo.cost._optimizer import slots


def dense_model(sizes=(8, 16, 4), dtype=None):
    x = inputs = keras.Input(sizes[:1])
    for i, size in enumerate(sizes[1:]):
        x = layers.Dense(size, name=f"dense{i}", dtype=dtype)(x)
    return keras.Model(inputs, x, name="dense")


class Counted(keras.Model):
    """A subclassed model with a layer in a list and a product of its own."""

    def __init__(self):
        super().__init__(name="counted")
        self.blocks = [layers.Dense(6, name="first"), layers.Dense(6, name="second")]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return ops.matmul(x, ops.transpose(x))


# === FLOPs ===


def test_forward_flops_equal_the_closed_formula(cost_case):
    report = analyze(cost_case.build(), cost_case.batch_size, training=False)
    assert report.forward_flops == cost_case.forward_flops
    assert report.padding_flops == cost_case.padding_flops
    assert report.forward_macs * 2 == report.forward_flops
    assert report.unknown_ops == {}


def test_the_training_graph_has_the_same_forward_flops(cost_case):
    report = analyze(cost_case.build(), cost_case.batch_size)
    assert report.forward_flops == cost_case.forward_flops


def test_training_leaves_out_the_gradient_of_the_input():
    report = analyze(dense_model(), batch_size=2)
    first, second = 2 * 2 * 8 * 16, 2 * 2 * 16 * 4
    assert report.forward_flops == first + second
    assert report.training_flops == 2 * first + 3 * second


def test_frozen_layers_need_no_gradient_of_their_weights():
    model = dense_model((8, 16, 4, 2))
    first, second, third = (2 * 2 * n for n in (8 * 16, 16 * 4, 4 * 2))
    model.get_layer("dense0").trainable = False
    assert analyze(model, 2).training_flops == first + 2 * second + 3 * third
    model.get_layer("dense0").trainable = True
    model.get_layer("dense1").trainable = False
    assert analyze(model, 2).training_flops == 2 * first + 2 * second + 3 * third


def test_a_model_without_trainable_weights_has_no_backward_pass():
    model = dense_model()
    model.trainable = False
    report = analyze(model, 2)
    assert report.training_flops == report.forward_flops
    assert report.gradient_bytes == report.optimizer_bytes == 0
    assert report.trainable_params == 0


ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
no_remat = pytest.mark.skipif(ON_TENSORFLOW, reason="Keras' remat fails in TensorFlow's graphs")


@pytest.mark.tensorflow
def test_remat_on_tensorflow_is_a_clear_error():
    with keras.RematScope(mode="full"):
        model = dense_model()
    with pytest.raises(ValueError, match=r"keras.RematScope don't run in TensorFlow's graphs"):
        analyze(model, 2)


@no_remat
def test_rematerialised_layers_run_forward_again():
    plain = dense_model((8, 16, 16, 4))
    with keras.RematScope(mode="list_of_layers", layer_names=["dense1"]):
        again = dense_model((8, 16, 16, 4))
    one, two = analyze(plain, 2), analyze(again, 2)
    assert two.forward_flops == one.forward_flops
    assert two.training_flops - one.training_flops == 2 * 2 * 16 * 16


@no_remat
def test_remat_keeps_less():
    def build():
        x = inputs = keras.Input((64,))
        for i in range(4):
            x = layers.Dense(64, activation="gelu", name=f"dense{i}")(x)
        return keras.Model(inputs, x)

    plain = build()
    with keras.RematScope(mode="full"):
        again = build()
    assert analyze(again, 32).activation_bytes < 0.6 * analyze(plain, 32).activation_bytes


def test_a_shared_layer_counts_twice_but_its_weights_once():
    shared = layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, shared(shared(inputs)))
    report = analyze(model, 2)
    assert report.forward_flops == 2 * (2 * 2 * 8 * 8)
    assert report.params == 8 * 8 + 8
    (row,) = [row for row in report.layers if row.name == "shared"]
    assert (row.params, row.forward_flops) == (72, report.forward_flops)


def test_what_nothing_uses_does_not_count():
    inputs = keras.Input((8,))
    layers.Dense(1000, name="unused")(inputs)
    used = layers.Dense(2, name="used")(inputs)
    assert analyze(keras.Model(inputs, used), 1).forward_flops == 2 * 8 * 2


def test_stop_gradient_ends_the_backward_pass():
    inputs = keras.Input((8,))
    hidden = layers.Dense(16)(inputs)

    class Stop(layers.Layer):
        def call(self, x):
            return ops.stop_gradient(x)

    report = analyze(keras.Model(inputs, layers.Dense(4)(Stop()(hidden))), 2)
    # The first layer runs forward only; the second has the gradient of its weights.
    assert report.training_flops == 2 * 2 * 8 * 16 + 2 * (2 * 2 * 16 * 4)


def test_forward_flops_grow_with_the_batch():
    model = bz.models.cnn((32, 32, 3), num_classes=2)
    one, two, eight = (analyze(model, size) for size in (1, 2, 8))
    assert eight.forward_flops == 8 * one.forward_flops
    assert eight.training_flops == 8 * one.training_flops
    # Torch also keeps copies of weights, whatever the batch.
    per_sample = two.activation_bytes - one.activation_bytes
    assert eight.activation_bytes - one.activation_bytes == 7 * per_sample > 0
    assert eight.weight_bytes == one.weight_bytes


@pytest.mark.tensorflow  # elsewhere such models take long to build, and the cases above hold
@pytest.mark.parametrize(
    ("name", "gmac"),
    [
        # GMAC per image, as published; see the tables of keras.applications and the papers.
        ("VGG16", 15.470),
        ("MobileNetV2", 0.301),
        ("EfficientNetB0", 0.386),
        ("DenseNet121", 2.834),
        ("ResNet50", 3.858),
        ("MobileNet", 0.569),
    ],
)
def test_published_counts(name, gmac):
    model = getattr(keras.applications, name)(weights=None)
    report = analyze(model, 1, training=False)
    assert round(report.forward_macs / 1e9, 3) == gmac
    assert report.params == model.count_params()


# === Bytes ===


@pytest.mark.parametrize(
    ("optimizer", "arrays"),
    [
        ("sgd", 0),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 1),
        ("lion", 1),
        ("adam", 2),
        ("adamw", 2),
        (lambda: keras.optimizers.Adam(amsgrad=True), 3),
        (lambda: keras.optimizers.Adam(gradient_accumulation_steps=4), 3),
        (lambda: keras.optimizers.Adam(use_ema=True), 3),
    ],
)
def test_optimizer_slots(optimizer, arrays):
    given = optimizer if isinstance(optimizer, str) else optimizer()
    report = analyze(dense_model(), 1, optimizer=given)
    assert report.optimizer_bytes == arrays * 4 * report.trainable_params
    assert report.gradient_bytes == 4 * report.trainable_params
    assert report.weight_bytes == 4 * report.params


def test_factored_slots_equal_the_real_ones():
    model = dense_model((64, 96, 4))
    optimizer = keras.optimizers.Adafactor()
    optimizer.build(model.trainable_variables)
    real = sum(
        int(np.prod(v.shape)) * 4
        for v in optimizer.variables
        if v.path.split("/")[-1] not in ("iteration", "learning_rate")
    )
    assert slots("adafactor", model.trainable_variables).bytes == real


def test_the_users_optimizer_stays_unbuilt():
    optimizer = keras.optimizers.Adam()
    analyze(dense_model(), 1, optimizer=optimizer)
    assert not optimizer.built


def test_inference_has_no_training_figures():
    report = analyze(dense_model(), 4, training=False)
    assert not report.training and report.optimizer == ""
    for name in ("training_flops", "gradient_bytes", "optimizer_bytes"):
        assert getattr(report, name) == 0
    # Weights, inputs, and both outputs of the largest pair of layers at one time.
    assert report.peak_bytes >= report.weight_bytes + report.input_bytes + 4 * 4 * (16 + 4)


def test_peak_lies_in_its_interval_and_above_the_states():
    report = analyze(dense_model((256, 512, 4)), 64)
    states = report.weight_bytes + report.optimizer_bytes + report.input_bytes
    assert states < report.peak_low_bytes <= report.peak_bytes <= report.peak_high_bytes


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_another_dtype_as_if_built_in_it(policy):
    def build(dtype):
        x = inputs = keras.Input((32, 32, 3))
        for _ in range(3):
            x = layers.Conv2D(16, 3, padding="same", activation="relu", dtype=dtype)(x)
        return keras.Model(inputs, layers.Dense(2, dtype=dtype)(layers.Flatten(dtype=dtype)(x)))

    real = analyze(build(policy), 16)
    assumed = analyze(build("float32"), 16, dtype=policy)
    assert (assumed.dtype, real.dtype) == (policy, policy)
    assert assumed.forward_flops == real.forward_flops
    assert assumed.weight_bytes == real.weight_bytes
    assert assumed.activation_bytes == pytest.approx(real.activation_bytes, rel=0.1)
    assert assumed.activation_bytes < 0.6 * analyze(build("float32"), 16).activation_bytes


# === The report ===


def test_tallies_add_up():
    model = bz.models.cnn((32, 32, 3), num_classes=2)
    report = analyze(model, 2)
    for table in (report.layers, report.kinds):
        assert sum(row.forward_flops for row in table) == report.forward_flops
        assert sum(row.training_flops for row in table) == report.training_flops
        assert sum(row.elementwise_flops for row in table) == report.elementwise_flops
        assert sum(row.bytes_moved for row in table) == report.bytes_moved
    assert sum(row.params for row in report.layers) == report.params
    assert sum(row.activation_bytes for row in report.layers) == report.activation_bytes


def test_the_inside_of_a_subclassed_model_counts():
    model = Counted()
    report = analyze(model, 5, input_shape=(3,))
    assert report.forward_flops == 2 * 5 * (3 * 6 + 6 * 6) + 2 * 5 * 5 * 6
    assert [row.name for row in report.layers] == ["first", "second", "(outside layers)"]
    assert report.params == (3 * 6 + 6) + (6 * 6 + 6)


def test_layers_of_nested_models_have_both_names():
    inner = dense_model((8, 16, 8))
    inputs = keras.Input((8,))
    report = analyze(keras.Model(inputs, layers.Dense(2, name="head")(inner(inputs))), 1)
    assert [row.name for row in report.layers if row.forward_flops] == [
        "dense/dense0",
        "dense/dense1",
        "head",
    ]


def test_an_unknown_operation_is_listed_and_warned_about():
    class Spectrum(layers.Layer):
        def call(self, x):
            real, _ = ops.fft((x, ops.zeros_like(x)))
            return real

    inputs = keras.Input((16,))
    model = keras.Model(inputs, layers.Dense(2)(Spectrum()(inputs)), name="spectrum")
    with pytest.warns(UserWarning, match="'spectrum' uses operations that no rule knows"):
        report = analyze(model, 2)
    assert len(report.unknown_ops) == 1
    assert "fft" in next(iter(report.unknown_ops)).lower()
    assert report.forward_flops == 2 * 2 * 16 * 2


def test_several_inputs_by_name():
    one, two = keras.Input((None, 4), name="one"), keras.Input((None, 4), name="two")
    both = layers.Concatenate(axis=1)([one, two])
    model = keras.Model({"one": one, "two": two}, layers.Dense(3)(both))
    same = analyze(model, 2, input_shape=(5, 4))
    named = analyze(model, 2, input_shape={"one": (5, 4), "two": (5, 4)})
    assert same.forward_flops == named.forward_flops == 2 * 2 * 10 * 4 * 3
    assert named.input_shapes == {"one": (2, 5, 4), "two": (2, 5, 4)}


def test_how_every_figure_was_obtained():
    report = analyze(dense_model(), 1)
    assert isinstance(report, CostReport)
    for name in ("forward_flops", "training_flops", "activation_bytes", "peak_bytes"):
        assert report.how[name]
    assert report.optimizer == "Adam"


# === Nothing changes ===


def state_of(model):
    values = [np.array(ops.convert_to_numpy(v.value)) for v in model.variables]
    return values, [sorted(layer.__dict__) for layer in model.layers]


def test_the_model_is_as_it_was():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, layers.Dropout(0.5)(layers.Flatten()(x)))
    model.compile("adam", "mse")
    values, names = state_of(model)
    seed = keras.random.uniform((2,), seed=7)
    was_on = gc.isenabled()
    analyze(model, 4)
    after, names_after = state_of(model)
    for one, two in zip(values, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert names == names_after
    assert gc.isenabled() == was_on
    np.testing.assert_array_equal(seed, keras.random.uniform((2,), seed=7))


def test_layers_are_given_back_after_a_failure():
    class Broken(layers.Layer):
        fails = False

        def call(self, x):
            if self.fails:
                raise RuntimeError("this layer always fails")
            return x

    broken = Broken(name="broken")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(broken(inputs)), name="model")
    broken.fails = True
    with pytest.raises(ValueError, match=r"'model' can't be traced.*this layer always fails"):
        analyze(model, 1)
    assert not any("call" in layer.__dict__ for layer in model.layers)


def test_nothing_of_the_batchs_size_is_made():
    # 300 million activations of 4 bytes: would not fit if they were there.
    model = keras.Sequential([keras.Input((1024, 1024, 1)), layers.Conv2D(1, 3, padding="same")])
    report = analyze(model, 2**20)
    assert report.activation_bytes >= 0
    assert report.forward_flops == 2 * 2**20 * 2**20 * 9


def test_two_threads_get_the_same_numbers():
    models = [dense_model((8, 16, 4)), dense_model((8, 32, 4))]
    expected = [analyze(model, 2).forward_flops for model in models]
    found = [None, None]

    def run(i):
        found[i] = analyze(models[i], 2).forward_flops

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


class Late(keras.Model):
    """Says that it is built before its layers are."""

    def __init__(self):
        super().__init__(name="late")
        self.dense = layers.Dense(8, name="dense")

    def call(self, x):
        return self.dense(x)


def test_layers_that_are_built_late_keep_real_weights():
    model = Late()
    model.build((None, 7))
    report = analyze(model, 4)
    assert report.forward_flops == 2 * 4 * 7 * 8
    assert report.trainable_params == 64 and report.optimizer_bytes == 2 * 4 * 64
    assert model.predict(np.ones((4, 7)), verbose=0).shape == (4, 8)
    assert analyze(dense_model(), 1).params == 8 * 16 + 16 + 16 * 4 + 4


def test_a_model_that_was_called_takes_any_batch():
    model = Counted()
    model(np.ones((2, 3), "float32"))
    assert analyze(model, 5).batch_size == 5
    chain = keras.Sequential([layers.Dense(3)])
    chain(np.ones((2, 4), "float32"))
    assert analyze(chain, 7).forward_flops == 2 * 7 * 4 * 3


def test_two_threads_on_one_model_leave_nothing_behind():
    model = dense_model((8, *[16] * 20))
    threads = [threading.Thread(target=analyze, args=(model, 2)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any("call" in layer.__dict__ for layer in model.layers)
    assert gc.isenabled()


@no_remat
def test_a_model_made_in_a_remat_scope_runs_again_as_a_whole():
    plain = dense_model((8, 16, 4))
    with keras.RematScope(mode="full"):
        x = inputs = keras.Input((8,))
        again = keras.Model(inputs, layers.Dense(4)(layers.Dense(16)(x)))
    forward = analyze(plain, 2).forward_flops
    more = analyze(again, 2).training_flops - analyze(plain, 2).training_flops
    assert more == 2 * forward  # once around the model, once around each layer


@no_remat
def test_remat_of_large_outputs_only():
    def build():
        x = inputs = keras.Input((8,))
        return keras.Model(inputs, layers.Dense(4)(layers.Dense(64)(x)))

    plain = analyze(build(), 2).training_flops
    with keras.RematScope(mode="larger_than", output_size_threshold=100):
        large_only = build()
    with keras.RematScope(mode="larger_than", output_size_threshold=10**6):
        none = build()
    assert analyze(none, 2).training_flops == plain
    assert analyze(large_only, 2).training_flops == plain + 2 * 2 * 8 * 64


def test_constants_are_in_memory_and_are_not_taken_off_twice():
    table = np.ones((512, 512), "float32")

    class Products(layers.Layer):
        def call(self, x):
            y = x @ ops.convert_to_tensor(table)
            return ops.sum(ops.exp(y[:, :, None] * y[:, None, :]), axis=(1, 2))

    inputs = keras.Input((512,))
    report = analyze(keras.Model(inputs, Products()(inputs)), 4, training=False)
    cube = 4 * 512 * 512 * 4
    assert report.activation_bytes >= 2 * cube
    assert report.peak_bytes >= table.nbytes + 2 * cube


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
def test_states_in_another_dtype_equal_the_real_ones(policy):
    def build(dtype):
        x = inputs = keras.Input((64,), dtype="float32")
        x = layers.Dense(256, activation="relu", dtype=dtype)(x)
        return keras.Model(inputs, layers.Dense(128, dtype=dtype)(x))

    real, assumed = analyze(build(policy), 8), analyze(build("float32"), 8, dtype=policy)
    for name in ("weight_bytes", "optimizer_bytes", "gradient_bytes", "input_bytes"):
        assert getattr(assumed, name) == getattr(real, name), name
    assert assumed.activation_bytes == pytest.approx(real.activation_bytes, rel=0.15)
    assert assumed.peak_bytes == pytest.approx(real.peak_bytes, rel=0.1)
    back = analyze(build(policy), 8, dtype="float32")
    plain = analyze(build("float32"), 8)
    assert back.activation_bytes == pytest.approx(plain.activation_bytes, rel=0.15)


def test_muon_leaves_embeddings_to_adam():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(50, 8)(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    optimizer = keras.optimizers.Muon()
    optimizer.build(model.trainable_variables)
    real = sum(int(np.prod(v.shape)) * 4 for v in optimizer.variables if len(v.shape))
    assert slots("muon", model.trainable_variables).bytes == real


def test_layers_of_the_same_name_are_told_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Dense(4, name="d"), layers.Dense(5, name="d")

        def call(self, x):
            return self.two(self.one(x))

    rows = analyze(Twins(), 1, input_shape=(3,)).layers
    assert [(row.name, row.params) for row in rows] == [("d", 16), ("d (2)", 25)]


def test_the_policy_is_that_of_the_layers_inside():
    inner = dense_model((8, 8), dtype="mixed_bfloat16")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2, dtype="float32")(inner(inputs)))
    assert analyze(model, 1).dtype == "mixed_bfloat16"


def test_the_models_own_optimizer():
    model = dense_model()
    model.compile("sgd", "mse")
    assert analyze(model, 1, optimizer=None).optimizer == "SGD"
    assert analyze(dense_model(), 1, optimizer=None).optimizer == "Adam"


def test_analytic_memory_is_an_interval_around_the_traced():
    report = analyze(dense_model((256, 512, 4)), 64, memory="analytic")
    traced = analyze(dense_model((256, 512, 4)), 64)
    assert report.peak_method == "analytic"
    assert report.peak_low_bytes < traced.peak_bytes < report.peak_high_bytes


# === Bad input ===


class TwoArguments(keras.Model):
    def call(self, p, q):
        return p + q


OPEN = keras.Model(*[keras.Input((None, 4), name="series")] * 2, name="open")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: analyze("resnet"), TypeError, "`model` is 'resnet'; expected a keras.Model"),
        (lambda: analyze(dense_model(), 0), ValueError, "`batch_size` is 0; expected an integer"),
        (lambda: analyze(dense_model(), -2), ValueError, "at least 1"),
        (lambda: analyze(dense_model(), 2.5), TypeError, "`batch_size` is 2.5"),
        (lambda: analyze(OPEN), ValueError, r"'series' has open dimensions.*input_shape=\(64, 4\)"),
        (
            lambda: analyze(OPEN, 1, (3, 5)),
            ValueError,
            r"fits the model's input 'series', \(None, 4",
        ),
        (lambda: analyze(OPEN, 2, (2, 3, 4)), ValueError, "Leave the batch out"),
        (lambda: analyze(OPEN, 2, (0, 4)), ValueError, "at least 1"),
        (lambda: analyze(OPEN, 2, "3x4"), TypeError, "a shape without the batch"),
        (lambda: analyze(Counted()), ValueError, "has no input shape yet. Give the shape of one"),
        (lambda: analyze(keras.Sequential([layers.Dense(2)])), ValueError, "no input shape yet"),
        (lambda: analyze(dense_model(), optimizer="adamm"), ValueError, "Did you mean 'adam"),
        (lambda: analyze(dense_model(), optimizer=3), TypeError, "a name or a keras optimizer"),
        (lambda: analyze(dense_model(), dtype="float12"), ValueError, "`dtype` is 'float12'"),
        (lambda: analyze(OPEN, 1, (None, 3, 4)), ValueError, r"`input_shape` is \(None, 3, 4\)"),
        (lambda: analyze(OPEN, 1, (-5, 4)), ValueError, r"`input_shape` is \(-5, 4\)"),
        (lambda: analyze(TwoArguments(), 1, (4,)), ValueError, "with one array, or one list or"),
        (lambda: analyze(dense_model(), training="yes"), TypeError, "True or False"),
        (lambda: analyze(dense_model(), memory="exact"), ValueError, "`memory` is 'exact'"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_compiled_memory_needs_jax():
    if keras.backend.backend() == "jax":
        pytest.skip("has it")
    with pytest.raises(ValueError, match="needs the JAX backend"):
        analyze(dense_model(), memory="compiled")
