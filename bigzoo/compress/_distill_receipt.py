"""The receipt of a distillation: the teacher against the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bigzoo.compress._data import count_rows, outputs_of, spread, take
from bigzoo.compress._distill_form import Lesson
from bigzoo.compress._soft_targets import FORMS, to_logits
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._scores import to_probabilities

_MEASURED = 512  # rows that are compared and scored


def score_of(
    call: Callable[[Any], Any], kind: str, validation: Any, x: Any, y: Any
) -> tuple[str, float, int] | None:
    """Name, value and rows of a model's score; on the training data if there are no others."""
    prefix = ""
    if validation is not None and validation[1] is not None:
        x, y = validation
    elif y is not None:
        prefix = "training "
    if y is None:
        return None
    x, y = _few(x), _few(y)
    if FORMS[kind] == "classes" and y.size == len(y):  # class numbers, -1 for rows without a label
        known = np.flatnonzero(y.reshape(-1) >= 0)
        if not len(known):
            return None
        x, y = take(x, known), y[known]
    name, value = _value(outputs_of(call, x), kind, y)
    return prefix + name, value, len(y)


def _value(outputs: np.ndarray, kind: str, y: np.ndarray) -> tuple[str, float]:
    if FORMS[kind] == "numbers":
        gaps = outputs.astype(np.float64) - y.reshape(outputs.shape)
        return "mse", float(np.mean(np.square(gaps)))
    logits = keras.ops.convert_to_numpy(to_logits(outputs.astype(np.float32), kind))
    if FORMS[kind] == "labels":
        return "accuracy", float(np.mean((logits >= 0) == (y.reshape(logits.shape) >= 0.5)))
    labels = y.argmax(axis=1) if y.size > len(y) else y.reshape(-1)
    return "accuracy", float(np.mean(logits.argmax(axis=1) == labels))


def _few(tree: Any) -> Any:
    return take(tree, spread(count_rows(tree), _MEASURED))


def receipt_of(
    student: keras.Model,
    call: Callable[[Any], Any],
    lesson: Lesson,
    x: Any,
    y: Any,
    validation: Any,
    before: tuple[str, float, int] | None,
    latency: bool,
) -> Receipt:
    sample = _few(x if validation is None else validation[0])
    scores = (
        score_of(lesson.call, lesson.teacher_kind, validation, x, y),
        score_of(call, lesson.student_kind, validation, x, y),
    )
    notes = ["Before is the teacher, after is the student."]
    score = None
    if scores[0] is not None and scores[1] is not None:
        score = (scores[1][0], scores[0][1], scores[1][1], scores[1][2])
        if before is not None and before[0] == score[0]:
            shown = f"{before[1]:.1%}" if before[0].endswith("accuracy") else f"{before[1]:.4g}"
            notes.append(f"{before[0].capitalize()} of the student before: {shown}.")
    return make_receipt(
        "distill",
        Subject("teacher in Keras", lesson.call, lesson.teacher),
        Subject("student in Keras", call, student),
        sample,
        score=score,
        found=_difference(call, lesson, sample),
        measure=latency,
        notes=notes,
        name=student.name,
    )


def _difference(call: Callable[[Any], Any], lesson: Lesson, x: Any) -> Difference:
    """Between the answers of both, as probabilities where they are classes."""
    answers = [outputs_of(one, x) for one in (lesson.call, call)]
    form = FORMS[lesson.student_kind]
    if form == "numbers":
        return difference(answers[0], answers[1])
    kinds = (lesson.teacher_kind, lesson.student_kind)
    if form == "labels":
        logits = [to_logits(a, kind) for a, kind in zip(answers, kinds, strict=True)]
        one, two = (keras.ops.convert_to_numpy(keras.ops.sigmoid(z)) for z in logits)
        return difference(one, two, "multilabel")
    one, two = (to_probabilities(a, kind) for a, kind in zip(answers, kinds, strict=True))
    return difference(one, two, "softmax")
