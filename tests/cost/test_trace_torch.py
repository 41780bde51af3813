"""The trace on torch: what its operations cost, that nothing is computed, and nothing changed."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from bigzoo.cost import _ops_torch as table
from bigzoo.cost._program import KEEPS, KINDS, Spec
from bigzoo.cost._trace import trace

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="traces on the torch backend"
)


class Call(layers.Layer):
    """A function of torch tensors as a layer; Keras needn't know the output's shape."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, *tensors):
        return self.function(*tensors)

    def compute_output_spec(self, *tensors):
        return keras.KerasTensor((None,), "float32")


def specs(model, batch_size):
    return keras.tree.map_structure(
        lambda tensor: Spec((batch_size, *tensor.shape[1:]), tensor.dtype), model.input
    )


def run(model, batch_size=3, training=False):
    return trace(model, specs(model, batch_size), training)


def chain(shape, *parts, dtype="float32"):
    x = inputs = keras.Input(shape, dtype=dtype)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def called(function, *shapes):
    """The nodes of `function` on tensors of these shapes, the batch included."""
    inputs = [keras.Input(batch_shape=shape) for shape in shapes]
    model = keras.Model(inputs, Call(function)(*inputs))
    given = [Spec(shape, "float32") for shape in shapes]
    return trace(model, given, False)


def total(program, field="flops"):
    return sum(getattr(node, field) * node.count for node in program.nodes)


def only(program, kind):
    (node,) = (node for node in program.nodes if node.kind == kind)
    return node


# --- products ----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_products_equal_the_closed_formula(cost_case, training):
    program = run(cost_case.build(), cost_case.batch_size, training)
    assert total(program) == cost_case.forward_flops
    assert total(program, "padding_flops") == cost_case.padding_flops
    assert program.unknown_ops == {}
    products = [node for node in program.nodes if node.flops]
    for node in products:
        assert node.flops == 2 * np.prod(node.dims, dtype=int)
        assert {node.left, node.right} <= set(node.inputs)
        assert node.layer != ""


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_zeros_of_another_layer_are_not_padding(padding):
    """With channels first nothing stands between the two layers' operations."""
    first = {"data_format": "channels_first"}
    zeros = layers.ZeroPadding2D(((0, 1), (0, 1)), **first)
    conv = layers.Conv2D(5, 2, padding=padding, **first)
    program = run(chain((4, 7, 5), zeros, conv))
    # 8 x 6 positions with a kernel of 2: "same" has one zero at each end, 15 of 16 and 11 of 12.
    taps, inner = (16 * 12, 15 * 11) if padding == "same" else (14 * 10, 14 * 10)
    assert total(program) == 2 * 3 * taps * 4 * 5
    assert total(program, "padding_flops") == 2 * 3 * (taps - inner) * 4 * 5


def aten(name):
    import torch

    return getattr(torch.ops.aten, name)


