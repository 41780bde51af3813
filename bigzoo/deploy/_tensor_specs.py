"""What a model takes and gives: names, shapes and types, the same for a model and for its files.

Files know flat lists of tensors; a Keras model takes and gives arrays, lists and dicts of them. A
`Signature` says how the one becomes the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message

# More of either is no model that anyone has made; a file that says so is hostile.
_MOST_TENSORS = 1000
_MOST_DEPTH = 20
_MOST_RANK = 32
_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "bool", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: Its name in a file: letters, digits and underscores.
        shape: With the batch in front; None is an open size.
        dtype: Such as "float32".
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs, flat, and the forms in which a model takes and gives them.

    Attributes:
        inputs, outputs: The tensors, in their flat order.
        input_form, output_form: 0 for one array, or lists and dicts of such indices, such as
            `{"ids": 0, "mask": 1}`.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_form: Any
    output_form: Any

    def to_json(self) -> dict[str, Any]:
        """As dicts and lists, which `from_json` reads."""
        return {
            "inputs": [_spec_json(spec) for spec in self.inputs],
            "outputs": [_spec_json(spec) for spec in self.outputs],
            "input_form": self.input_form,
            "output_form": self.output_form,
        }

    @classmethod
    def from_json(cls, data: Any) -> Signature:
        """The signature that `to_json` gave; ValueError for anything else, hostile or not."""
        if not isinstance(data, dict):
            raise ValueError(message("signature", data, "a dict"))
        inputs, outputs = _specs(data, "inputs"), _specs(data, "outputs")
        input_form, output_form = data.get("input_form"), data.get("output_form")
        _check_form("input_form", input_form, len(inputs))
        _check_form("output_form", output_form, len(outputs))
        return cls(inputs, outputs, input_form, output_form)


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _specs(data: dict[str, Any], key: str) -> tuple[TensorSpec, ...]:
    entries = data.get(key)
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_TENSORS:
        raise ValueError(message(key, entries, f"a list of 1 to {_MOST_TENSORS} tensors"))
    specs = tuple(_spec(entry, key) for entry in entries)
    if len({spec.name for spec in specs}) < len(specs):
        raise ValueError(message(key, [spec.name for spec in specs], "different names"))
    return specs


def _spec(entry: Any, key: str) -> TensorSpec:
    entry = entry if isinstance(entry, dict) else {}
    name, shape, dtype = entry.get("name"), entry.get("shape"), entry.get("dtype")
    good = (
        isinstance(name, str)
        and re.fullmatch(r"\w{1,1000}", name, re.ASCII)
        and isinstance(shape, list)
        and 1 <= len(shape) <= _MOST_RANK
        and all(side is None or (type(side) is int and 0 <= side < 2**31) for side in shape)
        and dtype in _DTYPES
    )
    if not good:
        raise ValueError(message(key, entry, "tensors with a name, a shape and a dtype"))
    return TensorSpec(str(name), tuple(shape), str(dtype))


def _check_form(name: str, form: Any, count: int) -> None:
    """Every index once, in lists and dicts that aren't nested without end."""
    leaves = list(_leaves(form, name, 0))
    if sorted(leaves) != list(range(count)):
        raise ValueError(message(name, form, f"a form with each of 0 to {count - 1} once"))


def _leaves(form: Any, name: str, depth: int) -> Iterator[int]:
    if type(form) is int:
        yield form
        return
    parts: Any = None
    if isinstance(form, dict) and all(isinstance(key, str) for key in form):
        parts = form.values()
    elif isinstance(form, list):
        parts = form
    if parts is None or depth > _MOST_DEPTH:
        raise ValueError(message(name, form, "indices in lists and dicts"))
    for part in parts:
        yield from _leaves(part, name, depth + 1)


# --- of a model ------------------------------------------------------------------------------


def signature_of(model: keras.Model) -> Signature:
    """The signature of a model that knows its inputs.

    Raises:
        ValueError: for a subclassed or unbuilt model.
    """
    inputs, outputs = graph_tensors(model)
    taken: set[str] = set()
    input_specs = tuple(_spec_of(tensor, tensor.name, taken) for tensor in inputs)
    sequential = isinstance(model, keras.Sequential)  # a reloaded one's `input` raises
    last = [model.layers[-1].name] if sequential else None
    names = last or getattr(model, "output_names", None) or [tensor.name for tensor in outputs]
    output_specs = tuple(
        _spec_of(tensor, name, taken) for tensor, name in zip(outputs, names, strict=True)
    )
    input_form = 0 if sequential else _form(model.input, inputs, "input")
    output_form = 0 if sequential else _form(model.output, outputs, "output")
    return Signature(input_specs, output_specs, input_form, output_form)


def graph_tensors(model: Any) -> tuple[list[Any], list[Any]]:
    """The model's symbolic inputs and outputs, or the error that says why it has none."""
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    try:
        inputs, outputs = list(model.inputs or ()), list(model.outputs or ())
    except (AttributeError, ValueError):  # what Keras raises differs between kinds of models
        inputs, outputs = [], []
    if inputs and outputs:
        return inputs, outputs
    if isinstance(model, keras.Sequential):
        fix = "Start it with `keras.Input(shape)`, or call it on a batch once."
        raise ValueError(f"`model` {model.name!r} is not built: its input shape is open. {fix}")
    fix = "Wrap it: `x = keras.Input(shape); model = keras.Model(x, model(x))`."
    raise ValueError(f"`model` {model.name!r} is subclassed and has no graph of inputs. {fix}")


def _spec_of(tensor: Any, name: str, taken: set[str]) -> TensorSpec:
    # The batch that a Sequential was built with by a call isn't the only one that it takes, but
    # Keras doesn't tell it from one that was asked for; `inference_model` opens it.
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return TensorSpec(_file_name(name, taken), tuple(tensor.shape), dtype)


def _file_name(name: str, taken: set[str]) -> str:
    """`name` in the letters that every format allows, different from all `taken` ones."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "tensor"
    if not plain[0].isalpha():
        plain = f"tensor_{plain}"
    free, number = plain, 1
    while free in taken:
        number += 1
        free = f"{plain}_{number}"
    taken.add(free)
    return free


def _form(structure: Any, flat: list[Any], side: str) -> Any:
    """The nest of indices into `flat`, from the same nest of tensors."""
    left = list(range(len(flat)))  # a tensor that is given twice has two indices

    def place(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(key): place(value) for key, value in part.items()}
        if isinstance(part, (list, tuple)):
            return [place(value) for value in part]
        for index in left:
            if flat[index] is part:
                left.remove(index)
                return index
        raise ValueError(
            f"`model` has an {side} of unknown form; expected arrays in lists and dicts."
        )

    return place(structure)


def numpy_dtype(name: str) -> np.dtype:
    """numpy's dtype of that name; bfloat16 is widened, as numpy has none."""
    return np.dtype({"bfloat16": "float32", "string": "object"}.get(name, name))
