import numpy as np
import pytest

from bigzoo.data import PET_NAMES, Augment, Batches, drawn_pets


def test_shapes_types_and_balance():
    x, y = drawn_pets(21, image_size=(48, 64))
    assert x.shape == (21, 48, 64, 3) and x.dtype == np.uint8
    assert y.shape == (21,) and y.dtype == np.int64
    assert sorted(np.bincount(y)) == [10, 11]
    assert PET_NAMES == ("cat", "dog")
    assert x.std() > 30


def test_the_same_for_a_seed_and_whatever_n_is():
    x, y = drawn_pets(12, seed=5)
    x_more, y_more = drawn_pets(20, seed=5)
    np.testing.assert_array_equal(x_more[:12], x)
    np.testing.assert_array_equal(y_more[:12], y)


def test_another_seed_gives_other_pictures_and_order():
    x, y = drawn_pets(40)
    x_other, y_other = drawn_pets(40, seed=1)
    assert all((a != b).mean() > 0.3 for a, b in zip(x, x_other, strict=True))
    assert (y != y_other).any()
    assert len({image.tobytes() for image in x}) == 40


def test_leaves_numpy_random_state_alone():
    before = np.random.get_state()[1].copy()
    drawn_pets(2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("size", [(16, 16), (224, 224), (40, 120), (120, 40)])
def test_sizes(size):
    x, _ = drawn_pets(2, image_size=size)
    assert x.shape == (2, *size, 3) and x.std() > 20


@pytest.fixture(scope="module")
def thousand():
    x, y = drawn_pets(1000, seed=11)
    return x.astype("float32") / 255, y


@pytest.mark.parametrize(
    "name", ["8 x 8 colour", "16 x 16 colour", "8 x 8 grey", "mean colour", "pixels"]
)
def test_a_linear_model_fails(thousand, name):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = thousand
    features = {
        "8 x 8 colour": lambda: x.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4)),
        "16 x 16 colour": lambda: x.reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4)),
        "8 x 8 grey": lambda: x.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4, 5)),
        "mean colour": lambda: np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], 1),
        "pixels": lambda: x[:, ::2, ::2],
    }[name]()
    rows = StandardScaler().fit_transform(features.reshape(len(x), -1))
    linear = LogisticRegression(C=0.01, max_iter=100).fit(rows[:700], y[:700])
    score = linear.score(rows[700:], y[700:])
    assert score < 0.7, f"{name}: {score:.0%} of held-out pets by a linear model"


@pytest.mark.large
def test_a_small_network_learns_them():
    import keras

    keras.utils.set_random_seed(0)
    x, y = drawn_pets(2000)
    x_test, y_test = drawn_pets(500, seed=1)
    layers = [keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 255)]
    for filters in (24, 48, 96):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(2, activation="softmax", dtype="float32"),
    ]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    augment = Augment(crop_scale=(0.8, 1.0))
    train = Batches(x, y, batch_size=64, shuffle=True, augment=augment)
    model.fit(train, epochs=15, shuffle=False, verbose=2)
    score = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    assert score >= 0.95, f"{score:.1%} of held-out pets"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"n": 0}, ValueError, "`n` is 0; expected an integer at least 1"),
        ({"n": 2.5}, TypeError, "`n` is 2.5"),
        ({"image_size": 64}, TypeError, r"Write image_size=\(64, 64\)"),
        ({"image_size": (8, 64)}, ValueError, "`image_size` is 8; expected an integer at least 16"),
        ({"image_size": (64, 64, 3)}, ValueError, r"expected \(height, width\)"),
        ({"seed": -1}, ValueError, "`seed` is -1"),
        ({"seed": None}, TypeError, "`seed` is None"),
    ],
)
def test_bad_input(arguments, error, match):
    with pytest.raises(error, match=match):
        drawn_pets(**{"n": 1, **arguments})
