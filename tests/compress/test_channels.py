"""Channel groups: a network with channels cut out gives what it gives with them at zero."""

import random

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress._channels import choose, keep_of, kept_places
from bigzoo.compress._data import to_numpy
from bigzoo.compress._rebuild import rebuild, weights_of
from bigzoo.compress._record import record
from bigzoo.compress._slim import cut
from bigzoo.compress._walk import walk
from bigzoo.train._state import value_of

L = keras.layers


def _build(shape, body, **settings):
    image = keras.Input(shape, name="image")
    return keras.Model(image, body(image), **settings)


def densely_connected():
    def body(x):
        for width in (6, 4, 5):
            y = L.Activation("relu")(L.BatchNormalization()(x))
            x = L.Concatenate()([x, L.Conv2D(width, 3, padding="same")(y)])
        return L.Dense(3)(L.GlobalAveragePooling2D()(x))

    return _build((6, 6, 3), body)


def inception():
    """A sum of two joined branches on one side and a convolution on the other."""

    def body(x):
        x = L.Conv2D(4, 1)(x)
        both = L.Concatenate()([L.Conv2D(6, 1)(x), L.Conv2D(4, 3, padding="same")(x)])
        return L.Dense(2)(L.Flatten()(L.Add()([both, L.Conv2D(10, 1)(x)])))

    return _build((5, 5, 3), body)


def squeeze_excite():
    def body(x):
        x = L.Conv2D(8, 3)(x)
        y = L.Reshape((1, 1, 8))(L.GlobalMaxPooling2D()(x))
        y = L.Conv2D(8, 1, activation="sigmoid")(L.Conv2D(4, 1, activation="relu")(y))
        return L.Dense(2)(L.GlobalAveragePooling2D()(L.Multiply()([x, y])))

    return _build((6, 6, 3), body)


def separable():
    def body(x):
        x = L.SeparableConv2D(6, 3, depth_multiplier=2)(L.Conv2D(4, 3)(x))
        x = L.DepthwiseConv2D(3, depth_multiplier=3, padding="same")(L.PReLU(shared_axes=(1, 2))(x))
        return L.Dense(2)(L.Flatten()(L.SeparableConv2D(4, 1)(x)))

    return _build((8, 8, 2), body)


def up_and_down():
    def body(x):
        a = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
        b = L.Conv2D(8, 3, padding="same", activation="elu")(L.MaxPooling2D(1)(a))
        b = L.Conv2DTranspose(6, 2, strides=2)(b)
        c = L.Cropping2D(1)(L.ZeroPadding2D(1)(L.UpSampling2D(2)(a)))
        return L.Conv2D(1, 1)(L.Average()([b, c]))

    return _build((6, 6, 3), body)


def one_dimension():
    def body(x):
        x = L.Conv1D(6, 3)(L.Dense(8, "tanh")(x))
        x = L.Conv1DTranspose(4, 2)(L.LeakyReLU()(L.AveragePooling1D(2)(x)))
        return L.Dense(2)(L.GlobalMaxPooling1D()(L.SpatialDropout1D(0.2)(x)))

    return _build((12, 5), body)


def three_dimensions():
    def body(x):
        x = L.Conv3D(4, 2)(L.Conv3D(6, 1)(x))
        return L.Dense(2)(L.GlobalAveragePooling3D(keepdims=True)(x))

    return _build((4, 4, 4, 2), body)


def called_twice():
    """Both calls of a layer lose the same channels, and so do the layers that feed it."""

    def body(x):
        shared, norm = L.Conv2D(6, 3, padding="same"), L.BatchNormalization()
        a, b = L.Conv2D(6, 1)(x), L.Conv2D(6, 1)(x)
        return L.Dense(2)(L.Flatten()(L.Subtract()([norm(shared(a)), norm(shared(shared(b)))])))

    return _build((4, 4, 3), body)


def shared_with_the_input():
    """What is called on the input, too, keeps all channels, and so does what feeds it."""

    def body(x):
        norm, prelu = L.BatchNormalization(), L.PReLU(shared_axes=(1, 2))
        a, b = L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)
        parts = [norm(x), norm(a), prelu(b), prelu(x)]
        return L.Dense(2)(L.Dense(8)(L.Flatten()(L.Concatenate()(parts))))

    return _build((2, 2, 3), body)


def operations():
    def body(x):
        x = keras.ops.relu(L.Conv2D(6, 3)(x)) * 0.5 + 1.0
        x = keras.ops.add(x, L.Conv2D(6, 3, padding="same")(x))
        return L.Dense(2)(L.GlobalAveragePooling2D()(x))

    return _build((6, 6, 3), body)