@pytest.mark.parametrize(
    ("name", "shapes", "flops", "elementwise"),
    [
        ("mm", [(3, 4), (4, 5)], 2 * 3 * 4 * 5, 0),
        ("bmm", [(2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5, 0),
        ("addmm", [(5,), (3, 4), (4, 5)], 2 * 3 * 4 * 5, 3 * 5),
        ("baddbmm", [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5, 2 * 3 * 5),
        ("addbmm", [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5, 3 * 5),
        ("mv", [(3, 4), (4,)], 2 * 3 * 4, 0),
        ("addmv", [(3,), (3, 4), (4,)], 2 * 3 * 4, 3),
        ("dot", [(4,), (4,)], 2 * 4, 0),
    ],
)
def test_products_of_torch(name, shapes, flops, elementwise):
    node = only(called(aten(name), *shapes), "matmul")
    assert node.flops == flops
    assert node.elementwise_flops == elementwise


def test_composed_products_of_torch():
    import torch

    linear = called(torch.nn.functional.linear, (2, 3, 4), (5, 4), (5,))
    assert total(linear) == 2 * 2 * 3 * 4 * 5
    einsum = called(lambda a, b: torch.einsum("bij,bjk->ik", a, b), (2, 3, 4), (2, 4, 5))
    assert total(einsum) == 2 * 2 * 3 * 4 * 5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("name", "before"),
    [("flash_attention_for_cpu", ()), ("efficient_attention", (None, False))],
)
def test_fused_attention_is_two_products_and_a_mask_saves_nothing(name, before, causal):
    # 2 batches, 3 heads, 4 queries on 4 keys, 8 values each: scores, then the weighted sum.
    function = aten(f"_scaled_dot_product_{name}")
    shape = (2, 3, 4, 8)
    program = called(lambda q, k, v: function(q, k, v, *before, 0.0, causal)[0], *[shape] * 3)
    node = only(program, "matmul")
    assert node.flops == 2 * 2 * (2 * 3 * 4 * 4 * 8)
    assert node.elementwise_flops == 5 * 2 * 3 * 4 * 4


def test_layers_of_torch_count_and_keep_their_states():
    import torch

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Flatten()
    )
    inputs = keras.Input((3, 8, 6))
    outputs = layers.TorchModuleWrapper(net, output_shape=(None, 192))(inputs)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    program = run(keras.Model(inputs, outputs), 2, training=True)
    assert total(program) == 2 * 2 * (8 * 6) * 9 * 3 * 4
    assert {variable.trainable for variable in program.variables.values()} == {True}
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.device.type == "cpu"


# --- everything else ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kind", "elementwise"),
    [
        (ops.relu, "elementwise", 24),
        (ops.tanh, "elementwise", 24),
        (ops.softmax, "elementwise", 5 * 24),
        (ops.gelu, "elementwise", 5 * 24),
        (lambda x: x + x, "elementwise", 24),
        (lambda x: x * x, "elementwise", 24),
        (lambda x: ops.cast(x, "float16"), "elementwise", 0),
        (lambda x: ops.sum(x, axis=-1), "reduction", 24),
        (lambda x: ops.max(x), "reduction", 24),
        (lambda x: ops.concatenate([x, x]), "move", 0),
        (lambda x: ops.transpose(x) + 0, "elementwise", 24),
        (lambda x: ops.max_pool(ops.reshape(x, (1, 4, 6, 1)), 2), "pool", 4 * 6),
        (lambda x: ops.average_pool(ops.reshape(x, (1, 24, 1)), 3), "pool", 3 * 8),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_operations(function, kind, elementwise):
    program = called(function, (4, 6))
    found = [node for node in program.nodes if node.kind == kind]
    assert sum(node.elementwise_flops for node in found) == elementwise
    assert len(found) >= 1
    assert total(program) == 0


def test_embedding_moves_what_it_gives():
    program = run(chain((4,), layers.Embedding(11, 5), dtype="int32"))
    node = only(program, "move")
    assert (node.op, node.elementwise_flops) == ("embedding", 0)
    assert program.bytes_of(node.outputs) == 3 * 4 * 5 * 4


def test_unknown_operations_are_listed_and_their_bytes_count():
    program = called(lambda x: ops.rfft(x)[0] + ops.rfft(x)[1], (3, 8))
    assert program.unknown_ops == {"_fft_r2c": 2}
    node = next(node for node in program.nodes if node.kind == "unknown")
    assert program.bytes_of(node.inputs) == 3 * 8 * 4
    assert program.bytes_of(node.outputs) == 3 * 5 * 8  # complex64


def test_the_table_is_in_terms_of_the_program():
    for name, (kind, keeps, flops) in table.RULES.items():
        assert kind in KINDS, name
        assert keeps in KEEPS, name
        assert flops >= 0, name
        assert kind not in ("view", "move") or flops == 0, name
    products = {*table.PRODUCTS, *table.CONVOLUTIONS}
    for group in (table.FREE, table.SAME, products):
        assert not group & set(table.RULES), "an operation with two rules"


def test_the_table_names_operations_that_torch_has():
    import torch

    known = torch.ops.aten
    missing = [
        name
        for name in [*table.RULES, *table.FREE, *table.SAME, *table.PRODUCTS, *table.CONVOLUTIONS]
        if not hasattr(known, name) and not hasattr(known, f"{name}_")
    ]
    assert missing == []


# --- the program -------------------------------------------------------------------------------


def test_program_of_a_dense_layer():
    dense = layers.Dense(5, name="first")
    frozen = layers.Dense(2, name="second", trainable=False)
    program = run(chain((7,), dense, frozen))
    first, second = (node for node in program.nodes if node.kind == "matmul")
    assert (first.layer, second.layer) == ("first", "second")
    assert first.dims == (1, 3, 7, 5)
    assert first.inputs == (first.left, first.right)
    assert first.left == program.inputs[0]
    kernel = program.variables[first.right]
    assert (kernel.path, kernel.trainable) == (dense.kernel.path, True)
    assert not program.variables[second.right].trainable
    assert program.tensors[program.outputs[0]].shape == (3, 2)
    assert program.tensors[program.inputs[0]].dtype == "float32"
    assert program.backend == "torch"


def test_views_share_memory_and_copies_do_not():
    parts = (layers.Permute((2, 1)), layers.Reshape((2, 14)))
    program = run(chain((4, 7), *parts))
    # (4, 7) turned is a view; the reshape of it needs a copy, of which it is a view.
    assert [node.kind for node in program.nodes] == ["view", "move", "view"]
    turned, copied, result = (node.outputs[0] for node in program.nodes)
    assert program.base(turned) == program.inputs[0]
    assert program.base(copied) == copied
    assert program.base(result) == copied


def test_what_is_written_in_place_counts():
    def function(x, weight):
        buffer = ops.zeros((2, 3, 5))
        buffer[0] = x @ weight  # through a view
        buffer.add_(1.0)
        return buffer

    program = called(function, (3, 4), (4, 5))
    assert total(program) == 2 * 3 * 4 * 5
    add = next(node for node in program.nodes if node.op == "add")
    assert program.base(add.outputs[0]) == program.base(add.inputs[0])


def test_recurrent_layers_run_one_product_per_step():
    """Keras' loop calls a cell once more, to learn a shape; nothing reads the result."""
    program = run(chain((4, 5), layers.SimpleRNN(6)))
    assert sum(node.op == "mm" and node.dims == (1, 3, 6, 6) for node in program.nodes) == 4


def test_new_moving_means_are_computed_in_training_only():
    model = chain((8,), layers.BatchNormalization(name="norm"))
    assert len(run(model, training=True).nodes) > len(run(model).nodes)
    assert len(run(model, training=True).states) == 2
    assert run(model).states == []


def test_mixed_precision_is_seen():
    model = chain((8,), layers.Dense(4, dtype="mixed_bfloat16"))
    program = run(model)
    product = only(program, "matmul")
    assert {program.tensors[key].dtype for key in product.inputs} == {"bfloat16"}
    casts = [node for node in program.nodes if node.op == "_to_copy"]
    assert [node.elementwise_flops for node in casts] == [0, 0, 0]  # input, kernel, bias


@pytest.mark.parametrize("layer", [layers.Dropout, layers.GaussianNoise, layers.AlphaDropout])
@pytest.mark.parametrize("seed", [None, 7])
def test_random_layers(layer, seed):
    program = run(chain((8,), layer(0.5, seed=seed)), training=True)
    assert sum(node.kind == "random" for node in program.nodes) == 1
    assert [node.kind for node in run(chain((8,), layer(0.5, seed=seed))).nodes] == []


# --- nothing is computed, nothing is changed ------------------------------------------------------


def test_nothing_of_the_models_size_is_allocated():
    # 8 million samples: 400 TB of activations.
    model = chain((256, 256, 3), layers.Conv2D(64, 3, padding="same"), layers.MaxPooling2D())
    assert total(run(model, 8_000_000)) == 2 * 8_000_000 * 256 * 256 * 27 * 64


def test_states_stay_as_they_were():
    import torch

    dropout = layers.Dropout(0.5, seed=3)
    model = chain((6,), layers.Dense(4), layers.BatchNormalization(), dropout, layers.Dense(2))
    attributes = [set(vars(layer)) for layer in model.layers]
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    assert any("seed" in variable.path for variable in model.variables)
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    run(model, training=True)
    run(model, training=True)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    np.testing.assert_array_equal(np.random.get_state()[1], generators[2])
    for variable, before in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), before)
    assert [set(vars(layer)) for layer in model.layers] == attributes
    assert torch.is_grad_enabled()
    assert ops.zeros(1).device.type == keras.ops.convert_to_tensor(1.0).device.type != "meta"
    model.compile("sgd", "mse")
    model.train_on_batch(np.random.rand(2, 6), np.ones((2, 2)))
    after = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    assert not np.array_equal(after[0], weights[0]), "the model still trains"


# --- what can't be traced -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (
            lambda x: x if ops.max(x) > 0 else -x,
            r"layer 'choice' stops at torch's operation 'item'.*KERAS_BACKEND=tensorflow or jax",
        ),
        (
            lambda x: ops.convert_to_tensor(ops.convert_to_numpy(x)),
            r"without values.*KERAS_BACKEND=tensorflow or jax",
        ),
        (
            lambda x: ops.nonzero(x)[0],
            r"layer 'choice' stops at torch's operation 'nonzero'",
        ),
    ],
    ids=["if", "numpy", "nonzero"],
)
def test_models_that_need_values(function, match):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Call(function, name="choice")(inputs))
    with pytest.raises(ValueError, match=match):
        run(model)


