"""Features against the model's inputs: names, shapes, values, scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from bigzoo.train._check_data import Limits, View, leaves
from bigzoo.train._check_entry import entries
from bigzoo.train._check_form import samples_in_list
from bigzoo.train._check_labels import shape_text
from bigzoo.train._check_tokens import MASK_INPUTS, check_padding, check_sequence, check_tokens
from bigzoo.train._report import Finding, error, warning

_SCALES = 100  # ratio of the largest to the smallest scale of a feature that slows descent down
_STANDARDISED = 10  # the largest value of standardised pixels
_SCANNED = 2**26  # bytes of integers that are looked at as a whole
_LARGE = 100  # scale of a typical feature from which the usual first steps overshoot


@dataclass(frozen=True)
class InputView:
    """One input of the model and what it is given."""

    name: str
    where: str
    index: int
    x: np.ndarray  # the rows that were looked at
    stored: np.ndarray | None  # all rows, where they are in memory
    shape: tuple[int | None, ...] | None  # what the model takes
    dtype: str | None
    batch: tuple[int, ...] = ()  # shape of the first batch, where `x` comes from a dataset
    token_range: tuple[int, int] | None = None  # of all rows, where these are texts
    pad_id: int = 0


def inputs(model: keras.Model, view: View, role: str) -> tuple[list[InputView], list[Finding]]:
    """Pair the model's inputs with the features."""
    tensors = _input_tensors(model)
    where = f"{role}x"
    if not tensors:  # a subclassed model, or one that isn't built: only the values can be checked
        found = leaves(view.x)
        stored = _stored(view.stored_x, len(found))
        return [_view(None, where, i, x, stored[i]) for i, x in enumerate(found)], []
    names = [tensor.name for tensor in tensors]
    if isinstance(view.x, dict):
        missing = [name for name in names if name not in view.x]
        if missing:
            got = f"features for {sorted(map(str, view.x))}"
            fix = f"x = {{{', '.join(f'{name!r}: ...' for name in names)}}}"
            return [], [error("input-names", where, got, f"the model's inputs, {names}", fix)]
        found = [view.x[name] for name in names]
        source = view.stored_x if isinstance(view.stored_x, dict) else {}
        stored = [source.get(name) for name in names]
        labels = [f"{where}[{name!r}]" for name in names]
    else:
        found = leaves(view.x)
        stored = _stored(view.stored_x, len(found))
        labels = [where] if len(found) == 1 else [f"{where}[{i}]" for i in range(len(found))]
    if len(found) != len(names):
        if len(names) == 1 and view.kind == "arrays":
            samples = samples_in_list(view.stored_x, tuple(tensors[0].shape), where)
            if samples:
                return [], samples
        return [], [_wrong_number(found, names, view, where)]
    made = zip(tensors, labels, found, stored, strict=True)
    views = [_view(t, label, i, x, s) for i, (t, label, x, s) in enumerate(made) if x is not None]
    if view.token_range is not None:
        known: dict[str, Any] = {"token_range": view.token_range, "pad_id": view.pad_id}
        views = [one if one.name in MASK_INPUTS else replace(one, **known) for one in views]
    if view.kind not in ("arrays", "one-shot") and view.batch_size is not None:
        rows = view.batch_size
        views = [replace(one, batch=(rows, *one.x.shape[1:])) for one in views]
    return views, []


def _input_tensors(model: keras.Model) -> list[Any]:
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


def _stored(stored: Any, count: int) -> list[Any]:
    found = leaves(stored)
    return found if len(found) == count else [None] * count


def _view(tensor: Any, where: str, index: int, x: np.ndarray, stored: Any) -> InputView:
    if tensor is None:
        return InputView(f"input {index}", where, index, x, stored, None, None)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return InputView(tensor.name, where, index, x, stored, tuple(tensor.shape), dtype)


