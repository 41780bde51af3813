"""Knowledge distillation: a small student learns what a large teacher answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, check_number
from bigzoo.compress._distill_form import (
    Lesson,
    check_inputs,
    check_models,
    check_outputs,
    kinds,
    samples,
)
from bigzoo.compress._distill_receipt import receipt_of, score_of
from bigzoo.compress._soft_targets import DistillationLoss
from bigzoo.compress._tune import fresh_optimizer
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._signature import signature_of, to_flat
from bigzoo.deploy._tensor_specs import graph_tensors
from bigzoo.train._compile import compile as compile_model
from bigzoo.train._fit import fit


def distill(
    student: keras.Model,
    teacher: keras.Model,
    x: Any,
    temperature: float = 3.0,
    alpha: float = 0.1,
    *,
    y: Any = None,
    epochs: int = 10,
    batch_size: int = 32,
    validation_data: Any = None,
    task: str | None = None,
    seed: int = 0,
    verbose: bool | int | str = "auto",
    latency: bool = True,
) -> keras.Model:
    """Train `student`, in place, to answer as `teacher` does.

    Labels aren't needed: on samples without labels the teacher alone says what is right, and that
    is where distillation gains most. On the labelled data that the teacher was trained with, it
    often gains nothing. Where `y` is given, the loss is (1 - alpha) T² KL(teacher ‖ student) at
    temperature T, plus alpha times the cross-entropy of the labels; numbers are compared by their
    squared error. Probabilities are turned into logits exactly, so that either model may end in a
    softmax, a sigmoid or logits.

    The teacher answers each sample once, before the first epoch. Only data that are augmented (a
    `bigzoo.data.Batches` with `augment`) are shown to it anew, the same view as the student's.

    Why not `keras.distillation.Distiller`: it takes the student's outputs for logits, its default
    loss leaves out softmax and T², its divergence has no gradient below a probability of 1e-7, it
    leaves the teacher frozen, and runs it in each epoch. For logits, the loss here equals
    `keras.distillation.LogitsDistillation(T, loss=keras.losses.KLDivergence())`.

    Paper: Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531.

    Args:
        student: A functional or Sequential model with the inputs of the teacher and as many
            classes. Its optimizer's settings are used if it is compiled, else those that
            `bigzoo.compile` chooses. How it is compiled stays as it is.
        teacher: A trained model. It isn't changed.
        x: Arrays with one row per sample, a pair (x, y), a `bigzoo.data.Batches`, a
            `keras.utils.PyDataset` or a `tf.data.Dataset`; the last two are read into memory.
        temperature: T, above 0; 1 takes the teacher's probabilities as they are, more makes them
            softer. Without effect on numbers.
        alpha: Weight of the labels, in [0, 1]; 0 for rows without a label.
        y: Labels if `x` doesn't bring them: class numbers, -1 for rows that have none, one-hot
            rows, or numbers. None for no labels.
        epochs: Passes over the data, at least 1.
        batch_size: Samples per step, at least 1; a `Batches` that is augmented has its own.
        validation_data: As `x`; with labels, the score in the receipt is measured on it.
        task: "classification" or "regression" where both models end in a linear layer and neither
            their losses nor the labels tell; None reads it from them.
        seed: Of the order of the samples, at least 0.
        verbose: As in `fit`: "auto" or 1 for a progress bar, 2 for a line per epoch, 0 for nothing.
        latency: False leaves out latencies and FLOPs of the receipt, which take seconds.

    Returns:
        `student` itself, a plain model, with `student.receipt`: the teacher against the trained
        student. It has the teacher's `class_names` if it has none of its own.

    Raises:
        ValueError: if inputs or outputs of the models differ, or `x` or `y` don't fit them.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> dense = keras.layers.Dense
        >>> teacher = keras.Sequential([keras.Input((4,)), dense(64, "relu"), dense(3, "softmax")])
        >>> student = keras.Sequential([keras.Input((4,)), dense(3, "softmax")])
        >>> found = bz.compress.distill(student, teacher, x, epochs=2, verbose=0, latency=False)
        >>> found is student, student.receipt.before.params, student.receipt.after.params
        (True, 515, 15)
    """
    student, teacher = check_models(student, teacher)
    temperature = check_number("temperature", temperature, above=0, maximum=1000)
    alpha = check_number("alpha", alpha, 0, 1)
    epochs = check_int("epochs", epochs, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    inputs, labels = samples(x, y, "x")
    validation = None
    if validation_data is not None:
        validation = samples(validation_data, None, "validation_data")
    lesson = Lesson(teacher, *kinds(student, teacher, labels, task), CompiledCall(teacher))
    check_outputs(student, teacher, lesson)
    check_inputs(student, teacher, inputs, "x")
    if validation is not None:
        check_inputs(student, teacher, validation[0], "validation_data")

    held_out = None
    data: tuple[Any, Any, int | None, int | None]
    if getattr(x, "augment", None) is not None and hasattr(x, "num_samples"):
        data = (_augmented(x, labels, lesson), None, None, None)
    else:
        data = (*_pair(student, lesson, inputs, labels), batch_size, seed)
    if validation is not None:
        held_out = _pair(student, lesson, *validation)
    call = CompiledCall(student)
    before = score_of(call, lesson.student_kind, validation, inputs, labels)
    view = _view(student)
    loss = DistillationLoss(lesson.student_kind, temperature, alpha)
    compile_model(view, optimizer=fresh_optimizer(student), loss=loss, metrics=[], verbose=False)
    fit(
        view,
        data[0],
        data[1],
        validation_data=held_out,
        epochs=epochs,
        batch_size=data[2],
        seed=data[3],
        verbose=verbose,
        check=False,
    )
    for name in ("class_names", "image_size"):
        if getattr(student, name, None) is None and getattr(teacher, name, None) is not None:
            setattr(student, name, getattr(teacher, name))
    student.receipt = receipt_of(student, call, lesson, inputs, labels, validation, before, latency)
    return student


# === Training ===


def _view(student: keras.Model) -> keras.Model:
    """The student's layers as a model of its own, so that the student stays compiled as it is."""
    inputs, outputs = graph_tensors(student)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs[0], name=student.name)


