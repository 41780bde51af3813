"""Between what a model takes or gives, and the flat lists of arrays that its files know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message, shorten, suggest
from bigzoo.deploy._examples import example_inputs
from bigzoo.deploy._tensor_specs import Signature, TensorSpec, numpy_dtype, signature_of

__all__ = [
    "Signature",
    "TensorSpec",
    "example_inputs",
    "from_flat",
    "nest_inputs",
    "numpy_dtype",
    "signature_of",
    "to_flat",
]


def to_flat(signature: Signature, x: Any) -> list[np.ndarray]:
    """The arrays for the signature's inputs, in their order and dtypes, from what a model takes.

    Args:
        signature: Of the model or file.
        x: An array, list or dict of arrays, each (batch, ...).

    Raises:
        TypeError, ValueError: if the number, a name, a shape or a dtype is wrong, a batch is empty
            or batches differ.
    """
    found: list[Any] = [None] * len(signature.inputs)
    _collect(signature, signature.input_form, x, found)
    arrays = [_array(spec, value) for spec, value in zip(signature.inputs, found, strict=True)]
    if len(arrays) > 1 and len({len(array) for array in arrays}) > 1:
        sizes = {spec.name: len(a) for spec, a in zip(signature.inputs, arrays, strict=True)}
        raise ValueError(message("x", sizes, "the same number of samples in every input"))
    return arrays


def _collect(signature: Signature, form: Any, x: Any, found: list[Any]) -> None:
    """Put each array of `x` at its index in `found`."""
    if isinstance(form, int):
        found[form] = _single(signature.inputs[form], x)
        return
    if isinstance(form, dict):
        _collect_dict(signature, form, x, found)
        return
    if isinstance(x, Mapping):  # Keras takes a dict by the names of the inputs too
        leaves = {signature.inputs[part].name: part for part in form if isinstance(part, int)}
        _collect_dict(signature, leaves, x, found)
        return
    if len(form) == 1 and not isinstance(x, (list, tuple)):
        _collect(signature, form[0], x, found)
        return
    if not isinstance(x, (list, tuple)) or len(x) != len(form):
        names = ", ".join(spec.name for spec in signature.inputs)
        got = f"{len(x)} arrays" if isinstance(x, (list, tuple)) else "one array"
        raise ValueError(f"`x` is {got}; expected a list of {len(form)} arrays: {names}.")
    for part, value in zip(form, x, strict=True):
        _collect(signature, part, value, found)


def _collect_dict(signature: Signature, form: dict[str, Any], x: Any, found: list[Any]) -> None:
    if not isinstance(x, Mapping):
        if len(form) == 1 and not isinstance(x, (list, tuple)):
            _collect(signature, next(iter(form.values())), x, found)
            return
        keys = ", ".join(map(repr, form))
        raise TypeError(message("x", type(x).__name__, f"a dict of arrays with the keys {keys}"))
    for key in x:
        if key not in form:
            raise ValueError(f"`x` has an unknown input {key!r}. {suggest(str(key), form)}")
    missing = [key for key in form if key not in x]
    if missing:
        raise ValueError(f"`x` lacks the input {missing[0]!r}; expected {', '.join(form)}.")
    for key, part in form.items():
        _collect(signature, part, x[key], found)


def _single(spec: TensorSpec, x: Any) -> Any:
    """The one array that belongs to `spec`, also out of a dict or list of one."""
    if isinstance(x, Mapping):
        if len(x) != 1:
            got = f"a dict of {len(x)} arrays"
            raise ValueError(f"`x` is {got}; expected one array for the input {spec.name!r}.")
        return next(iter(x.values()))
    if isinstance(x, (list, tuple)) and len(x) == 1 and hasattr(x[0], "shape"):
        return x[0] if len(x[0].shape) >= len(spec.shape) else x
    return x


def _array(spec: TensorSpec, value: Any) -> np.ndarray:
    array = value if type(value) is np.ndarray else _to_numpy(spec, value)
    array = _with_shape(spec, array)
    wanted = numpy_dtype(spec.dtype)
    return array if array.dtype == wanted else _cast(spec, array, wanted)


def _to_numpy(spec: TensorSpec, value: Any) -> np.ndarray:
    try:
        if keras.ops.is_tensor(value):
            return np.asarray(keras.ops.convert_to_numpy(value))
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        text = f"The input {spec.name!r} is no array of numbers: {shorten(error)}."
        raise ValueError(text) from error


def _with_shape(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """`array` in the rank of the input: a last axis of size 1 comes and goes, as in Keras."""
    rank = len(spec.shape)
    if array.ndim == rank - 1 and spec.shape[-1] == 1 and rank > 1:
        array = array[..., None]
    elif array.ndim == rank + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim == rank and all(
        wanted is None or wanted == size
        for wanted, size in zip(spec.shape[1:], array.shape[1:], strict=False)
    )
    if not fits:
        wanted = "(batch" + "".join(f", {side or 'any'}" for side in spec.shape[1:]) + ")"
        fix = "Add the batch in front: `x[None]`." if array.ndim == rank - 1 else ""
        what = f"The input {spec.name!r} has the shape {array.shape}; expected {wanted}."
        raise ValueError(f"{what} {fix}".strip())
    if array.shape[0] == 0:
        raise ValueError(f"The input {spec.name!r} is empty; expected at least one sample.")
    return array


def _cast(spec: TensorSpec, array: np.ndarray, wanted: np.dtype) -> np.ndarray:
    # ml_dtypes' bfloat16 is of kind "V"
    if array.dtype.kind not in "biufV" or array.dtype.names is not None:
        got = f"the dtype {array.dtype}"
        raise TypeError(f"The input {spec.name!r} has {got}; expected numbers ({spec.dtype}).")
    if wanted.kind not in "iu" or array.dtype.kind == "b":
        return array.astype(wanted)
    with np.errstate(invalid="ignore"):
        cast = array.astype(wanted)
    if not np.array_equal(cast, array):
        got = f"values that {spec.dtype} can't hold"
        raise ValueError(f"The input {spec.name!r} has {got}; expected integers.")
    return cast


def from_flat(signature: Signature, arrays: Sequence[Any]) -> Any:
    """The outputs in the form in which the model gives them."""
    form = signature.output_form
    return arrays[form] if isinstance(form, int) else _nest(form, arrays)


def nest_inputs(signature: Signature, values: Sequence[Any]) -> Any:
    """Flat inputs in the form in which the model takes them."""
    return _nest(signature.input_form, values)


def _nest(form: Any, values: Sequence[Any]) -> Any:
    if isinstance(form, int):
        return values[form]
    if isinstance(form, dict):
        return {key: _nest(part, values) for key, part in form.items()}
    return [_nest(part, values) for part in form]
