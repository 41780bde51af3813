"""What a model's description (`config.json`) would make Keras do, read before Keras does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras

# Modules of Keras whose functions compute on tensors. Others write files, download, change global
# settings: a model that calls one of those isn't a model.
_FUNCTION_MODULES = frozenset(
    ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
)
# Modules of Keras whose classes a model is made of, and "" for those in `keras` itself. Callbacks,
# data sets and file stores are no part of a model, and making one may write files.
_CLASS_MODULES = _FUNCTION_MODULES | {
    *("applications", "distillation", "dtype_policies", "layers", "mixed_precision", "models"),
    *("optimizers", "quantizers", "random"),
}
_TOP_CLASSES = {
    *("DTypePolicy", "FloatDTypePolicy", "Function", "Functional", "Initializer", "InputSpec"),
    *("Layer", "Loss", "Metric", "Model", "Operation", "Optimizer", "Quantizer", "Regularizer"),
    *("Sequential", "Variable"),
}
# Where Keras looks for a function that a file gives by its bare name.
_NAMED = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers")
_NO_COMPUTATION = ("deserialize", "get", "serialize")
# Layers that run code or open files of their own.
_CODE = {
    "Lambda": "a Lambda layer, which runs code that is stored in the file",
    "__lambda__": "a Python lambda, which is code that is stored in the file",
    "TFSMLayer": "a TFSMLayer, which runs a program from another file",
    "TorchModuleWrapper": "a TorchModuleWrapper, which unpickles code",
    "JaxLayer": "a JaxLayer, which runs code that is stored in the file",
    "FlaxLayer": "a FlaxLayer, which runs code that is stored in the file",
}
TRUST = "Only if you know who made the file: `trust=True`."


def read_config(text: bytes, what: str) -> dict[str, Any]:
    """The parsed `config.json`, or a ValueError if it doesn't describe a Keras model."""
    try:
        config = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{what} is refused: its config.json is nested without end.") from error
    except ValueError as error:
        raise ValueError(f"{what} is damaged: its config.json is not JSON.") from error
    if not isinstance(config, dict) or not {"class_name", "config"} <= config.keys():
        raise ValueError(f"{what} is not a Keras model: its config.json describes none.")
    return config


def unsafe_part(config: dict[str, Any]) -> str | None:
    """A sentence on the first thing in `config` that Keras and bigzoo don't vouch for, or None."""
    for node in _nodes(config):
        found = _unsafe_node(node)
        if found:
            return found
    return None


def _unsafe_node(node: dict[str, Any]) -> str | None:
    name = node.get("class_name")
    if name in _CODE:
        return f"It has {_CODE[name]}. {TRUST}"
    inner = node.get("config")
    if isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str):
        return f"Its layer {name!r} reads another file ({inner['vocabulary']!r}). {TRUST}"
    module = node.get("module")
    if module is None:
        return None
    if not isinstance(module, str) or not isinstance(name, str):
        return f"It names a class in a wrong form ({name!r} of {module!r})."
    if name == "function":
        return _unsafe_function(module, inner)
    if _is_registered(node.get("registered_name"), name):
        return None
    parts = _parts(module)
    if parts[0] == "builtins":
        return _no_part("class", f"{module}.{name}")
    # A function in a class's place would be called with whatever the file says.
    if parts[0] != "keras" or not name[:1].isupper():
        return _unknown("class", f"{module}.{name}")
    known = parts[1] in _CLASS_MODULES if len(parts) > 1 else name in _TOP_CLASSES
    return None if known else _no_part("class", f"{module}.{name}")


def _parts(module: str) -> list[str]:
    """The public part of a module's path: keras.src.layers and keras.layers are one."""
    first, *others = module.split(".")
    return [first, *(others[1:] if others[:1] == ["src"] else others)]


def _unsafe_function(module: str, name: Any) -> str | None:
    if not isinstance(name, str):
        return f"It names a function in a wrong form ({name!r} of {module!r})."
    if _is_registered(name):
        return None
    if module == "builtins":
        return None if _is_named(name) else _no_part("function", f"{module}.{name}")
    parts = _parts(module)
    if parts[0] != "keras":
        return _unknown("function", f"{module}.{name}")
    if len(parts) > 1 and parts[1] in _FUNCTION_MODULES:
        return None
    return _no_part("function", f"{module}.{name}")


def _is_named(name: str) -> bool:
    """Whether a bare name is one of Keras' activations, losses and the like, or of one's own."""
    if name.startswith("_") or name in _NO_COMPUTATION:
        return False
    if any(callable(getattr(getattr(keras, module), name, None)) for module in _NAMED):
        return True
    # Files of Keras up to 3.6 give functions of one's own without their package.
    return any(own.endswith(f">{name}") for own in keras.saving.get_custom_objects())


def _no_part(kind: str, name: str) -> str:
    return f"It names the {kind} {name!r}, which is no part of a model. {TRUST}"


def _unknown(kind: str, name: str) -> str:
    fix = "add `@keras.saving.register_keras_serializable()` and import its module before loading."
    return f"It needs the {kind} {name!r}, which neither Keras nor bigzoo has. If it's yours, {fix}"


def _is_registered(*names: Any) -> bool:
    texts = [name for name in names if isinstance(name, str)]
    return any(keras.saving.get_registered_object(text) is not None for text in texts)


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in `config` that says what class or function it stands for."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item or "module" in item:
                yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
