"""Models with their forward FLOPs by closed formula, the same on every backend.

Only Keras is used here, so that each backend's tests count the very same models. The formulas are
written by hand from the definition of each layer: two FLOPs per multiply-add, padding included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers, ops

BATCH = 3


@dataclass(frozen=True)
class Case:
    """A model, and what a forward pass of `BATCH` samples costs in products.

    `padding_flops` is the part that multiplies zeros which the layer itself puts around its input,
    or whose result it cuts off.
    """

    name: str
    build: Callable[[], keras.Model]
    forward_flops: int
    padding_flops: int = 0
    batch_size: int = BATCH


def _chain(shape: tuple[int, ...], *chain: layers.Layer, dtype: str = "float32") -> keras.Model:
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in chain:
        x = layer(x)
    return keras.Model(inputs, x)


# === Layers of our own ===


class Gram(layers.Layer):
    """All products between the rows of a matrix; no weights, so a list of layers would miss it."""

    def call(self, x):
        return ops.matmul(x, ops.swapaxes(x, 1, 2))


class Projected(layers.Layer):
    """A dense layer inside another one, and a second product by a weight of its own."""

    def build(self, shape):
        self.inner = layers.Dense(6, name="inner")
        self.inner.build(shape)
        self.table = self.add_weight(shape=(6, 4), name="table")

    def call(self, x):
        return ops.matmul(ops.relu(self.inner(x)), self.table)


class Scan(layers.Layer):
    """`keras.ops.scan`: one product of a state with a weight per step."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        def step(state, row):
            state = ops.tanh(ops.matmul(state, self.table) + row)
            return state, state

        start = ops.zeros_like(x[:, 0])
        last, _ = ops.scan(step, start, ops.swapaxes(x, 0, 1))
        return last


