"""What is read from a model's last layers, and what is left unknown."""

import keras
import pytest

from bigzoo.train._outputs import describe_outputs

L = keras.layers


def functional(*layers, units=8):
    inputs = keras.Input((4,))
    tensor = L.Dense(units, activation="relu")(inputs)
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


@pytest.mark.parametrize(
    ("layers", "kind", "activation", "units"),
    [
        ([L.Dense(3, activation="softmax")], "softmax", "softmax", 3),
        ([L.Dense(3), L.Softmax()], "softmax", "softmax", 3),
        ([L.Dense(3), L.Softmax(axis=1)], "softmax", "softmax", 3),
        ([L.Dense(3), L.Activation("softmax"), L.Activation("linear")], "softmax", "softmax", 3),
        ([L.Dense(1, activation="sigmoid")], "sigmoid", "sigmoid", 1),
        ([L.Dense(5, activation=keras.ops.sigmoid)], "sigmoid", "sigmoid", 5),
        ([L.Dense(3, activation="sigmoid"), L.Reshape((3, 1))], "sigmoid", "sigmoid", 1),
        ([L.Dense(2)], "linear", "linear", 2),
        ([L.Dense(2), L.Dropout(0.5), L.Identity()], "linear", "linear", 2),
        ([L.Dense(2, activation="relu")], "other", "relu", 2),
        ([L.Dense(2, activation=L.LeakyReLU())], "other", "leaky_relu", 2),
        ([L.Dense(2), L.ReLU()], "other", "relu", 2),
        ([L.Dense(2, activation="log_softmax")], "other", "log_softmax", 2),
        ([L.Reshape((8, 1)), L.LSTM(3)], "other", "tanh", 3),
        ([L.Dense(2, activation=lambda x: x + 1)], "unknown", "unknown", 2),
        ([L.Dense(2, activation="softmax"), L.Rescaling(2.0)], "unknown", "unknown", 2),
        ([L.BatchNormalization()], "unknown", "unknown", 8),
        ([L.Reshape((2, 4)), L.Softmax(axis=1)], "other", "softmax_other_axis", 4),
        ([L.Dense(3, activation="softmax"), L.Reshape((3, 1))], "other", "softmax_other_axis", 1),
    ],
)
def test_last_layers(layers, kind, activation, units):
    model = functional(*layers)
    (found,) = describe_outputs(model)
    assert (found.kind, found.activation, found.units) == (kind, activation, units)
    assert found.shape == model.output_shape
    assert found.name == model.output_names[0]


def test_an_operation_as_output():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.softmax(L.Dense(3)(inputs)))
    assert describe_outputs(model)[0].kind == "softmax"


def test_sum_of_two_layers_is_unknown():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Add()([L.Dense(3)(inputs), L.Dense(3)(inputs)]))
    assert describe_outputs(model)[0].kind == "unknown"


def test_several_outputs_keep_their_order():
    inputs = keras.Input((4,))
    outputs = [L.Dense(1, name="price")(inputs), L.Dense(2, "softmax", name="kind")(inputs)]
    found = describe_outputs(keras.Model(inputs, outputs))
    assert [(o.name, o.layer, o.kind) for o in found] == [
        ("price", "price", "linear"),
        ("kind", "kind", "softmax"),
    ]


def test_a_dict_of_outputs_gives_its_keys():
    inputs = keras.Input((4,))
    outputs = {"b": L.Dense(1, name="z")(inputs), "a": L.Dense(2, "sigmoid", name="y")(inputs)}
    found = describe_outputs(keras.Model(inputs, outputs))
    assert {o.name: (o.layer, o.kind) for o in found} == {
        "b": ("z", "linear"),
        "a": ("y", "sigmoid"),
    }


def test_sequential_before_and_after_build():
    model = keras.Sequential([L.Dense(3), L.Activation("sigmoid")])
    (before,) = describe_outputs(model)
    assert (before.kind, before.units, before.shape) == ("sigmoid", None, None)
    model.build((None, 4))
    (after,) = describe_outputs(model)
    assert (after.kind, after.units, after.shape) == ("sigmoid", 3, (None, 3))
    assert describe_outputs(keras.Sequential())[0].kind == "unknown"
    assert describe_outputs(keras.Sequential([L.Dense(2)]))[0].units == 2


def test_a_model_inside_a_model():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")])
    inputs = keras.Input((4,))
    (found,) = describe_outputs(keras.Model(inputs, inner(inputs)))
    assert (found.kind, found.units) == ("softmax", 3)


def test_a_model_after_saving(tmp_path):
    functional(L.Dense(3, activation="softmax")).save(tmp_path / "m.keras")
    assert describe_outputs(keras.models.load_model(tmp_path / "m.keras"))[0].kind == "softmax"


def test_a_subclassed_model_is_unknown():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2, activation="softmax")

        def call(self, x):
            return -self.dense(x)

    (found,) = describe_outputs(Own())
    assert (found.kind, found.layer, found.shape) == ("unknown", None, None)


def test_not_a_model():
    with pytest.raises(TypeError, match=r"`model` is 3; expected a keras\.Model"):
        describe_outputs(3)
