"""Student, teacher and samples of a distillation, checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_choice, message
from bigzoo.compress._data import count_rows, outputs_of, rows, take
from bigzoo.compress._score import is_classifier, kind_of, loss_name
from bigzoo.compress._soft_targets import FORMS, pack
from bigzoo.deploy._class_names import check_model
from bigzoo.deploy._signature import signature_of, to_flat
from bigzoo.deploy._tensor_specs import graph_tensors

TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Lesson:
    """The teacher, and how its answers become targets.

    Attributes:
        teacher: The model.
        student_kind, teacher_kind: What the outputs are, keys of `FORMS`.
        call: The teacher's compiled call: augmented samples come from several threads.
    """

    teacher: keras.Model
    student_kind: str
    teacher_kind: str
    call: Callable[[Any], Any]

    def targets(self, x: Any, y: Any) -> np.ndarray:
        """For each row of x what `DistillationLoss` takes."""
        return pack(outputs_of(self.call, x), self.teacher_kind, y)


def check_models(student: Any, teacher: Any) -> tuple[keras.Model, keras.Model]:
    for name, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise TypeError(message(name, model, "a keras.Model"))
        try:
            graph_tensors(check_model(model))
        except ValueError as error:
            raise ValueError(str(error).replace("`model`", f"`{name}`")) from error
        if len(model.outputs) != 1:
            raise ValueError(message(name, f"{len(model.outputs)} outputs", "a model with one"))
    if student is teacher:
        raise ValueError("`student` is the teacher itself; expected a smaller model.")
    return student, teacher


def samples(data: Any, y: Any, name: str) -> tuple[Any, Any]:
    """(inputs, labels) of `data`; labels None if there are none."""
    inputs, own = rows(data, name=name)
    if own is not None and not isinstance(own, np.ndarray):
        raise TypeError(message(name, own, "labels as one array"))
    if y is None:
        return inputs, own
    if own is not None:
        raise ValueError(message("y", y, "None beside an `x` that brings labels", "Leave it out."))
    labels = rows((y,), name="y")[0]
    if not isinstance(labels, np.ndarray):
        raise TypeError(message("y", y, "one array of labels"))
    if count_rows(labels, name="y") != count_rows(inputs, name="x"):
        counts = f"{count_rows(inputs)} rows and `y` has {count_rows(labels)}"
        fix = "Give -1 for samples whose class isn't known."
        raise ValueError(f"`x` has {counts}; expected as many in both. {fix}")
    return inputs, labels


def kinds(student: keras.Model, teacher: keras.Model, y: Any, task: Any) -> tuple[str, str]:
    """What the outputs of the student and the teacher are, as keys of `FORMS`."""
    if task is not None:
        check_choice("task", task, TASKS)
    own = kind_of(student), kind_of(teacher)
    says_classes = any(kind is not None and not kind.endswith("_logits") for kind in own)
    if task == "regression":
        if says_classes:
            fix = "Leave `task` out, or end both models in a linear layer."
            expected = "'classification' for a softmax or a sigmoid"
            raise ValueError(message("task", task, expected, fix))
        return "numbers", "numbers"
    if task is None and not says_classes and not _means_classes(student, teacher, y):
        return "numbers", "numbers"
    # Linear units beside independent sigmoids are independent questions as well.
    independent = "multilabel" in own or _is_binary(student) or _is_binary(teacher)
    found = []
    for name, model, kind in (("student", student, own[0]), ("teacher", teacher, own[1])):
        if kind is None:
            expected = "one answer per sample, (batch, classes)"
            raise ValueError(message(f"{name}.output_shape", model.output_shape, expected))
        found.append("multilabel_logits" if kind == "softmax_logits" and independent else kind)
    return found[0], found[1]


def _means_classes(student: keras.Model, teacher: keras.Model, y: Any) -> bool:
    """Whether linear outputs are logits; an error where nothing tells."""
    if getattr(teacher, "class_names", None) or getattr(student, "class_names", None):
        return True
    compiled = [model for model in (teacher, student) if getattr(model, "compiled", False)]
    if compiled:
        return any(is_classifier(model) for model in compiled)
    if y is not None:
        return is_classifier(teacher, np.maximum(y, 0) if y.dtype.kind in "iu" else y)
    if kind_of(teacher) is None:
        return False
    raise ValueError(
        "Both models end in a linear layer and neither is compiled, so it isn't known whether "
        'they give logits or numbers; expected task="classification" or task="regression".'
    )


def _is_binary(model: keras.Model) -> bool:
    """Whether several linear units are compiled as one question each."""
    return "binary" in (loss_name(model) or "") and model.output_shape[-1] > 1


def check_inputs(student: keras.Model, teacher: keras.Model, x: Any, name: str) -> None:
    """An error if one of the models can't take `x`."""
    for role, model in (("teacher", teacher), ("student", student)):
        try:
            to_flat(signature_of(model), take(x, slice(1)))
        except (ValueError, TypeError) as error:
            text = f"`{name}` doesn't fit the {role} {model.name!r}: {error}"
            raise type(error)(text) from error


def check_outputs(student: keras.Model, teacher: keras.Model, lesson: Lesson) -> None:
    forms = FORMS[lesson.student_kind], FORMS[lesson.teacher_kind]
    sizes = []
    for model, kind in ((student, lesson.student_kind), (teacher, lesson.teacher_kind)):
        shape = model.output_shape[1:]
        one_unit = kind.startswith("sigmoid")
        sizes.append((2,) if one_unit else tuple(shape))
    if forms[0] != forms[1] or sizes[0] != sizes[1] or None in sizes[0]:
        told = [
            f"{model.output_shape} ({kind.replace('_', ' ')})"
            for model, kind in ((student, lesson.student_kind), (teacher, lesson.teacher_kind))
        ]
        raise ValueError(
            f"`student` gives {told[0]} and `teacher` gives {told[1]}; expected the same classes "
            "in both. Give the student as many output units as the teacher has."
        )
