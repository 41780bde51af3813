"""Distillation: the loss by hand, plain students, and clear errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress._soft_targets import DistillationLoss, pack

L = keras.layers


def network(units, activation=None, width=8, name=None, inputs=4):
    layers = [keras.Input((inputs,)), L.Dense(width, "relu"), L.Dense(units, activation)]
    return keras.Sequential(layers, name=name)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def numpy_of(value):
    return np.asarray(keras.ops.convert_to_numpy(value))


@pytest.fixture
def logits(rng):
    return rng.normal(0, 3, (6, 4)), rng.normal(0, 3, (6, 4))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# === The loss (trap: Keras' default leaves out softmax and T squared) ===


def by_hand(teacher, student, y, temperature, alpha):
    """Hinton et al. 2015, section 2, in float64."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    soft = temperature**2 * np.sum(p * np.log(p / q), axis=1)
    if y is None:
        return soft.mean()
    hard = -np.log(softmax(student)[np.arange(len(y)), np.maximum(y, 0)])
    weight = np.where(y >= 0, alpha, 0.0)
    return np.mean((1 - weight) * soft + weight * hard)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 20.0])
@pytest.mark.parametrize("labels", ["none", "all", "some"])
@pytest.mark.parametrize("ends", ["logits", "softmax"])
def test_the_loss_has_the_value_by_hand(logits, temperature, labels, ends):
    teacher, student = logits
    y = {"none": None, "all": np.array([0, 1, 2, 3, 0, 1]), "some": np.array([0, -1, 2, -1, -1, 1])}
    loss = DistillationLoss("softmax" if ends == "softmax" else "softmax_logits", temperature, 0.3)
    given = [softmax(z) if ends == "softmax" else z for z in logits]
    kind = loss.kind
    targets = pack(given[0].astype("float32"), kind, y[labels])
    found = float(loss(targets, given[1].astype("float32")))
    assert found == pytest.approx(by_hand(teacher, student, y[labels], temperature, 0.3), rel=1e-4)


def test_a_known_value():
    """Two classes, T = 2: KL((0.7311, 0.2689) || (0.5, 0.5)) = 0.110944; times 4 is 0.443776."""
    targets = pack(np.array([[2.0, 0.0]], "float32"), "softmax_logits", None)
    loss = DistillationLoss("softmax_logits", 2.0, 0.0)
    assert float(loss(targets, np.zeros((1, 2), "float32"))) == pytest.approx(0.443776, abs=1e-5)


def test_the_loss_is_that_of_keras_done_right_and_not_its_default(logits):
    teacher, student = (z.astype("float32") for z in logits)
    right = keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())
    default = keras.distillation.LogitsDistillation(3.0)
    targets = pack(teacher, "softmax_logits", None)
    found = float(DistillationLoss("softmax_logits", 3.0, 0.1)(targets, student))
    given = [keras.ops.convert_to_tensor(z) for z in (teacher, student)]
    assert found == pytest.approx(float(right.compute_loss(*given)), rel=1e-4)
    assert abs(found - float(default.compute_loss(*given))) > 1


def test_one_unit_is_two_classes(rng):
    z, w = rng.normal(size=(5, 1)), rng.normal(size=(5, 1))
    two = [np.concatenate([0 * a, a], axis=1) for a in (z, w)]
    expected = by_hand(two[0], two[1], np.array([0, 1, 1, 0, 1]), 3.0, 0.2)
    y = np.array([[0], [1], [1], [0], [1]])
    for kind, turn in (
        ("sigmoid_logits", lambda a: a),
        ("sigmoid", lambda a: 1 / (1 + np.exp(-a))),
    ):
        targets = pack(turn(z).astype("float32"), kind, y)
        found = DistillationLoss(kind, 3.0, 0.2)(targets, turn(w).astype("float32"))
        assert float(found) == pytest.approx(expected, rel=1e-4)


def test_several_questions_are_the_mean_of_one_each(rng):
    z, w = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    y = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1]])
    parts = []
    for i in range(2):
        two = [np.stack([0 * a[:, i], a[:, i]], axis=1) for a in (z, w)]
        parts.append(by_hand(two[0], two[1], y[:, i], 2.0, 0.4))
    targets = pack(z.astype("float32"), "multilabel_logits", y)
    found = DistillationLoss("multilabel_logits", 2.0, 0.4)(targets, w.astype("float32"))
    assert float(found) == pytest.approx(np.mean(parts), rel=1e-4)