# --- what this stands on --------------------------------------------------------------------------


def test_torch_still_dispatches_as_the_trace_needs_it():
    """The private module of `TorchDispatchMode`, names by `str`, one object for one tensor."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            seen.append((str(func), [id(a) for a in args if hasattr(a, "dtype")], id(result)))
            return result

    x = torch.empty(3, 4, device="meta")
    with torch.no_grad(), Mode():
        y = torch.nn.functional.linear(x, torch.empty(5, 4, device="meta"))
        z = y.add_(1.0)
    names = "aten.empty.memory_format aten.t.default aten.mm.default aten.add_.Tensor"
    assert " ".join(name for name, _, _ in seen) == names
    (_, _, turned), (_, mm_from, mm), (_, add_from, add) = seen[1:]
    assert mm_from == [id(x), turned]
    assert add_from[0] == mm == add == id(z)


def test_keras_brings_tensors_to_a_device_as_the_trace_expects():
    """`empty_like` with a device stands for the tensor itself."""
    import torch

    model = chain((4,), layers.ReLU())
    program = run(model)
    assert [node.op for node in program.nodes] == ["relu"]
    assert program.nodes[0].inputs == (program.inputs[0],)
    with keras.device("cpu"):
        assert not keras.ops.convert_to_tensor(torch.empty(3, device="meta")).is_meta
