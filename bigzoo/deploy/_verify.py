"""Whether a file gives its model's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import shorten
from bigzoo.deploy._compiled import answer
from bigzoo.deploy._difference import Difference, difference
from bigzoo.deploy._make_receipt import take_rows
from bigzoo.deploy._signature import Signature, example_inputs, nest_inputs, to_flat

_BATCHES = (1, 3)
# Enough to tell how often classes agree; more rows would only take longer.
_MOST_ROWS = 256
_MADE_UP_ROWS = 8
_SEEN = 1e-5  # relative to the largest value: less tells no rows apart


@dataclass(frozen=True)
class Check:
    """A batch on which a file is compared.

    Attributes:
        where: For messages, such as "batch 3".
        x: Inputs, in the form that the model takes.
        expected: What the model gives for them, in its own form.
        model: The one that does.
        fix: What to do where the file differs.
    """

    where: str
    x: Any
    expected: Any
    model: keras.Model
    fix: str = "Export to another format, or allow more with `tolerance`."


def make_checks(model: keras.Model, signature: Signature, sample: Any = None) -> list[Check]:
    """The batches to compare a file of `model` on; all rows come last.

    One row and three, as a file may be wrong for any but the batch that it was made with. Made-up
    inputs also have other sizes where the model leaves some open, and pixels of 0-1 where 0-255
    get the same answer in each row.

    Args:
        model: As the file must answer; not its inference form, of which the file is made.
        signature: Of the file.
        sample: Rows in the form that the model takes; None makes some up.

    Raises:
        ValueError: if the model fails on these inputs, or gives NaN or nothing.
    """
    made_up = sample is None
    if made_up:
        arrays = example_inputs(model, _MADE_UP_ROWS)
    else:
        arrays = [array[:_MOST_ROWS] for array in to_flat(signature, sample)]

    def check(where: str, arrays: Sequence[np.ndarray]) -> Check:
        x = nest_inputs(signature, arrays)
        return Check(where, x, _expected(model, x, made_up), model)

    filled = _filled(arrays)
    checks = [check(f"batch {size}", take_rows(filled, size)) for size in _BATCHES]
    whole = check(f"{len(arrays[0])} rows", arrays)
    if made_up and any(None in spec.shape[1:] for spec in signature.inputs):
        checks += _with_other_sizes(model, signature)
    if made_up and is_blind(whole):
        small = [array / 255 if array.dtype.kind == "f" else array for array in arrays]
        checks.append(check("small inputs", small))
    return [*checks, whole]


def _filled(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """At least as many rows as are compared; those that are missing are the first one, shuffled.

    With three equal rows, a file that mixes them up would pass.
    """
    missing = max(_BATCHES) - len(arrays[0])
    for seed in range(missing):
        arrays = [np.concatenate([array, _shuffled(array[:1], seed)]) for array in arrays]
    return arrays


def _shuffled(row: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(row, axis=1) if row.ndim > 1 else row


def _expected(model: keras.Model, x: Any, made_up: bool) -> Any:
    what = "inputs that were made up" if made_up else "`sample`"
    fix = "Give `sample`: rows of real input." if made_up else "Give rows on which it doesn't."
    try:
        expected = answer(model, x)
    except MemoryError:
        raise
    # Each backend has errors of its own for what a layer can't do with these numbers.
    except Exception as error:
        text = f"`model` {model.name!r} fails on {what}: {shorten(error)}. {fix}"
        raise ValueError(text) from error
    leaves = [np.asarray(leaf, "float64") for leaf in keras.tree.flatten(expected)]
    if not all(leaf.size for leaf in leaves):
        raise ValueError(f"`model` {model.name!r} gives an empty output for {what}. {fix}")
    if any(np.isnan(leaf).any() for leaf in leaves):
        raise ValueError(f"`model` {model.name!r} gives NaN for {what}. {fix}")
    return expected


def _with_other_sizes(model: keras.Model, signature: Signature) -> list[Check]:
    """Three rows of other sizes: a file may have kept the one with which it was made."""
    arrays = example_inputs(model, max(_BATCHES), other_sizes=True)
    x = nest_inputs(signature, arrays)
    try:
        expected = _expected(model, x, True)
    except ValueError:  # a model that takes few sizes, such as multiples of 32
        return []
    sizes = ", ".join(str(array.shape[1:]) for array in arrays)
    fix = "Export to another format, or build the model with keras.Input of a fixed size."
    return [Check(f"inputs of the shape {sizes}", x, expected, model, fix)]


def is_blind(check: Check) -> bool:
    """Whether some output is the same for all rows, so that comparing it shows little."""
    leaves = [np.asarray(leaf, "float64") for leaf in keras.tree.flatten(check.expected)]
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return any(np.ptp(leaf, 0).max() <= _SEEN * np.abs(leaf).max() for leaf in leaves)


def verify(
    checks: Sequence[Check],
    call: Callable[[Any], Any],
    signature: Signature,
    tolerance: float,
    name: str,
    kind: str | None = None,
) -> list[Difference]:
    """The difference in each check; a ValueError where one is too large.

    Args:
        checks: From `make_checks`.
        call: The file in its runtime.
        signature: Of the file, for the names of its outputs.
        tolerance: Largest difference, relative to the largest value of an output.
        name: Of the file, for messages.
        kind: How to read classes from the answers, or None (see `difference`).
    """
    found = []
    for check in checks:
        try:
            found.append(difference(check.expected, call(check.x), kind))
        except ValueError as error:
            text = f"{name!r} was not written: it fails at {check.where}: {shorten(error)}."
            raise ValueError(f"{text} {check.fix}") from error
        if not found[-1].relative <= tolerance:
            raise ValueError(_too_far(check, found[-1], signature, tolerance, name))
    return found


def _too_far(
    check: Check, found: Difference, signature: Signature, tolerance: float, name: str
) -> str:
    output = signature.outputs[found.output].name
    said = f"its output {output!r} differs by {found.relative:.2g} at {check.where}"
    random = not difference(check.expected, answer(check.model, check.x)).relative <= tolerance
    fix = "The model gives other answers at each call: take out what is random."
    return (
        f"{name!r} was not written: {said}, relative to the largest value; expected at most "
        f"{tolerance:.2g}. {fix if random else check.fix}"
    )
