"""One seed, the same weights."""

import keras
import numpy as np
import pytest

import bigzoo

PROGRAM = """
import hashlib, keras, numpy as np
import bigzoo
bigzoo.set_seed({seed})
model = keras.Sequential([
    keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.5),
    keras.layers.Dense(2),
])
model.compile("sgd", "mse")
model.train_on_batch(np.ones((4, 8), "float32"), np.zeros((4, 2), "float32"))
data = b"".join(weight.tobytes() for weight in model.get_weights())
print("digest", hashlib.sha256(data + np.random.rand(3).tobytes()).hexdigest())
"""


def test_two_processes_are_identical(run_python):
    backend = keras.backend.backend()
    outputs = [run_python(PROGRAM.format(seed=1), backend=backend) for _ in range(2)]
    first, second = (output.split("digest", 1)[1].strip() for output in outputs)
    assert len(first) == 64
    assert first == second


def test_another_seed_gives_other_weights():
    weights = []
    for seed in (1, 1, 2):
        bigzoo.set_seed(seed)
        layer = keras.layers.Dense(3)
        layer.build((None, 4))
        weights.append(keras.ops.convert_to_numpy(layer.kernel))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 0.01


@pytest.mark.parametrize(
    ("seed", "error", "text"),
    [
        (-1, ValueError, "`seed` is -1; expected an integer at least 0"),
        (2**32, ValueError, "at most 4294967295"),
        (1.5, TypeError, "`seed` is 1.5; expected an integer"),
        ("one", TypeError, "`seed` is 'one'"),
        (None, TypeError, "`seed` is None"),
        (True, TypeError, "`seed` is True"),
    ],
)
def test_bad_input(seed, error, text):
    with pytest.raises(error, match=text):
        bigzoo.set_seed(seed)