def _wrong_number(found: list[Any], names: list[str], view: View, where: str) -> Finding:
    got = f"{len(found)} arrays"
    expected = f"{len(names)}, for the input{'s' if len(names) > 1 else ''} {names}"
    fix = f"x = {{{', '.join(f'{name!r}: ...' for name in names)}}}"
    if len(names) == 1 and len(found) == 2 and view.y is None and view.kind == "arrays":
        fix = "x, y = data, and then give x and y as two arguments"
    return error("num-inputs", where, got, expected, fix)


def check_inputs(
    model: keras.Model, views: list[InputView], limits: Limits, role: str
) -> list[Finding]:
    """All findings about the features."""
    findings: list[Finding] = []
    for view in views:
        found = _check_type(view) or _check_shape(view)
        if not found:
            found = _check_finite(view, limits)
        if not found:
            # The scale of validation data is that of the training data; texts may be longer.
            found = _check_tokens(model, view) if role else _check_values(model, view)
        findings += found
    return findings


def _check_type(view: InputView) -> list[Finding]:
    x, where = view.x, view.where
    if x.size == 0:
        got = f"an array of shape {x.shape}"
        return [error("empty-data", where, got, "at least one row", "look at how x was read")]
    if x.dtype.kind in "buif" or x.dtype.name == "bfloat16" or view.dtype == "string":
        return []
    if x.dtype.kind == "O" and _ragged(x):
        fix = "x = keras.utils.pad_sequences(x)  # or images of one size"
        got = "rows of different lengths (an array of objects)"
        return [error("not-numeric", where, got, "rows of one shape", fix)]
    got = f"dtype {x.dtype}"
    fix = 'x = x.astype("float32")  # text: keras.layers.TextVectorization or StringLookup'
    return [error("not-numeric", where, got, "numbers", fix)]


def _ragged(x: np.ndarray) -> bool:
    return x.size > 0 and isinstance(x.flat[0], (list, tuple, np.ndarray))


def _check_shape(view: InputView) -> list[Finding]:
    wanted, got = view.shape, view.x.shape
    if wanted is None:
        return []
    if _fits(got[1:], wanted[1:]):
        return []
    # Keras itself adds or drops a last axis of size 1.
    if len(got) == len(wanted) - 1 and wanted[-1] == 1 and _fits(got[1:], wanted[1:-1]):
        return []
    if len(got) == len(wanted) + 1 and got[-1] == 1 and _fits(got[1:-1], wanted[1:]):
        return []
    if view.batch and _fits(view.batch, wanted[1:]):
        text, fix = f"rows of shape {view.batch} and no batches", "dataset = dataset.batch(32)"
        return [error("no-batch-axis", view.where, text, f"shape {shape_text(wanted)}", fix)]
    code, fix = _shape_problem(got, wanted)
    text = f"shape {shape_text(got)}"
    return [error(code, view.where, text, f"shape {shape_text(wanted)}", fix)]