def _pair(student: keras.Model, lesson: Lesson, x: Any, y: Any) -> tuple[Any, np.ndarray]:
    """What the view of the student is trained with."""
    arrays = to_flat(signature_of(student), x)
    return (arrays if len(arrays) > 1 else arrays[0]), lesson.targets(x, y)


def _augmented(data: Any, y: Any, lesson: Lesson) -> Any:
    """The same `Batches` with the teacher's answers to what the augmentation gives."""
    if isinstance(data.x, (dict, tuple)):
        fix = "Give `batches.arrays()` to train without augmentation."
        raise ValueError(f"`x` is augmented and has several inputs; expected one. {fix}")
    labels = np.full(data.num_samples, -1) if y is None else y
    return type(data)(
        data.x,
        labels,
        batch_size=data.batch_size,
        shuffle=data.shuffle,
        seed=data.seed,
        augment=_Taught(data.augment, lesson, y is not None),
    )


@dataclass(frozen=True)
class _Taught:
    """An augmentation, and then the teacher's answers in place of the labels."""

    augment: Callable[..., tuple[Any, Any]]
    lesson: Lesson
    labelled: bool

    @property
    def grows(self) -> bool:
        return bool(getattr(self.augment, "grows", False))

    def at_epoch(self, epoch: int) -> _Taught:
        at_epoch = getattr(self.augment, "at_epoch", None)
        augment = self.augment if at_epoch is None else at_epoch(epoch)
        return _Taught(augment, self.lesson, self.labelled)

    def __call__(self, x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        x, y = self.augment(x, y, rng)
        return x, self.lesson.targets(x, y if self.labelled else None)
