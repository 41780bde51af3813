"""Private names of other libraries that the room rests on: a release that drops one shows here."""

import keras
import pytest
from keras import layers

from bigzoo.cost import _trace


def test_keras_keeps_the_remat_mode_on_the_layer():
    with keras.RematScope(mode="list_of_layers", layer_names=["one"]):
        one, two = layers.Dense(2, name="one"), layers.Dense(2, name="two")
    with keras.RematScope(mode="full"):
        three = layers.Dense(2, name="three")
    plain = layers.Dense(2, name="plain")
    assert hasattr(plain, _trace._REMAT)
    found = [_trace._is_rematerialised(layer, 0) for layer in (one, two, three, plain)]
    assert found == [True, False, True, False]


def test_keras_calls_the_method_that_lies_on_the_object():
    """`layer_scopes` shadows `call` there."""
    layer = layers.Dense(2, name="dense")
    model = keras.Sequential([keras.Input((3,)), layer])
    entered = []

    class Scope:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            entered.append(self.name)

        def __exit__(self, *_):
            entered.append("out")

    with _trace.layer_scopes({"dense": layer}, Scope):
        model(keras.ops.zeros((1, 3)))
    assert entered == ["dense", "out"]
    model(keras.ops.zeros((1, 3)))
    assert entered == ["dense", "out"]


@pytest.mark.tensorflow
def test_tensorflow_finds_the_body_of_a_call():
    import tensorflow as tf

    inner = tf.function(lambda x: x + 1)
    outer = tf.function(lambda x: inner(x)).get_concrete_function(tf.TensorSpec((2,)))
    (call,) = [op for op in outer.graph.get_operations() if op.type.endswith("PartitionedCall")]
    body = outer.graph._get_function(call.get_attr("f").name).graph
    assert "AddV2" in [op.type for op in body.get_operations()]
    assert len(body.inputs) == len(call.inputs)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX")
def test_a_jaxprs_equation_knows_its_scope():
    import jax

    def f(x):
        with jax.named_scope("bigzoo_layer_7"):
            return jax.numpy.sin(x)

    (eqn,) = jax.make_jaxpr(f)(1.0).jaxpr.eqns
    assert "bigzoo_layer_7" in str(eqn.source_info.name_stack)
