"""What holds for every model of the zoo. A model that is registered is tested here."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import keras
import numpy as np
import pytest

from bigzoo.models._registry import REGISTRY

TESTS = Path(__file__).resolve().parents[1]
POLICIES = ("mixed_bfloat16", "mixed_float16")
# Scaling of pixels, and the layers that make the outputs of a model.
IN_FLOAT32 = ("preprocess", "predictions", "mlm_bias", "mean_pool", "embedding")
# By the error function, which is slow on numbers of 16 bits (see bert.py).
BERT_GELUS = tuple(f"layer{index}_mlp_gelu" for index in range(2))
# Tables that are looked up once for the whole batch.
SHARED = ("position_embedding", "target_position_embedding", "mlm_bias")
# Forms of a model that end in something else than a classifier.
WITHOUT_CLASSIFIER = ("bert/masked_lm", "bert/embedding")


def _script():
    spec = importlib.util.spec_from_file_location(
        "make_model_names", TESTS / "golden" / "make_model_names.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
# Every model in every variant, then forms that have other layers or another head.
CASES = {
    **SCRIPT.configurations(),
    **SCRIPT.FORMS,
    "mlp/multiclass": ("mlp", {"hidden_dims": (5,), "num_outputs": 3, "task": "multiclass"}),
    "mlp/multilabel": ("mlp", {"hidden_dims": (5,), "num_outputs": 3, "task": "multilabel"}),
    "mlp/regression": ("mlp", {"hidden_dims": (5,), "num_outputs": 2, "task": "regression"}),
    "cnn/sigmoid": (
        "cnn",
        {"input_shape": (20, 24, 1), "variant": "plain", "classifier_activation": "sigmoid"},
    ),
}
GOLDEN = json.loads(SCRIPT.GOLDEN.read_text(encoding="utf-8"))

every_model = pytest.mark.parametrize("label", CASES)


def build(label: str, **more):
    """The model of a case, from fixed seeds."""
    name, arguments = CASES[label]
    keras.utils.set_random_seed(1)
    return REGISTRY[name].function()(**{**arguments, **more})


# Name of an input -> one batch for it. Lengths that the model leaves open are LENGTH here.
LENGTH = 7
INPUTS = {
    "image": lambda rng, shape, size: rng.integers(0, 256, shape).astype("float32"),
    "features": lambda rng, shape, size: rng.normal(size=shape).astype("float32"),
    "series": lambda rng, shape, size: rng.normal(size=shape).astype("float32"),
    "token_ids": lambda rng, shape, size: rng.integers(1, size, shape).astype("int32"),
    "target_ids": lambda rng, shape, size: rng.integers(1, size, shape).astype("int32"),
    "segment_ids": lambda rng, shape, size: rng.integers(0, 2, shape).astype("int32"),
    # The last place of each row is padding.
    "padding_mask": lambda rng, shape, size: (np.indices(shape)[1] < shape[1] - 1).astype("int32"),
}


def vocabulary(model) -> int:
    """Ids that every embedding of tokens in the model has a row for."""
    sizes = [layer.input_dim for layer in model.layers if hasattr(layer, "input_dim")]
    return min([size for size in sizes if size > 4], default=5)


def inputs(model, batch: int = 3, dtype: str = "float32"):
    """An array, or a dict of arrays by the names of the inputs, that the model is made for."""
    rng = np.random.default_rng(0)
    size = vocabulary(model)
    made = {}
    for each in model.inputs:
        shape = (batch, *(LENGTH if side is None else side for side in each.shape[1:]))
        made[each.name] = INPUTS[each.name](rng, shape, size)
        if each.name == "image":
            made[each.name] = made[each.name].astype(dtype)
    return made if len(made) > 1 else next(iter(made.values()))


def rows(x, start: int, stop: int):
    return keras.tree.map_structure(lambda array: array[start:stop], x)


def output(model, x) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def has_head(label: str) -> bool:
    """Whether the model ends in a classifier or a regression, and so in "predictions"."""
    tasks = REGISTRY[CASES[label][0]].tasks
    return label not in WITHOUT_CLASSIFIER and any(
        task.rpartition("-")[2] in ("classification", "regression") for task in tasks
    )


def unchanged_weights(model, steps: int = 3) -> list[str]:
    """Paths of the trainable weights that some steps of gradient descent leave as they were.

    The same on every backend. One step isn't enough: a gamma that starts at 0 hides what is behind.
    """
    x = inputs(model, batch=4)
    y = np.random.default_rng(1).random(output(model, x).shape, dtype="float32")
    before = [keras.ops.convert_to_numpy(w).copy() for w in model.trainable_weights]
    jit = keras.backend.backend() == "jax"  # one compiled step starts sooner than its many parts
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit)
    for _ in range(steps):
        model.train_on_batch(x, y)
    after = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    pairs = zip(model.trainable_weights, before, after, strict=True)
    return [weight.path for weight, old, new in pairs if np.array_equal(old, new)]


def unnamed_layers(model) -> list[str]:
    """Layers whose name Keras made up: the class name in snake case, with or without a number."""
    found = []
    for layer in model.layers:
        made_up = "".join(
            f"_{letter.lower()}" if letter.isupper() else letter for letter in type(layer).__name__
        ).strip("_")
        # "Conv2D" becomes "conv2d", so compare without the underscores.
        if layer.name.rstrip("_0123456789").replace("_", "") == made_up.replace("_", ""):
            found.append(layer.name)
    return found


# --- structure -------------------------------------------------------------------------------


@every_model
def test_is_a_plain_uncompiled_functional_model(label):
    model = build(label)
    assert type(model) is type(keras.Model(inputs=(i := keras.Input((1,))), outputs=i))
    assert not model.compiled
    assert model.built
    assert model.name == CASES[label][0]
    assert {each.name for each in model.inputs} <= set(INPUTS)
    if has_head(label):
        assert model.layers[-1].name == "predictions"


@every_model
def test_layers_are_named_and_stock(label):
    model = build(label)
    made_up = set(unnamed_layers(model)) - {"dropout", "flatten"}  # names given on purpose
    assert not made_up
    for layer in model.layers:
        assert not isinstance(layer, keras.layers.Lambda)
        assert "." not in layer.name  # PyTorch's modules can't have such names
        assert getattr(keras.layers, type(layer).__name__, None) is type(layer)


@pytest.mark.parametrize("label", GOLDEN)
def test_names_equal_the_golden_file(label):
    assert label in CASES, "a model or variant is gone: files saved with it can't be rebuilt"
    assert SCRIPT.describe(*CASES[label]) == GOLDEN[label]


def test_golden_file_has_every_model():
    expected = {*SCRIPT.configurations(), *SCRIPT.FORMS}
    assert set(GOLDEN) == expected, "run tests/golden/make_model_names.py"


@every_model
def test_features_of_every_layer_can_be_had(label):
    model = build(label)
    parts = [keras.Model(model.input, model.get_layer(each.name).output) for each in model.layers]
    together = keras.Model(model.input, [part.output for part in parts])
    x = inputs(model)
    batch = len(keras.tree.flatten(x)[0])
    values = together(x, training=False)
    for layer, value in zip(model.layers, values, strict=True):
        sides = zip(value.shape[1:], layer.output.shape[1:], strict=True)
        assert all(side == promised or promised is None for side, promised in sides), layer.name
        assert value.shape[0] == batch or layer.name in SHARED


@every_model
def test_batch_size_is_free(label):
    model = build(label)
    assert all(each.shape[0] is None for each in model.inputs)
    assert model.output.shape[0] is None


# --- numbers ---------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_predictions_on_raw_input_are_finite(label, dtype):
    model = build(label)
    values = output(model, inputs(model, dtype=dtype))
    assert values.dtype == "float32"
    assert np.isfinite(values).all()
    activation = getattr(model.layers[-1], "activation", None)
    if has_head(label) and activation is not keras.activations.linear:
        assert values.min() >= 0
        assert values.max() <= 1
    if has_head(label) and activation is keras.activations.softmax:
        np.testing.assert_allclose(values.sum(axis=-1), 1, rtol=1e-5)


@every_model
def test_rows_are_independent(label):
    model = build(label)
    x = inputs(model, batch=3)
    together = output(model, x)
    alone = np.concatenate([output(model, rows(x, i, i + 1)) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert not np.allclose(together[0], together[1], rtol=1e-4, atol=1e-7)


@every_model
def test_gradient_reaches_every_trainable_weight(label):
    assert unchanged_weights(build(label)) == []


@every_model
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("given", ["globally", "as argument"])
def test_head_is_float32_under_mixed_precision(label, policy, given):
    if given == "globally":
        keras.config.set_dtype_policy(policy)
        model = build(label)
        assert keras.config.dtype_policy().name == policy
    else:
        model = build(label, dtype=policy)
        assert keras.config.dtype_policy().name == "float32"
    assert model.output.dtype == "float32"
    values = output(model, inputs(model))
    assert values.dtype == "float32"
    assert np.isfinite(values).all()
    assert {each.dtype for each in model.inputs} <= {"float32", "int32"}
    computing = [each for each in model.layers if not isinstance(each, keras.layers.InputLayer)]
    for layer in computing:
        exact = layer.name in IN_FLOAT32 or layer.name in BERT_GELUS
        wanted = "float32" if exact else policy.removeprefix("mixed_")
        assert layer.compute_dtype == wanted, layer.name
    assert {str(w.dtype) for w in model.trainable_weights} == {"float32"}


# --- files -----------------------------------------------------------------------------------


@every_model
def test_keras_file_round_trip_is_bit_equal(label, tmp_path):
    model = build(label)
    x = inputs(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.weights) == len(model.weights)
    for new, old in zip(again.weights, model.weights, strict=True):
        # Bidirectional leaves its own name out of the paths of its cells when it is loaded.
        assert old.path == new.path or old.path.endswith(f"/{new.path}")
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(output(model, x), output(again, x))


def test_files_load_without_bigzoo(tmp_path, run_python):
    """One process for all models: plain Keras must be enough."""
    for number, label in enumerate(CASES):
        model = build(label)
        x = inputs(model)
        model.save(tmp_path / f"{number}.keras")
        arrays = x if isinstance(x, dict) else {"x": x}
        np.savez(tmp_path / f"{number}.npz", **arrays, y=output(model, x))
    code = f"""
import sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bigzoo":
            raise ModuleNotFoundError("blocked", name=name)

sys.meta_path.insert(0, Block())
import keras, numpy as np
count = 0
for file in Path({str(tmp_path)!r}).glob("*.keras"):
    model, data = keras.models.load_model(file), dict(np.load(file.with_suffix(".npz")))
    expected = data.pop("y")
    y = keras.ops.convert_to_numpy(model(data.get("x", data), training=False))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    count += 1
try:
    import bigzoo
except ModuleNotFoundError:
    print(count)
"""
    assert run_python(code, backend=keras.backend.backend()).split()[-1] == str(len(CASES))


# --- manners ---------------------------------------------------------------------------------


@every_model
def test_unknown_argument_is_an_error(label):
    with pytest.raises(TypeError, match="no_such_argument"):
        build(label, no_such_argument=1)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"name": "a/b"}, ValueError, r"`name` is 'a/b'; expected a name without '/'"),
        ({"name": 3}, TypeError, r"`name` is 3; expected"),
        ({"dtype": "mixed_bfloat61"}, ValueError, r"`dtype`.*Did you mean 'mixed_bfloat16'"),
        ({"dtype": 16}, TypeError, r"`dtype` is 16; expected the name of a dtype policy"),
    ],
)
def test_bad_common_arguments(name, arguments, error, text):
    entry = REGISTRY[name]
    with pytest.raises(error, match=text):
        entry.function()(**{**entry.tiny, **arguments})


@every_model
def test_call_leaves_global_state_alone(label):
    """Python's own generator is left out: Keras draws the seed of each new layer from it."""
    config = keras.config

    def state():
        numpy_state = tuple(map(str, np.random.get_state()))
        flags = config.is_traceback_filtering_enabled(), config.is_interactive_logging_enabled()
        names = config.dtype_policy().name, config.floatx(), config.image_data_format()
        return numpy_state, names, flags, config.epsilon()

    name, arguments = CASES[label]
    before = state()
    REGISTRY[name].function()(**arguments)
    assert state() == before


@every_model
def test_seed_decides_the_weights(label):
    name, arguments = CASES[label]
    function = REGISTRY[name].function()
    first, again = build(label), build(label)
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    other = function(**arguments)  # built next without a new seed: must not be a copy
    assert any(
        not np.array_equal(one, two)
        for one, two in zip(again.get_weights(), other.get_weights(), strict=True)
    )


# --- the checks above can fail ----------------------------------------------------------------


def test_a_weight_without_gradient_is_found():
    x = keras.Input((3,), name="features")
    lost = keras.layers.Dense(2, name="lost")(x)
    y = keras.layers.Dense(1, name="predictions")(keras.layers.ReLU(0.0, name="zero")(lost * 0.0))
    model = keras.Model(x, y)
    assert unchanged_weights(model) == ["lost/kernel", "lost/bias", "predictions/kernel"]


def test_a_made_up_name_is_found():
    random.seed(0)
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(2, 3)(x)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Conv2D(2, 3, name="conv2")(y)
    assert len(unnamed_layers(keras.Model(x, y))) == 2