def turned_around():
    def body(x):
        x = L.Permute((3, 1, 2))(L.Conv2D(6, 3)(x))
        x = L.Permute((2, 3, 1))(L.Dropout(0.1)(x))
        x = L.Reshape((-1, 6))(L.Conv2D(6, 1)(x))
        return L.Dense(2)(L.Flatten()(L.Dense(4)(x)))

    return _build((5, 5, 3), body)


def unflattened():
    def body(x):
        x = L.BatchNormalization()(L.Dense(4 * 4 * 6, activation="relu")(x))
        x = L.Conv2D(6, 3, padding="same")(L.Reshape((4, 4, 6))(x))
        return L.Conv2D(1, 1)(L.Concatenate(axis=1)([x, x]))

    return _build((7,), body)


def transferred():
    """A base of its own inside, called as in transfer learning; names clash."""
    image = keras.Input((6, 6, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(8, 3, name="conv")(image))
    base = keras.Model(image, x, name="base")
    head = keras.Sequential([keras.Input((8,)), L.Dense(6, "relu", name="conv")], name="head")
    outer = keras.Input((6, 6, 3), name="photo")
    y = L.GlobalAveragePooling2D()(base(L.Rescaling(1 / 255)(outer), training=False))
    return keras.Model(outer, L.Dense(2, name="out")(head(y)))


def several_ends():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = L.Concatenate()([L.Dense(8, "relu")(a), b])
    hidden = L.Dense(10, "relu")(x)
    kind = L.Dense(3, "softmax", name="kind")(hidden)
    return keras.Model({"a": a, "b": b}, {"kind": kind, "size": L.Dense(2, name="size")(hidden)})


def words():
    ids = keras.Input((5,), dtype="int32", name="ids")
    x = L.Conv1D(6, 3, padding="same")(L.Embedding(9, 8, mask_zero=True)(ids))
    return keras.Model(ids, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def stacked():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(8, 3, activation="relu"),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(6, activation="tanh"),
            L.Dense(3),
        ],
        name="stacked",
    )


# Model -> number of groups.
EXACT = {
    "densely connected": (densely_connected, 3),
    # The sum ties the two branches to the two parts of the convolution, not to each other.
    "inception": (inception, 3),
    "squeeze-excite": (squeeze_excite, 2),
    "separable": (separable, 3),
    "up and down": (up_and_down, 2),
    "one dimension": (one_dimension, 3),
    "three dimensions": (three_dimensions, 2),
    "called twice": (called_twice, 1),
    "shared with the input": (shared_with_the_input, 1),
    "operations": (operations, 1),
    "turned around": (turned_around, 3),
    "unflattened": (unflattened, 2),
    "transferred": (transferred, 2),
    "several ends": (several_ends, 2),
    "words": (words, 2),
    "sequential": (stacked, 2),
    "cnn": (lambda: bz.models.cnn((16, 16, 3), 2, "plain"), 2),
    "resnet": (lambda: bz.models.resnet("tiny", input_shape=(32, 32, 3), num_classes=2), 15),
    "efficientnet": (
        lambda: bz.models.efficientnet("tiny", input_shape=(32, 32, 3), num_classes=2),
        8,
    ),
    "mlp": (lambda: bz.models.mlp(6, (20, 12)), 2),
    "autoencoder": (lambda: bz.models.autoencoder(variant="conv", input_shape=(8, 8, 1)), 6),
}


