"""Weights of classes against the labels: a wrong key has no effect, and nobody is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigzoo.train._check_data import View
from bigzoo.train._check_labels import Labels
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error, warning


def check_class_weight(class_weight: Any, pairs: list[Pair], view: View) -> list[Finding]:
    """Keys that are no class of the model, or that no label has."""
    if not isinstance(class_weight, Mapping) or len(pairs) != 1 or pairs[0].y is None:
        return []  # `fit` itself has an error for these
    labels = Labels(pairs[0].y)
    if not labels.numeric or labels.y.size == 0 or not labels.finite or labels.classes is None:
        return []
    seen = [int(label) for label in labels.classes[0]]
    shown = ", ".join(f"{label}: ..." for label in seen[:5]) + (", ..." if len(seen) > 5 else "")
    fix = f"class_weight={{{shown}}}"
    count = _num_classes(pairs[0])
    wrong = [key for key in class_weight if not _is_class(key, count)]
    where = "class_weight"
    if wrong:
        expected = "class numbers" + (f" from 0 to {count - 1}" if count else "")
        got = f"the key{'s' if len(wrong) > 1 else ''} {_text(wrong)}"
        return [error("class-weight-keys", where, got, expected, fix)]
    absent = [key for key in class_weight if int(key) not in seen]
    if absent and (view.whole or view.complete):
        got = f"a weight for {_text(absent)}, which no label is"
        return [warning("class-weight-keys", where, got, "classes that the labels have", fix)]
    return []


def _num_classes(pair: Pair) -> int | None:
    """Classes that the output tells apart, None where that isn't known."""
    if pair.loss is None or pair.loss.kind not in ("sparse", "categorical", "binary"):
        return None
    units = pair.info.units
    return 2 if units == 1 and pair.loss.kind == "binary" else units


def _is_class(key: Any, count: int | None) -> bool:
    is_number = not isinstance(key, str) and hasattr(key, "__float__")
    if not is_number or float(key) != int(key) or key < 0:
        return False
    return count is None or int(key) < count


def _text(keys: list[Any]) -> str:
    return ", ".join(str(key) for key in keys[:5])
