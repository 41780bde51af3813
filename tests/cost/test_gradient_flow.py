"""Where the gradient flows, by closed formula on every backend; and arrays of an open shape."""

import keras
import pytest
from keras import layers, ops

from bigzoo.cost import analyze

BATCH = 2
# 2 x batch x inputs x outputs of the dense layers before and after the function.
FIRST, SECOND = 2 * BATCH * 8 * 16, 2 * BATCH * 16 * 3


class Call(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def between(function):
    """A model with `function` between two dense layers."""
    inputs = keras.Input((8,))
    hidden = Call(function)(layers.Dense(16)(inputs))
    return keras.Model(inputs, layers.Dense(3)(hidden))


@pytest.mark.parametrize(
    "function",
    [
        ops.stop_gradient,
        ops.round,
        ops.floor,
        ops.ceil,
        ops.sign,
        ops.trunc,
        lambda x: ops.floor_divide(x, 2.0),
        lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
        lambda x: ops.reshape(ops.stop_gradient(ops.reshape(x, (-1, 4))), (-1, 16)),
    ],
    ids=["stop", "round", "floor", "ceil", "sign", "trunc", "floor_divide", "cast", "reshaped"],
)
def test_no_gradient_passes_a_stop_or_steps(function):
    report = analyze(between(function), BATCH)
    assert report.forward_flops == FIRST + SECOND
    assert report.training_flops == FIRST + 2 * SECOND
    assert report.unknown_ops == {}


@pytest.mark.parametrize(
    "function",
    [
        ops.tanh,
        lambda x: ops.mod(x, 2.0),
        # A gradient of one, straight through the rounding.
        lambda x: x + ops.stop_gradient(ops.round(x) - x),
        lambda x: ops.stop_gradient(x) * x,
    ],
    ids=["tanh", "mod", "straight_through", "one_side"],
)
def test_the_gradient_passes_everything_else(function):
    report = analyze(between(function), BATCH)
    assert report.forward_flops == FIRST + SECOND
    assert report.training_flops == 2 * FIRST + 3 * SECOND
    assert report.unknown_ops == {}


def test_a_stopped_weight_has_no_gradient():
    class Stopped(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 3), name="table")

        def call(self, x):
            return ops.matmul(x, ops.stop_gradient(self.table))

    inputs = keras.Input((8,))
    model = keras.Model(inputs, Stopped()(layers.Dense(16)(inputs)))
    assert analyze(model, BATCH).training_flops == 2 * FIRST + 2 * SECOND


# === Open shapes ===


class Chosen(layers.Layer):
    """A dense layer on those rows alone that a mask lets through: only the data tell how many."""

    def build(self, _):
        self.inner = layers.Dense(5, name="inner")
        self.inner.build((None, 8))

    def call(self, x):
        import tensorflow as tf

        chosen = tf.boolean_mask(x, x[:, 0] > 0)
        return ops.sum(self.inner(chosen), axis=0, keepdims=True)

    def compute_output_spec(self, x):
        return keras.KerasTensor((1, 5), x.dtype)


@pytest.mark.tensorflow
def test_operations_on_an_open_shape_are_said_to_be_unknown():
    inputs = keras.Input((8,))
    with pytest.warns(UserWarning, match="open shape"):
        report = analyze(keras.Model(inputs, Chosen()(inputs)), BATCH)
    assert report.unknown_ops["MatMul (open shape)"] == 1
    assert all(name.endswith(" (open shape)") for name in report.unknown_ops)


class Growing(layers.Layer):
    """A loop whose state gets longer with each step."""

    def build(self, _):
        self.table = self.add_weight(shape=(8, 8), name="table")

    def call(self, x):
        import tensorflow as tf

        return tf.while_loop(
            lambda i, _: i < 3,
            lambda i, y: (i + 1, tf.concat([y, y @ self.table], 0)),
            (0, x),
            shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, 8))),
        )[1]

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, 8), x.dtype)


@pytest.mark.tensorflow
def test_a_loop_whose_state_grows_is_said_to_be_unknown():
    inputs = keras.Input((8,))
    with pytest.warns(UserWarning, match="open shape"):
        report = analyze(keras.Model(inputs, Growing()(inputs)), BATCH, training=False)
    assert report.unknown_ops == {"MatMul (open shape)": 3, "ConcatV2 (open shape)": 3}