class Repeated(layers.Layer):
    """`keras.ops.fori_loop`: seven products in a row."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        return ops.fori_loop(0, 7, lambda _, state: ops.matmul(state, self.table), x)


class Einsum(layers.Layer):
    """Attention scores as an einsum: (batch, q, head, dim) with (batch, k, head, dim)."""

    def call(self, x):
        return ops.einsum("bqhd,bkhd->bhqk", x, x)


class EinsumWith(layers.Layer):
    """An einsum with a weight."""

    def __init__(self, equation, shape):
        super().__init__()
        self.equation, self.shape = equation, shape

    def build(self, _):
        self.table = self.add_weight(shape=self.shape, name="table")

    def call(self, x):
        return ops.einsum(self.equation, x, self.table)


class EinsumAlone(layers.Layer):
    """An einsum of one array: an order of its axes, or a sum, and no product."""

    def __init__(self, equation):
        super().__init__()
        self.equation = equation

    def call(self, x):
        return ops.einsum(self.equation, x)


class While(layers.Layer):
    """`keras.ops.while_loop`: a product for each step of a counter."""

    def __init__(self, start, limit, step):
        super().__init__()
        self.start, self.limit, self.step = start, limit, step

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        return ops.while_loop(
            lambda i, _: i < self.limit,
            lambda i, state: (i + self.step, ops.matmul(state, self.table)),
            (self.start, x),
        )[1]


# === Models that aren't a chain ===


def _shared() -> keras.Model:
    dense = layers.Dense(5)
    a, b = keras.Input((4,)), keras.Input((4,))
    return keras.Model([a, b], layers.Add()([dense(a), dense(b)]))


def _nested() -> keras.Model:
    inner = _chain((4,), layers.Dense(5, activation="relu"), layers.Dense(6))
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


def _unused() -> keras.Model:
    """The last state of an LSTM that nobody reads must not change the count."""
    inputs = keras.Input((4, 5))
    sequence, _, _ = layers.LSTM(6, return_sequences=True, return_state=True)(inputs)
    return keras.Model(inputs, sequence)


def _attention(layer: layers.Layer, queries: int, keys: int, dim: int) -> keras.Model:
    query, value = keras.Input((queries, dim)), keras.Input((keys, dim))
    return keras.Model([query, value], layer(query, value))


def _causal() -> keras.Model:
    inputs = keras.Input((4, 6))
    layer = layers.MultiHeadAttention(2, 5)
    return keras.Model(inputs, layer(inputs, inputs, use_causal_mask=True))


def _pairs(layer: layers.Layer, first: tuple[int, ...], second: tuple[int, ...]) -> keras.Model:
    a, b = keras.Input(first), keras.Input(second)
    return keras.Model([a, b], layer([a, b]))


def _masked_lstm() -> keras.Model:
    table = layers.Embedding(11, 5, mask_zero=True)
    return _chain((4,), table, layers.LSTM(6), dtype="int32")


def _with_padding(name: str, build: Callable[[], keras.Model], all_: int, valid: int) -> Case:
    return Case(name, build, all_, all_ - valid)


# === The cases ===
# Sizes are small and all different, so that a wrong factor can't hide. Each number is written as
# 2 x batch x output positions x summed values x outputs.

DENSE = [
    Case("dense", lambda: _chain((7,), layers.Dense(5)), 2 * BATCH * 7 * 5),
    # A dense layer on (batch, 4, 7) is one product of 4 x batch rows.
    Case("dense_3d", lambda: _chain((4, 7), layers.Dense(5)), 2 * BATCH * 4 * 7 * 5),
    Case("dense_no_bias", lambda: _chain((7,), layers.Dense(5, use_bias=False)), 2 * BATCH * 7 * 5),
    Case(
        "mlp",
        lambda: _chain((7,), layers.Dense(5, "relu"), layers.Dense(2, "softmax")),
        2 * BATCH * (7 * 5 + 5 * 2),
    ),
    Case(
        "einsum_dense",
        lambda: _chain((4, 7), layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de")),
        2 * BATCH * 4 * 7 * (2 * 5),
    ),
    Case("shared", _shared, 2 * (2 * BATCH * 4 * 5)),
    Case("nested", _nested, 2 * BATCH * (4 * 5 + 5 * 6 + 6 * 2)),
    Case(
        "time_distributed",
        lambda: _chain((4, 7), layers.TimeDistributed(layers.Dense(5))),
        2 * BATCH * 4 * 7 * 5,
    ),
]

# Along an axis of 8 with a kernel of 3 and "same" padding, stride 1: 8 outputs x 3 taps = 24 pairs,
# of which the first and the last output have one tap outside: 22 fall on the input.
# With stride 2: 4 outputs x 3 taps = 12 pairs; one zero stands at the end: 11 on the input.
# Along an axis of 6: 18 pairs and 16; with stride 2 9 pairs and 8.
CONVOLUTIONS = [
    # 6 = 8 - 3 + 1 outputs.
    Case("conv1d", lambda: _chain((8, 4), layers.Conv1D(5, 3)), 2 * BATCH * 6 * 3 * 4 * 5),
    _with_padding(
        "conv1d_same",
        lambda: _chain((8, 4), layers.Conv1D(5, 3, padding="same")),
        2 * BATCH * 24 * 4 * 5,
        2 * BATCH * 22 * 4 * 5,
    ),
    # 2 taps 3 apart: 8 - 3 = 5 outputs.
    Case(
        "conv1d_dilated",
        lambda: _chain((8, 4), layers.Conv1D(5, 2, dilation_rate=3)),
        2 * BATCH * 5 * 2 * 4 * 5,
    ),
    # (8 - 3) // 2 + 1 = 3 and (6 - 3) // 2 + 1 = 2 outputs.
    Case(
        "conv2d_stride",
        lambda: _chain((8, 6, 4), layers.Conv2D(5, 3, strides=2)),
        2 * BATCH * (3 * 2) * 9 * 4 * 5,
    ),
    _with_padding(
        "conv2d_same",
        lambda: _chain((8, 6, 4), layers.Conv2D(5, 3, padding="same")),
        2 * BATCH * (24 * 18) * 4 * 5,
        2 * BATCH * (22 * 16) * 4 * 5,
    ),
    _with_padding(
        "conv2d_same_stride",
        lambda: _chain((8, 6, 4), layers.Conv2D(5, 3, strides=2, padding="same")),
        2 * BATCH * (12 * 9) * 4 * 5,
        2 * BATCH * (11 * 8) * 4 * 5,
    ),
    # A kernel of 3 with its taps 2 apart spans 5: two zeros at each end. Along 8: 24 pairs, 20 on
    # the input; along 6: 18 and 14.
    _with_padding(
        "conv2d_same_dilated",
        lambda: _chain((8, 6, 4), layers.Conv2D(5, 3, padding="same", dilation_rate=2)),
        2 * BATCH * (24 * 18) * 4 * 5,
        2 * BATCH * (20 * 14) * 4 * 5,
    ),
    # A kernel of 2: one zero at the end. Along 8: 16 pairs and 15; along 6: 12 and 11.
    _with_padding(
        "conv2d_same_even",
        lambda: _chain((8, 6, 4), layers.Conv2D(5, 2, padding="same")),
        2 * BATCH * (16 * 12) * 4 * 5,
        2 * BATCH * (15 * 11) * 4 * 5,
    ),
    # Each of 2 groups sums over 4 / 2 channels.
    Case(
        "conv2d_groups",
        lambda: _chain((8, 6, 4), layers.Conv2D(10, 3, groups=2)),
        2 * BATCH * (6 * 4) * 9 * (4 // 2) * 10,
    ),
    Case("conv2d_1x1", lambda: _chain((8, 6, 4), layers.Conv2D(5, 1)), 2 * BATCH * 8 * 6 * 4 * 5),
    # Zeros of a layer before the convolution are that layer's output, not the convolution's own.
    Case(
        "conv2d_after_padding",
        lambda: _chain((6, 4, 4), layers.ZeroPadding2D(1), layers.Conv2D(5, 3)),
        2 * BATCH * (6 * 4) * 9 * 4 * 5,
    ),
    Case(
        "conv3d",
        lambda: _chain((8, 6, 5, 4), layers.Conv3D(7, (3, 2, 1), strides=(1, 2, 1))),
        2 * BATCH * (6 * 3 * 5) * (3 * 2 * 1) * 4 * 7,
    ),
    _with_padding(
        "conv3d_same",
        lambda: _chain((8, 6, 6, 2), layers.Conv3D(7, 3, padding="same")),
        2 * BATCH * (24 * 18 * 18) * 2 * 7,
        2 * BATCH * (22 * 16 * 16) * 2 * 7,
    ),
    # Transposed: each input position is multiplied with the whole kernel. With "same" padding, what
    # lands outside the output is cut off. 8 inputs with stride 2 and a kernel of 3 reach from 0 to
    # 16, and the output ends at 15: 1 of 24 pairs is lost. With a kernel of 4 they reach from -1 to
    # 16: 2 of 32; along 6 2 of 24.
    _with_padding(
        "conv1d_transpose_same",
        lambda: _chain((8, 4), layers.Conv1DTranspose(5, 3, strides=2, padding="same")),
        2 * BATCH * 24 * 4 * 5,
        2 * BATCH * 23 * 4 * 5,
    ),
    Case(
        "conv2d_transpose",
        lambda: _chain((8, 6, 4), layers.Conv2DTranspose(5, 3, strides=2)),
        2 * BATCH * (8 * 6) * 9 * 4 * 5,
    ),
    _with_padding(
        "conv2d_transpose_same",
        lambda: _chain((8, 6, 4), layers.Conv2DTranspose(5, 4, strides=2, padding="same")),
        2 * BATCH * (32 * 24) * 4 * 5,
        2 * BATCH * (30 * 22) * 4 * 5,
    ),
    Case(
        "conv2d_transpose_gaps",
        lambda: _chain((8, 6, 4), layers.Conv2DTranspose(5, 2, strides=3)),
        2 * BATCH * (8 * 6) * 4 * 4 * 5,
    ),
    Case(
        "conv3d_transpose",
        lambda: _chain((4, 3, 2, 4), layers.Conv3DTranspose(5, 2, strides=2)),
        2 * BATCH * (4 * 3 * 2) * 8 * 4 * 5,
    ),
    # With stride 1 the output is the larger: 1 x 1 inputs give 4 x 4 outputs, 4 x 4 give 6 x 6.
    Case(
        "conv2d_transpose_one_pixel",
        lambda: _chain((1, 1, 10), layers.Conv2DTranspose(8, 4)),
        2 * BATCH * 1 * 16 * 10 * 8,
    ),
    Case(
        "conv2d_transpose_stride_1",
        lambda: _chain((4, 4, 10), layers.Conv2DTranspose(8, 3)),
        2 * BATCH * (4 * 4) * 9 * 10 * 8,
    ),
    Case(
        "conv1d_transpose_dilated",
        lambda: _chain((8, 4), layers.Conv1DTranspose(5, 4, dilation_rate=2)),
        2 * BATCH * 8 * 4 * 4 * 5,
    ),
    Case(
        "conv2d_transpose_strides",
        lambda: _chain((8, 6, 4), layers.Conv2DTranspose(5, 4, strides=(1, 2))),
        2 * BATCH * (8 * 6) * 16 * 4 * 5,
    ),
    # A kernel of 4 on 8 inputs gives 11 positions, on whose ends 1, 2, 3, ... pairs fall. "same"
    # keeps 8: 1 is cut off at the start and 2 at the other end.
    _with_padding(
        "conv1d_transpose_same_stride_1",
        lambda: _chain((8, 4), layers.Conv1DTranspose(5, 4, padding="same")),
        2 * BATCH * 32 * 4 * 5,
        2 * BATCH * (32 - 1 - (1 + 2)) * 4 * 5,
    ),
    # One output less than inputs: 2 are cut off at each end, where 1 + 2 pairs land.
    _with_padding(
        "conv1d_transpose_smaller",
        lambda: _chain((8, 4), layers.Conv1DTranspose(5, 4, padding="same", output_padding=0)),
        2 * BATCH * 32 * 4 * 5,
        2 * BATCH * (32 - (1 + 2) - (1 + 2)) * 4 * 5,
    ),
    # To resize a picture is no product, whatever the backend makes of it.
    Case(
        "conv2d_after_upsampling",
        lambda: _chain(
            (4, 3, 7), layers.UpSampling2D(interpolation="bilinear"), layers.Conv2D(5, 1)
        ),
        2 * BATCH * (8 * 6) * 7 * 5,
    ),
    Case(
        "conv2d_after_resizing",
        lambda: _chain((4, 3, 7), layers.Resizing(6, 8), layers.Conv2D(5, 1)),
        2 * BATCH * (6 * 8) * 7 * 5,
    ),
    # Depthwise: each output channel sums over one input channel.
    Case(
        "depthwise_conv1d",
        lambda: _chain((8, 4), layers.DepthwiseConv1D(3, depth_multiplier=2)),
        2 * BATCH * 6 * 3 * 1 * (4 * 2),
    ),
    Case(
        "depthwise_conv2d",
        lambda: _chain((8, 6, 4), layers.DepthwiseConv2D(3)),
        2 * BATCH * (6 * 4) * 9 * 1 * 4,
    ),
    _with_padding(
        "depthwise_conv2d_same_stride",
        lambda: _chain(
            (8, 6, 4), layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=3)
        ),
        2 * BATCH * (12 * 9) * 1 * (4 * 3),
        2 * BATCH * (11 * 8) * 1 * (4 * 3),
    ),
    # Separable: depthwise to 4 x 2 channels, then 1x1 from those to 5.
    Case(
        "separable_conv1d",
        lambda: _chain((8, 4), layers.SeparableConv1D(5, 3, depth_multiplier=2)),
        2 * BATCH * 6 * (3 * (4 * 2) + (4 * 2) * 5),
    ),
    _with_padding(
        "separable_conv2d_same",
        lambda: _chain((8, 6, 4), layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2)),
        2 * BATCH * ((24 * 18) * (4 * 2) + (8 * 6) * (4 * 2) * 5),
        2 * BATCH * ((22 * 16) * (4 * 2) + (8 * 6) * (4 * 2) * 5),
    ),
    _with_padding(
        "conv_norm_pool",
        lambda: _chain(
            (8, 6, 4),
            layers.Conv2D(5, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.AveragePooling2D(2, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(2, "softmax"),
        ),
        2 * BATCH * ((24 * 18) * 4 * 5 + 5 * 2),
        2 * BATCH * ((22 * 16) * 4 * 5 + 5 * 2),
    ),
]

ATTENTION = [
    # Projections of query, key and value, heads x (scores and weighted sum), output projection.
    Case(
        "attention",
        lambda: _attention(layers.MultiHeadAttention(2, 5), 4, 4, 6),
        2 * BATCH * (3 * 4 * 6 * (2 * 5) + 2 * 2 * (4 * 4 * 5) + 4 * (2 * 5) * 6),
    ),
    # 4 queries look at 7 keys.
    Case(
        "attention_cross",
        lambda: _attention(layers.MultiHeadAttention(2, 5), 4, 7, 6),
        2 * BATCH * (4 * 6 * (2 * 5) + 2 * 7 * 6 * (2 * 5) + 2 * 2 * (4 * 7 * 5) + 4 * (2 * 5) * 6),
    ),
    # A mask hides half of the scores, but all are computed.
    Case(
        "attention_causal",
        _causal,
        2 * BATCH * (3 * 4 * 6 * (2 * 5) + 2 * 2 * (4 * 4 * 5) + 4 * (2 * 5) * 6),
    ),
    # 4 heads of queries on 2 heads of keys and values: fewer projections, as many scores.
    Case(
        "attention_grouped",
        lambda: _attention(layers.GroupQueryAttention(5, 4, 2), 4, 7, 6),
        2 * BATCH * (4 * 6 * (4 * 5) + 2 * 7 * 6 * (2 * 5) + 2 * 4 * (4 * 7 * 5) + 4 * (4 * 5) * 6),
    ),
    # Scores and weighted sum, no weights.
    Case(
        "attention_dot",
        lambda: _pairs(layers.Attention(), (4, 6), (7, 6)),
        2 * BATCH * 2 * (4 * 7 * 6),
    ),
    # Sums of tanh(query + key) aren't a product; the weighted sum is.
    Case(
        "attention_additive",
        lambda: _pairs(layers.AdditiveAttention(), (4, 6), (7, 6)),
        2 * BATCH * 4 * 7 * 6,
    ),
]

# A step of an LSTM: the input and the state, each to 4 gates; a GRU has 3, a simple cell 1.
RECURRENT = [
    Case("lstm", lambda: _chain((4, 5), layers.LSTM(6)), 2 * BATCH * 4 * (5 + 6) * 4 * 6),
    Case("gru", lambda: _chain((4, 5), layers.GRU(6)), 2 * BATCH * 4 * (5 + 6) * 3 * 6),
    Case(
        "gru_reset_before",
        lambda: _chain((4, 5), layers.GRU(6, reset_after=False)),
        2 * BATCH * 4 * (5 + 6) * 3 * 6,
    ),
    Case("simple_rnn", lambda: _chain((4, 5), layers.SimpleRNN(6)), 2 * BATCH * 4 * (5 + 6) * 6),
    Case(
        "lstm_stack",
        lambda: _chain((4, 5), layers.LSTM(6, return_sequences=True), layers.LSTM(7)),
        2 * BATCH * 4 * ((5 + 6) * 4 * 6 + (6 + 7) * 4 * 7),
    ),
    Case("lstm_unused_states", _unused, 2 * BATCH * 4 * (5 + 6) * 4 * 6),
    Case(
        "lstm_unrolled",
        lambda: _chain((4, 5), layers.LSTM(6, unroll=True)),
        2 * BATCH * 4 * (5 + 6) * 4 * 6,
    ),
    Case(
        "lstm_relu_backwards",
        lambda: _chain((4, 5), layers.LSTM(6, activation="relu", go_backwards=True)),
        2 * BATCH * 4 * (5 + 6) * 4 * 6,
    ),
    Case("lstm_masked", _masked_lstm, 2 * BATCH * 4 * (5 + 6) * 4 * 6),
    Case(
        "bidirectional_lstm",
        lambda: _chain((4, 5), layers.Bidirectional(layers.LSTM(6))),
        2 * (2 * BATCH * 4 * (5 + 6) * 4 * 6),
    ),
    Case(
        "bidirectional_gru",
        lambda: _chain((4, 5), layers.Bidirectional(layers.GRU(6, return_sequences=True))),
        2 * (2 * BATCH * 4 * (5 + 6) * 3 * 6),
    ),
    # Each step, each of 4 gates: the picture (valid, 6 x 4 left of 8 x 6) and the state (same).
    # Along 6: 18 pairs of which 16 fall on the state; along 4: 12 and 10.
    _with_padding(
        "conv_lstm2d",
        lambda: _chain((4, 8, 6, 2), layers.ConvLSTM2D(5, 3)),
        2 * BATCH * 4 * 4 * ((6 * 4) * 9 * 2 * 5 + (18 * 12) * 5 * 5),
        2 * BATCH * 4 * 4 * ((6 * 4) * 9 * 2 * 5 + (16 * 10) * 5 * 5),
    ),
    Case("scan", lambda: _chain((4, 5), Scan()), 2 * BATCH * 4 * 5 * 5),
    Case("fori_loop", lambda: _chain((5,), Repeated()), 2 * BATCH * 7 * 5 * 5),
    Case("while_loop", lambda: _chain((5,), While(0, 7, 1)), 2 * BATCH * 7 * 5 * 5),
    # 1, 4, 7: three steps.
    Case("while_loop_by_three", lambda: _chain((5,), While(1, 10, 3)), 2 * BATCH * 3 * 5 * 5),
]

OTHERS = [
    Case("gram", lambda: _chain((4, 7), Gram()), 2 * BATCH * 4 * 4 * 7),
    Case("projected", lambda: _chain((7,), Projected()), 2 * BATCH * (7 * 6 + 6 * 4)),
    Case("einsum", lambda: _chain((4, 2, 7), Einsum()), 2 * BATCH * 2 * (4 * 4) * 7),
    # What one array alone has, and the result doesn't, is summed before the product: i here,
    Case(
        "einsum_sum_first",
        lambda: _chain((4, 7), EinsumWith("bij,j->b", (7,))),
        2 * BATCH * 7,
    ),
    # i again; then sums over j and k,
    Case(
        "einsum_sum_and_product",
        lambda: _chain((4, 5, 7), EinsumWith("bijk,jkl->bl", (5, 7, 6))),
        2 * BATCH * (5 * 7) * 6,
    ),
    # l of the second array.
    Case(
        "einsum_sum_second",
        lambda: _chain((4, 7), EinsumWith("bij,jkl->bik", (7, 5, 6))),
        2 * BATCH * 4 * 7 * 5,
    ),
    Case("einsum_transpose", lambda: _chain((4, 7), EinsumAlone("bij->bji")), 0),
    Case("einsum_sum", lambda: _chain((4, 7), EinsumAlone("bij->bj")), 0),
    Case("dot", lambda: _pairs(layers.Dot(axes=2), (4, 6), (7, 6)), 2 * BATCH * 4 * 7 * 6),
    # Reading a table multiplies nothing.
    Case("embedding", lambda: _chain((4,), layers.Embedding(11, 5), dtype="int32"), 0),
    Case(
        "elementwise",
        lambda: _chain((4, 7), layers.LayerNormalization(), layers.Activation("gelu")),
        0,
    ),
]

CASES = [*DENSE, *CONVOLUTIONS, *ATTENTION, *RECURRENT, *OTHERS]