def randomize(model):
    """Weights as after training: no gamma of 1, no bias of 0."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif weight.name in ("beta", "bias", "moving_mean", "alpha"):
            weight.assign(rng.normal(0, 0.3, shape))
    return model


def inputs_of(model, rows=2):
    rng = np.random.default_rng(1)

    def draw(tensor):
        shape = (rows, *tensor.shape[1:])
        if keras.backend.is_int_dtype(tensor.dtype):
            return rng.integers(0, 9, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype("float32")

    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(draw, given)


def run(model, x):
    # Uncompiled calls are quick, but for JAX, which compiles each operation by itself then.
    on_jax = keras.backend.backend() == "jax"
    outputs = model.predict_on_batch(x) if on_jax else model(x, training=False)
    outputs = keras.tree.flatten(outputs)
    return [np.asarray(to_numpy(output)) for output in outputs]


def set_to_zero(recorded, channels, gone):
    """In the original, what makes the channels that are gone, and what they are multiplied with."""
    for call in recorded.calls:
        for one in channels.slices.get(id(call.operation), ()):
            for weight in call.operation.weights:
                if weight.name == one.weight:
                    value = np.array(value_of(weight))
                    sides = [1] * value.ndim
                    sides[one.axis] = -1
                    weight.assign(value * kept_places(channels, one.labels, gone).reshape(sides))


def halve(model, wrong=False):
    """(cut model, groups); the channels that are gone are zero in `model` afterwards."""
    recorded = record(model)
    channels = walk(recorded)
    groups = channels.groups(0.5)
    gone = choose(groups, channels.importance(weights_of(recorded)))
    small = rebuild(model, recorded, channels, gone)
    if wrong:
        gone = {root for group in groups for root in group.roots} - gone
    set_to_zero(recorded, channels, gone)
    return small, groups


# The walk is the same on every backend; JAX compiles each model for seconds.
ON_JAX = ("called twice", "transferred", "several ends")
CASES = ON_JAX if keras.backend.backend() == "jax" else tuple(EXACT)


@pytest.mark.parametrize("name", CASES)
def test_cut_is_the_original_with_channels_at_zero(name):
    make, count = EXACT[name]
    model = randomize(make())
    x = inputs_of(model)
    before = run(model, x)
    small, groups = halve(model)
    assert len(groups) == count
    assert small.count_params() < 0.7 * model.count_params()
    wanted, got = run(model, x), run(small, x)
    scale = max(float(np.abs(one).max()) for one in wanted)
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(scale, 1))
    assert any(np.abs(one - other).max() > 1e-4 for one, other in zip(before, got, strict=True))
    assert [tuple(one.shape) for one in small.inputs] == [tuple(one.shape) for one in model.inputs]
    assert len(small.outputs) == len(model.outputs)


def test_the_comparison_can_fail():
    model = randomize(stacked())
    x = inputs_of(model)
    small, _ = halve(model, wrong=True)
    assert np.abs(run(model, x)[0] - run(small, x)[0]).max() > 1e-2


def test_names_settings_and_kind_stay():
    model = stacked()
    model.layers[0].trainable = False
    small, _, _ = cut(model, 0.5)
    assert isinstance(small, keras.Sequential) and small.name == "stacked"
    assert [one.name for one in small.layers] == [one.name for one in model.layers]
    assert not small.layers[0].trainable
    for one, other in zip(model.layers, small.layers, strict=True):
        before, after = one.get_config(), other.get_config()
        changed = {name for name in before if before[name] != after[name]}
        assert changed <= {"filters", "units"}
    small, _, _ = cut(transferred(), 0.5)
    names = [one.name for one in small.layers]
    assert names[0] == "photo" and {"conv", "norm", "conv_2", "out"} <= set(names)
    ends, _, _ = cut(several_ends(), 0.5)
    assert set(ends.input) == {"a", "b"} and set(ends.output) == {"kind", "size"}


def test_a_frozen_base_stays_frozen():
    model = randomize(transferred())
    model.get_layer("base").trainable = False
    small, _, _ = cut(model, 0.5)
    norm = small.get_layer("norm")
    assert not norm.trainable and not small.get_layer("conv").trainable
    before = [np.array(value_of(weight)) for weight in norm.weights]
    small(inputs_of(model), training=True)
    for one, weight in zip(before, norm.weights, strict=True):
        np.testing.assert_array_equal(one, value_of(weight))


def test_the_given_model_is_left_as_it_is():
    model = randomize(inception())
    before = [value_of(weight).tobytes() for weight in model.weights]
    x = inputs_of(model)
    answer = run(model, x)
    tensor = model.layers[1].output
    cut(model, 0.5)
    assert [value_of(weight).tobytes() for weight in model.weights] == before
    assert model.layers[1].output is tensor
    np.testing.assert_array_equal(run(model, x)[0], answer[0])


def kept(make, ratio=0.5):
    """Name of the layer -> why it is left whole."""
    channels = walk(record(make()))
    return channels.whole(channels.groups(ratio))


def test_what_cannot_be_cut_is_named():
    def body(x):
        x = L.Dense(8, name="free")(x)
        x = L.Dense(8, name="before_lstm")(x)
        x = L.Dense(6, name="after")(L.LSTM(8, name="lstm")(x))
        x = L.Reshape((6, 1))(x)
        x = L.Dense(4, name="heads")(x)
        x = L.MultiHeadAttention(2, 2, name="attention")(x, x)
        x = L.Dense(4, activation="softmax", name="soft")(x)
        x = L.Dense(4, name="before_lambda")(x)
        x = L.Lambda(lambda y: y * 2, output_shape=(6, 4))(x)
        return L.Dense(1, name="last")(x)

    whole = kept(lambda: _build((5, 3), body))
    assert "recurrent" in whole["before_lstm"] and "recurrent" in whole["lstm"]
    assert "attention" in whole["attention"] and "attention" in whole["heads"]
    assert "mixes channels" in whole["soft"]
    assert "Lambda" in whole["before_lambda"]
    assert "output" in whole["last"] and "free" not in whole
    assert whole["after"] == "its channels hang together"


def test_ties_to_what_stays_are_named():
    def body(x):
        grouped = L.Conv2D(6, 1, groups=3, name="grouped")(L.Conv2D(6, 1, name="before")(x))
        free = L.Conv2D(8, 1, name="free")(grouped)
        same = L.Conv2D(3, 1, name="same")(free)
        y = L.Add(name="sum")([same, x])
        y = L.Conv2D(4, 1, name="normed")(y)
        return L.Conv2D(2, 1, name="last")(L.BatchNormalization(axis=1, name="rows")(y))

    whole = kept(lambda: _build((4, 4, 3), body))
    assert "grouped convolution" in whole["before"] and "grouped convolution" in whole["grouped"]
    assert "'sum' ties" in whole["same"]
    assert "another axis" in whole["normed"]
    assert "free" not in whole


def test_a_layer_of_ones_own_keeps_its_channels():
    class Reverse(L.Layer):
        def call(self, x):
            return x[..., ::-1]

    def body(x):
        x = Reverse(name="reverse")(L.Dense(8, name="first")(x))
        return L.Dense(1, name="last")(L.Dense(8, name="second")(x))

    whole = kept(lambda: _build((5,), body))
    assert "'reverse' (Reverse) may mix" in whole["first"] and "second" not in whole


def test_lora_is_not_cut():
    model = keras.Sequential([keras.Input((8,)), L.Dense(8), L.Dense(8), L.Dense(1)])
    model.layers[0].enable_lora(2)
    small, _, whole = cut(model, 0.5)
    assert model.layers[0].name in whole
    assert small.layers[0].units == 8 and small.layers[1].units == 4
    for one, other in zip(model.layers[0].weights, small.layers[0].weights, strict=True):
        np.testing.assert_array_equal(value_of(one), value_of(other))


@pytest.mark.parametrize(
    ("count", "ratio", "wanted"),
    [
        (8, 0.5, 4),
        (3, 0.5, 2),
        (2, 0.9, 1),
        (1, 0.5, 1),
        (64, 0.5, 32),
        (100, 0.5, 48),
        (72, 0.5, 40),
        (96, 0.25, 72),
        (512, 0.01, 504),
        (40, 0.01, 40),
    ],
)
def test_how_many_stay(count, ratio, wanted):
    assert keep_of(count, ratio) == wanted


def test_the_least_important_go():
    model = keras.Sequential([keras.Input((4,)), L.Dense(6, name="a"), L.Dense(1)])
    kernel = np.ones((4, 6)) * np.array([1, 6, 2, 5, 3, 4])
    model.get_layer("a").set_weights([kernel, np.zeros(6)])
    small, _, _ = cut(model, 0.5)
    np.testing.assert_array_equal(small.get_layer("a").get_weights()[0][0], [6, 5, 4])


def test_gamma_counts():
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(4, name="a"), L.BatchNormalization(name="n"), L.Dense(1)]
    )
    model.get_layer("a").set_weights([np.ones((4, 4)), np.zeros(4)])
    rest = [np.zeros(4), np.zeros(4), np.ones(4)]
    model.get_layer("n").set_weights([np.array([0.1, -3.0, 2.0, 0.2]), *rest])
    small, _, _ = cut(model, 0.5)
    np.testing.assert_allclose(small.get_layer("n").get_weights()[0], [-3, 2])


def test_policies_stay():
    policies = ("mixed_bfloat16", "bfloat16", "float32")
    model = keras.Sequential([keras.Input((6,)), *(L.Dense(4, dtype=name) for name in policies)])
    small, _, _ = cut(model, 0.5)
    assert model.layers[0].dtype_policy.name == "mixed_bfloat16"
    for one, other in zip(model.layers, small.layers, strict=True):
        assert one.dtype_policy.name == other.dtype_policy.name


def test_random_numbers_stay():
    model = stacked()
    before = random.getstate()
    cut(model, 0.5)
    assert random.getstate() == before


@pytest.mark.tensorflow
def test_convnext_is_cut_and_runs():
    model = bz.models.convnext("micro", input_shape=(32, 32, 3), num_classes=2)
    small, groups, _ = cut(model, 0.5)
    assert len(groups) == 9
    assert small.count_params() < 0.34 * model.count_params()
    assert np.isfinite(run(small, inputs_of(model))[0]).all()


@pytest.mark.large
@pytest.mark.parametrize(
    ("name", "groups"), [("MobileNetV2", 25), ("ResNet50", 37), ("EfficientNetB0", None)]
)
def test_networks_of_keras(name, groups):
    make = getattr(keras.applications, name)
    model = randomize(make(weights=None, input_shape=(32, 32, 3), classes=5))
    small, found = halve(model)
    assert groups is None or len(found) == groups
    assert small.count_params() < 0.27 * model.count_params()
    x = inputs_of(model)
    np.testing.assert_allclose(run(model, x)[0], run(small, x)[0], rtol=0, atol=1e-5)
