"""Arrays from JSON, and back."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

from bigzoo.deploy._serve_limits import Limits, Refused
from bigzoo.deploy._signature import Signature, TensorSpec, numpy_dtype

_USAGE = 'send {"inputs": [...]}, one row per sample'


def read_inputs(body: bytes, signature: Signature, limits: Limits) -> Any:
    """What `body` has as inputs, as arrays in the form in which the model takes them."""
    found = _parse(body)
    if not isinstance(found, dict) or "inputs" not in found:
        raise Refused(422, f"the JSON has no inputs; {_USAGE}")
    unknown = sorted(set(found) - {"inputs"})
    if unknown:
        raise Refused(422, f"the JSON has {unknown[0][:40]!r} beside the inputs; {_USAGE}")
    rows: set[int] = set()

    def walk(form: Any, value: Any) -> Any:
        if isinstance(form, int):
            array = _array(signature.inputs[form], value, limits)
            rows.add(len(array))
            return array
        if isinstance(form, dict):
            if not isinstance(value, dict) or set(value) != set(form):
                raise Refused(422, f"the model takes several inputs, as an object: {_names(form)}")
            return {name: walk(part, value[name]) for name, part in form.items()}
        if not isinstance(value, list) or len(value) != len(form):
            raise Refused(422, f"the model takes a list of {len(form)} inputs")
        return [walk(part, item) for part, item in zip(form, value, strict=True)]

    inputs = walk(signature.input_form, found["inputs"])
    if len(rows) > 1:
        raise Refused(422, "the inputs have different numbers of samples")
    return inputs


def _names(form: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in sorted(form))


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_number)
    except Refused:
        raise
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply") from None
    except ValueError as error:  # of the decoder, of the encoding, or a number of 5,000 digits
        position = getattr(error, "pos", None)
        where = "" if position is None else f" (at character {position})"
        raise Refused(400, f"the body is no valid JSON{where}") from None


def _no_number(name: str) -> Any:
    raise Refused(400, f"{name} is no number in JSON")


def _array(spec: TensorSpec, value: Any, limits: Limits) -> np.ndarray:
    _check_shape(spec, _shape(spec, value), limits)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":  # whole numbers beyond 64 bits
        raise Refused(422, f"{spec.name!r} has numbers that are too large")
    return _cast(spec, array)


def _shape(spec: TensorSpec, value: Any) -> tuple[int, ...]:
    """The shape of nested lists of numbers.

    numpy would find it too, but makes room for the longest text at every place if there is any.
    """
    shape: list[int] = []
    level = [value]
    for _ in range(len(spec.shape) + 1):
        kinds = set(map(type, level))
        if kinds <= {int, float, bool}:
            return tuple(shape)
        if kinds != {list}:
            what = "rows that differ" if list in kinds else "something else than numbers"
            raise Refused(422, f"{spec.name!r} has {what}; {_USAGE}")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise Refused(422, f"{spec.name!r} has rows of different lengths")
        shape.append(sizes.pop())
        level = list(itertools.chain.from_iterable(level))
    raise Refused(422, f"{spec.name!r} is nested too deeply; the model takes {_shape_text(spec)}")


def _shape_text(spec: TensorSpec) -> str:
    sizes = ["samples", *("any" if size is None else str(size) for size in spec.shape[1:])]
    return f"({', '.join(sizes)})"


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], limits: Limits) -> None:
    fits = len(shape) == len(spec.shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape[1:], shape[1:], strict=True)
    )
    if not fits or not shape or 0 in shape:
        got = "(" + ", ".join(map(str, shape)) + ")"
        takes = f"the model takes {_shape_text(spec)}"
        raise Refused(422, f"{spec.name!r} has the shape {got}; {takes}")
    if shape[0] > limits.rows:
        raise Refused(413, f"{shape[0]:,} samples are too many; at most {limits.rows:,} at once")
    # An axis that the model leaves open may cost its square.
    if any(
        wanted is None and size > limits.length
        for wanted, size in zip(spec.shape[1:], shape[1:], strict=True)
    ):
        raise Refused(413, f"{spec.name!r} is too long; at most {limits.length:,} along each axis")


def _cast(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    wanted = numpy_dtype(spec.dtype)
    if wanted.kind in "iu":
        if array.dtype.kind == "f" and not (array == np.floor(array)).all():
            raise Refused(422, f"{spec.name!r} has fractions; the model takes whole numbers")
        range_ = np.iinfo(wanted)
        if array.dtype.kind != "b" and (array.min() < range_.min or array.max() > range_.max):
            raise Refused(422, f"{spec.name!r} has numbers beyond {range_.min} to {range_.max}")
        return array.astype(wanted)
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    # JSON may say 1e400, and what float64 holds may be too much for float32.
    if wanted.kind == "f" and not np.isfinite(cast).all():
        raise Refused(422, f"{spec.name!r} has numbers that are too large for {spec.dtype}")
    return cast


def to_plain(outputs: Any) -> Any:
    """Arrays, in whatever nest, as lists that JSON can hold."""
    if isinstance(outputs, dict):
        return {str(name): to_plain(value) for name, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [to_plain(value) for value in outputs]
    array = np.asarray(outputs)
    if array.dtype.kind not in "biuf":  # bfloat16, which numpy doesn't know
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(422, "the model's outputs for this are NaN or infinite")
    return array.tolist()
