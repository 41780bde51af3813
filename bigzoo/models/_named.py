"""Models by the names that people write: "resnet50", "vit_b16", "bert-base", "keras:VGG16"."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from bigzoo._errors import message, shorten
from bigzoo.models._registry import REGISTRY

# First part of a name -> the registry's model, and its variant if that is fixed.
_ALIASES = {"gpt2": ("gpt", ""), "lstm": ("rnn", "lstm"), "gru": ("rnn", "gru")}
# Letters that papers and timm use for sizes.
_SIZES = {"ti": "tiny", "t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large"}
_SIZE = re.compile(r"(ti|t|s|m|b|l)(\d*)")
_PREFIX = "keras:"


@dataclass(frozen=True)
class Recipe:
    """How to build a model.

    Attributes:
        name: What was asked for.
        function: Builds it.
        arguments: What is given to `function`, but for the input shape.
        shape_argument: Which argument takes the input shape; "" if none does.
    """

    name: str
    function: Callable[..., keras.Model]
    arguments: dict[str, Any] = field(default_factory=dict)
    shape_argument: str = ""

    def build(self, input_shape: Sequence[int] | None = None) -> keras.Model:
        """The model, with random weights. The shape is without the batch."""
        arguments = dict(self.arguments)
        if input_shape is not None and self.shape_argument == "num_features":
            if len(input_shape) != 1:
                expected = f"one number, the features of a sample, for {self.name}"
                raise ValueError(message("input_shape", tuple(input_shape), expected))
            arguments["num_features"] = input_shape[0]
        elif input_shape is not None and self.shape_argument:
            arguments[self.shape_argument] = tuple(input_shape)
        return self.function(**arguments)


def recipe(name: str) -> Recipe:
    """How to build the model of this name.

    Models of the zoo come first, in any spelling: "resnet50", "resnet-50", "resnet:50"; then those
    of `keras.applications`, by their exact name ("ResNet50"), after "keras:", or in lower case
    where the zoo has no such model ("vgg16").
    """
    applications = _applications()
    wanted = name.strip()
    if wanted.lower().startswith(_PREFIX):
        plain = wanted[len(_PREFIX) :].strip()
        exact = _like(plain, applications)
        if exact is None:
            raise _unknown(name, plain, applications)
        return _application(exact)
    if wanted in applications:
        return _application(wanted)
    found = _in_zoo(wanted)
    if found is not None:
        return found
    exact = _like(wanted, applications)
    if exact is None:
        raise _unknown(name, wanted, [*_zoo_names(), *applications])
    return _application(exact)


def _in_zoo(name: str) -> Recipe | None:
    """The zoo's model, None if there is no such one."""
    wanted = _plain(name)
    heads = {_plain(key): (key, "") for key in _buildable()} | _ALIASES
    for head in sorted(heads, key=len, reverse=True):
        if not wanted.startswith(head):
            continue
        key, variant = heads[head]
        rest = wanted[len(head) :].removesuffix("uncased")
        if rest and not variant:
            variant = _variant(rest, REGISTRY[key].variants)
        elif rest:
            continue
        if variant or not rest:
            return _recipe(name, key, variant)
    return None


def _recipe(name: str, key: str, variant: str) -> Recipe:
    function = REGISTRY[key].function()
    parameters = inspect.signature(function).parameters
    shape = "input_shape" if "input_shape" in parameters else ""
    if not shape and isinstance(getattr(parameters.get("num_features"), "default", None), int):
        shape = "num_features"
    return Recipe(name, function, {"variant": variant} if variant else {}, shape)


def _variant(rest: str, variants: Sequence[str]) -> str:
    """The variant that is meant by the rest of a name, "" if none is."""
    plain = {_plain(variant): variant for variant in variants}
    if rest in plain:
        return plain[rest]
    size = _SIZE.fullmatch(rest)
    long = f"{_SIZES[size.group(1)]}{size.group(2)}" if size else rest.replace("patch", "")
    return plain.get(long, "")


def _application(name: str) -> Recipe:
    function = getattr(keras.applications, name)

    def build(**arguments: Any) -> keras.Model:
        try:
            return function(**arguments)
        except ValueError as error:  # Keras' messages are long, and in several lines
            raise ValueError(f"keras.applications.{name}: {shorten(error)}.") from error

    return Recipe(name, build, {"weights": None}, "input_shape")


def _applications() -> list[str]:
    public = [name for name in dir(keras.applications) if name[:1].isupper()]
    return [name for name in public if callable(getattr(keras.applications, name))]


def _buildable() -> list[str]:
    """Models that need nothing but a variant. "pretrained" needs a backbone: that one is asked."""
    return [name for name in REGISTRY if name != "pretrained"]


def _zoo_names() -> list[str]:
    names = []
    for key in _buildable():
        names += [key, *(f"{key}-{variant}" for variant in REGISTRY[key].variants)]
    return names


def _plain(name: str) -> str:
    return re.sub(r"[\s_:./-]", "", name.lower())


def _like(name: str, names: Sequence[str]) -> str | None:
    return next((known for known in names if _plain(known) == _plain(name)), None)


def _unknown(given: str, wanted: str, names: Sequence[str]) -> ValueError:
    spelled: dict[str, str] = {}
    for known in names:  # the zoo's come first: "resnet-50" rather than "ResNet50"
        spelled.setdefault(_plain(known), known)
    near = difflib.get_close_matches(_plain(wanted), spelled, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(spelled[one]) for one in near)}? " if near else ""
    fix = f"{hint}bigzoo.models.list_models() and dir(keras.applications) show all."
    return ValueError(message("model", given, "a known name, or a .keras file", fix))