def test_numbers_are_compared_by_their_squares():
    targets = pack(np.array([[1.0], [2.0]], "float32"), "numbers", np.array([3.0, 2.0]))
    found = DistillationLoss("numbers", 3.0, 0.25)(targets, np.array([[0.0], [2.0]], "float32"))
    assert float(found) == pytest.approx((0.75 * 1 + 0.25 * 9) / 2)


def test_extreme_probabilities_stay_finite():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    for kind, outputs in (("softmax", sure), ("sigmoid", sure[:, :1]), ("multilabel", sure)):
        targets = pack(outputs, kind, None)
        assert np.isfinite(targets).all()
        value = float(DistillationLoss(kind, 1.0, 0.0)(targets, 1 - outputs))
        assert np.isfinite(value)
        assert value > 10


# === Training ===


def circles(rng, count):
    x = rng.normal(size=(count, 4)).astype("float32")
    return x, (np.square(x[:, :2]).sum(axis=1) > 1.4).astype("int64")


@pytest.fixture(scope="module")
def teacher():
    """Trained once; no test may change it."""
    rng = np.random.default_rng(1)
    x, y = circles(rng, 600)
    model = network(2, "softmax", width=48, name="teacher")
    model.class_names = ("inside", "outside")
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x, y, epochs=12, batch_size=60, verbose=0)
    return model


def test_unlabelled_samples_teach_a_plain_student(teacher, rng):
    x, y = circles(rng, 1000)
    student = network(2, "softmax", width=16, name="student")
    student.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    optimizer, before = student.optimizer, [numpy_of(w) for w in teacher.weights]
    found = bz.compress.distill(
        student, teacher, x[:600], epochs=8, batch_size=50, verbose=0,
        validation_data=(x[600:], y[600:]), latency=False,
    )  # fmt: skip
    assert found is student
    assert type(student) is keras.Sequential
    assert student.optimizer is optimizer
    assert student.loss == "sparse_categorical_crossentropy"
    assert student.class_names == ("inside", "outside")
    assert all(np.array_equal(a, numpy_of(b)) for a, b in zip(before, teacher.weights, strict=True))
    assert teacher.trainable
    agreement = np.mean(
        student.predict(x, verbose=0).argmax(1) == teacher.predict(x, verbose=0).argmax(1)
    )
    assert agreement > 0.85
    receipt = student.receipt
    assert receipt.action == "distill"
    assert receipt.score_name == "accuracy"
    assert receipt.after.score == pytest.approx(
        student.evaluate(x[600:], y[600:], verbose=0)[1], abs=1e-6
    )
    assert receipt.difference.agreement > 0.85
    assert receipt.before.params == 4 * 48 + 48 + 48 * 2 + 2
    assert any("of the student before" in note for note in receipt.notes)


@pytest.mark.large
def test_the_same_seed_gives_the_same_student(teacher, rng):
    x, _ = circles(rng, 64)
    found = []
    for seed in (0, 0):
        keras.utils.set_random_seed(3)
        student = network(2)
        bz.compress.distill(
            student, teacher, x, epochs=2, batch_size=16, seed=seed, verbose=0, latency=False
        )
        found.append(student.predict(x, verbose=0))
    np.testing.assert_array_equal(found[0], found[1])


def test_augmented_batches_without_labels(teacher, rng):
    x, _ = circles(rng, 40)
    seen = []

    def shift(x, y, rng):
        seen.append(x + rng.normal(size=x.shape).astype("float32"))
        return seen[-1], y

    data = bz.data.Batches(x, batch_size=20, augment=shift)
    student = network(2)
    student.compile(keras.optimizers.SGD(0.0))
    bz.compress.distill(student, teacher, data, epochs=1, verbose=0, latency=False)
    assert len(seen) >= 2


def test_the_teacher_is_asked_about_the_augmented_samples(teacher, rng):
    from bigzoo.compress._distill import _augmented
    from bigzoo.compress._distill_form import Lesson
    from bigzoo.deploy._compiled import CompiledCall

    x, y = circles(rng, 6)
    data = bz.data.Batches(x, y, batch_size=6, augment=lambda x, y, rng: (x + 1, y))
    lesson = Lesson(teacher, "softmax", "softmax", CompiledCall(teacher))
    seen, targets = _augmented(data, y, lesson).batch(0, 0)
    np.testing.assert_array_equal(seen, x + 1)
    np.testing.assert_allclose(targets, lesson.targets(x + 1, y), atol=1e-5)


