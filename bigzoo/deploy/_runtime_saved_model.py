"""SavedModels, in TensorFlow, whatever backend Keras has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._optional import require
from bigzoo.deploy._runtime_litert import natural
from bigzoo.deploy._signature import TensorSpec

_DEFAULT = "serving_default"


class SavedModelSession:
    """The function of a SavedModel's default signature, which threads may share."""

    def __init__(self, loaded: Any, tensorflow: Any) -> None:
        if _DEFAULT not in loaded.signatures:
            raise ValueError(f"it has no signature {_DEFAULT!r}")
        self._loaded = loaded  # its variables live as long as it does
        self._function = loaded.signatures[_DEFAULT]
        self._tensor = tensorflow.constant
        self.inputs = _specs(self._function.structured_input_signature[1])
        self.outputs = _specs(self._function.structured_outputs)
        self._names = [spec.name for spec in self.inputs]
        self._given = [spec.name for spec in self.outputs]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        tensors = map(self._tensor, arrays)
        found = self._function(**dict(zip(self._names, tensors, strict=True)))
        return [found[name].numpy() for name in self._given]


def open_session(path: Path) -> SavedModelSession:
    """The session of a SavedModel's folder."""
    tensorflow = require("tensorflow", purpose="Running a SavedModel")
    return SavedModelSession(tensorflow.saved_model.load(str(path)), tensorflow)


def _specs(named: dict[str, Any]) -> tuple[TensorSpec, ...]:
    names = sorted(named, key=natural)
    return tuple(
        TensorSpec(name, tuple(named[name].shape.as_list()), named[name].dtype.name)
        for name in names
    )