def _fits(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(got) == len(wanted) and all(
        b is None or a == b for a, b in zip(got, wanted, strict=True)
    )


def _shape_problem(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> tuple[str, str]:
    """(code, fix) of a shape that doesn't fit."""
    if _fits(got, wanted[1:]):
        # The first size is not a number of rows but the model's first axis.
        return "no-batch-axis", "x = x[None]"
    if len(got) == len(wanted) == 4:
        return _image_problem(got, wanted)
    if len(wanted) == 4 and len(got) == 3 and _fits(got[1:], wanted[1:3]):
        fix = f"x = np.repeat(x[..., None], {wanted[-1]}, axis=-1)"
        return "image-channels", fix
    if len(got) == len(wanted) == 2:
        fix = f"build the model with num_features={got[1]} (its input takes {wanted[1]})"
        return "num-features", fix
    if len(wanted) == 2 and len(got) > 2 and np.prod(got[1:]) == wanted[1]:
        return "input-shape", "x = x.reshape(len(x), -1)"
    if len(got) == 1 and len(wanted) == 2:
        return "num-features", f"x = x.reshape(-1, {wanted[1]})"
    return "input-shape", f"give the model an input of shape {got[1:]}, or reshape x"


def _image_problem(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> tuple[str, str]:
    last_to_first, first_to_last = (got[3], got[1], got[2]), (got[2], got[3], got[1])
    if _fits(first_to_last, wanted[1:]) and got[1] in (1, 3, 4):
        return "channels-first", "x = x.transpose(0, 2, 3, 1)"
    if _fits(last_to_first, wanted[1:]) and got[3] in (1, 3, 4):
        return "channels-last", "x = x.transpose(0, 3, 1, 2)"
    if _fits(got[1:3], wanted[1:3]) and wanted[3] is not None:
        fixes = {
            (1, 3): "x = np.repeat(x, 3, axis=-1)",
            (4, 3): "x = x[..., :3]  # without the alpha channel",
            (3, 1): "x = x.mean(axis=-1, keepdims=True)",
        }
        default = f"input_shape={got[1:]} for the model"
        return "image-channels", fixes.get((got[3], wanted[3]), default)
    if got[1] in (1, 3, 4) and got[3] not in (1, 3, 4) and wanted[3] == got[1]:
        return "channels-first", "x = x.transpose(0, 2, 3, 1), and then resize it"
    size = f"({wanted[1]}, {wanted[2]})"
    return "image-size", f"x = keras.ops.image.resize(x, {size})  # or bz.data.images(image_size=)"


def _check_finite(view: InputView, limits: Limits) -> list[Finding]:
    x = view.x
    stored = view.stored
    if stored is not None and stored.dtype.kind == "f" and stored.nbytes <= limits.scan_bytes:
        x = stored
    if x.dtype.kind != "f":
        return []
    # One sum tells: NaN and infinity go through it. It is many times cheaper than a mask.
    with np.errstate(all="ignore"):
        if np.isfinite(x.sum(dtype="float64" if x.dtype.itemsize < 4 else None)):
            return []
        bad = ~np.isfinite(x)
    if not bad.any():  # large numbers, whose sum overflows
        return []
    row = int(np.argwhere(bad.reshape(len(x), -1).any(axis=1))[0][0])
    got = f"{int(bad.sum())} of {x.size} numbers are NaN or infinite, first in row {row}"
    fix = "x = np.nan_to_num(x, posinf=0.0, neginf=0.0)  # or drop these rows"
    return [error("nan-in-x", view.where, got, "finite numbers", fix)]


def _check_values(model: keras.Model, view: InputView) -> list[Finding]:
    if view.dtype == "string" or view.x.dtype.kind not in "buif":
        return []
    found = _check_tokens(model, view)
    if found or view.name in MASK_INPUTS:
        return found
    if len(view.x) > 1 and bool((view.x == view.x[:1]).all()):
        got = f"{len(view.x)} rows that are all the same"
        fix = "look at how x was read"
        return [warning("constant-features", view.where, got, "rows that differ", fix)]
    marks = entries(model, view.index) if view.shape is not None else {"unknown"}
    if view.x.ndim == 4 or (view.x.ndim == 3 and view.x.shape[1] == view.x.shape[2]):
        return _pixels(view, marks)
    return _features(view, marks)


def _check_tokens(model: keras.Model, view: InputView) -> list[Finding]:
    if view.shape is None or view.x.ndim > 2 or view.x.dtype.kind not in "buif":
        return []
    marks = entries(model, view.index)
    found = check_tokens(view.x, view.where, marks, _token_range(view, marks))
    found += check_sequence(model, view.index, view.x, view.where)
    return found + check_padding(view.name, view.x, view.where, marks, view.pad_id)


def _token_range(view: InputView, marks: set[Any]) -> tuple[int, int] | None:
    """The smallest and the largest number of all rows, where that costs little."""
    rows = view.stored
    if view.token_range is not None or rows is None or rows.dtype.kind not in "iu":
        return view.token_range
    embeds = any(isinstance(mark, tuple) and mark[0] == "embedding" for mark in marks)
    return (int(rows.min()), int(rows.max())) if embeds and rows.nbytes <= _SCANNED else None


def _pixels(view: InputView, marks: set[Any]) -> list[Finding]:
    low, high = float(view.x.min()), float(view.x.max())
    scales = [mark[1] for mark in marks if isinstance(mark, tuple) and mark[0] == "scale"]
    if low < 0:
        return _centred_pixels(view, scales, low, high)
    if high > 255:
        return []
    small = bool(scales) and max(map(abs, scales)) <= 0.02
    if small and high <= 1 and view.x.dtype.kind == "f" and _shades(view.x):
        got = f"pixels from {low:g} to {high:g}"
        expected = f"0 to 255: the model itself multiplies them by {scales[0]:.4g}"
        fix = "x = x * 255  # or leave out your own x / 255"
        return [error("pixels-scaled-twice", view.where, got, expected, fix)]
    if marks == {"raw"} and high > 32:
        got = f"pixels from {low:g} to {high:g}, and no layer of the model scales them"
        fix = "x = x / 255.0  # or keras.layers.Rescaling(1 / 255) as the first layer"
        return [warning("pixels-not-scaled", view.where, got, "pixels from 0 to 1", fix)]
    return []


def _centred_pixels(view: InputView, scales: list[float], low: float, high: float) -> list[Finding]:
    """Pixels from -1 to 1, or standardised, for a model that expects 0 to 255."""
    # 1 / 255 and 1 / 127.5; other factors may be for data that are no pixels.
    for_bytes = bool(scales) and all(1 / 256 <= abs(scale) <= 1 / 127 for scale in scales)
    if not for_bytes or view.x.dtype.kind != "f" or max(-low, high) > _STANDARDISED:
        return []
    got = f"pixels from {low:.3g} to {high:.3g}"
    expected = f"0 to 255: the model itself multiplies them by {scales[0]:.4g}"
    fix = "leave out your own standardisation of x: give the pixels as they were read"
    if max(-low, high) <= 1:
        fix = "x = (x + 1) * 127.5  # or leave out your own x / 127.5 - 1"
    return [error("pixels-scaled-twice", view.where, got, expected, fix)]


def _shades(x: np.ndarray) -> bool:
    """More than zeros and ones: a mask of 0 and 1 may be very dark pixels or anything else."""
    some = x.reshape(-1)[:100_000]
    return bool(((some != 0) & (some != 1)).any())


def _features(view: InputView, marks: set[Any]) -> list[Finding]:
    """Columns of numbers of very different size, or all very large, that nothing normalises."""
    if marks != {"raw"} or view.x.ndim not in (2, 3):
        return []
    rows = view.x.reshape(-1, view.x.shape[-1])
    step = max(1, len(rows) // 1000)
    scales = _column_scales(rows[::step][:1000].astype("float64"))
    scales = scales[scales > 0]
    if scales.size == 0:
        return []
    fix = (
        "train, val, normalizer = bz.data.normalize(train, val)"
        "  # or keras.layers.Normalization() as the first layer, adapted to x"
    )
    low, high = float(scales.min()), float(scales.max())
    if high >= _SCALES * low:
        got = f"columns whose spread goes from {low:.3g} to {high:.3g}"
        expected = f"columns within a factor of {_SCALES}, or a normalisation first"
        return [warning("feature-scale", view.where, got, expected, fix)]
    typical = float(np.median(scales))
    if typical >= _LARGE:
        got = f"columns with a spread of about {typical:.3g}"
        expected = f"a spread under {_LARGE}, or a normalisation first"
        return [warning("feature-size", view.where, got, expected, fix)]
    return []


def _column_scales(rows: np.ndarray) -> np.ndarray:
    """Root mean square distance from the median, over the rows that differ from it.

    So a rare yes/no column has the scale 1 and not nearly 0.
    """
    away = rows - np.median(rows, axis=0)
    differ = (away != 0).sum(axis=0)
    return np.sqrt((away**2).sum(axis=0) / np.maximum(differ, 1))