def test_several_inputs_by_name(rng):
    def model(width):
        inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((3,), name="a")}
        x = L.Concatenate()([inputs["a"], inputs["b"]])
        return keras.Model(inputs, L.Dense(3, "softmax")(L.Dense(width, "relu")(x)))

    data = {"a": rng.normal(size=(20, 3)), "b": rng.normal(size=(20, 2))}
    student = bz.compress.distill(model(4), model(16), data, epochs=1, verbose=0, latency=False)
    assert student.predict(data, verbose=0).shape == (20, 3)


def test_regression_follows_the_teacher(rng):
    x = rng.normal(size=(200, 4)).astype("float32")
    teacher, student = network(1, width=32), network(1, width=8)
    teacher.compile(loss="mse")
    student.compile(keras.optimizers.Adam(0.03))
    before = np.mean(np.square(teacher.predict(x, verbose=0) - student.predict(x, verbose=0)))
    bz.compress.distill(student, teacher, x, epochs=10, batch_size=20, verbose=0, latency=False)
    after = np.mean(np.square(teacher.predict(x, verbose=0) - student.predict(x, verbose=0)))
    assert after < before / 5
    assert student.receipt.difference.agreement is None


# === Bad input ===

X = np.zeros((8, 4), "float32")
COMPILED = network(3)
COMPILED.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))


@pytest.mark.parametrize(
    ("student", "teacher", "x", "options", "error", "text"),
    [
        ("s", network(3), X, {}, TypeError, "`student` is 's'; expected a keras.Model"),
        (network(3), None, X, {}, TypeError, "`teacher` is None; expected a keras.Model"),
        (keras.Sequential([L.Dense(2)]), network(2), X, {}, ValueError, "`student`"),
        (COMPILED, COMPILED, X, {}, ValueError, "`student` is the teacher itself"),
        (network(4, "softmax"), network(3, "softmax"), X, {}, ValueError, "as many output units"),
        (network(3, "sigmoid"), network(3, "softmax"), X, {}, ValueError, "the same classes"),
        (network(3, inputs=5), COMPILED, X, {}, ValueError, "doesn't fit the student"),
        (network(3), COMPILED, X[:, :3], {}, ValueError, "`x` doesn't fit the teacher"),
        (network(3), COMPILED, X[:0], {}, ValueError, "`x` has no rows"),
        (network(3), COMPILED, (X, np.zeros(3)), {}, ValueError, "3 and 8 rows"),
        (network(3), COMPILED, X, {"y": np.zeros(3)}, ValueError, "`x` has 8 rows and `y` has 3"),
        (network(3), COMPILED, (X, np.zeros(8)), {"y": np.zeros(8)}, ValueError, "Leave it out"),
        (network(3), COMPILED, X, {"y": np.full(8, 3)}, ValueError, "class numbers from 0 to 2"),
        (network(3), COMPILED, X, {"y": np.zeros((8, 2))}, ValueError, "class numbers of shape"),
        (network(3), network(3), X, {}, ValueError, 'expected task="classification" or'),
        (network(3), COMPILED, X, {"task": "regress"}, ValueError, "Did you mean 'regression'"),
        (network(3, "softmax"), COMPILED, X, {"task": "regression"}, ValueError, "for a softmax"),
        (network(3), COMPILED, X, {"temperature": 0}, ValueError, "`temperature` is 0; expected"),
        (network(3), COMPILED, X, {"alpha": 1.5}, ValueError, "`alpha` is 1.5; expected"),
        (network(3), COMPILED, X, {"epochs": 0}, ValueError, "`epochs` is 0; expected"),
        (network(3), COMPILED, X, {"validation_data": X[:, :2]}, ValueError, "`validation_data` d"),
    ],
)  # fmt: skip
def test_bad_input_is_said(student, teacher, x, options, error, text):
    with pytest.raises(error) as caught:
        bz.compress.distill(student, teacher, x, verbose=0, latency=False, **options)
    assert text in str(caught.value)


def test_a_diverged_teacher_is_said():
    teacher = network(3, "softmax")
    teacher.set_weights([np.full_like(w, np.nan) for w in teacher.get_weights()])
    with pytest.raises(ValueError, match="`teacher` gives NaN or infinite values"):
        bz.compress.distill(network(3), teacher, X, verbose=0, latency=False)
