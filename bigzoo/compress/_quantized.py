"""A quantised model as a file with its runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._runtime import Runtime
from bigzoo.deploy._targets import resolve_target, written


class QuantizedModel:
    """A quantised model; `quantize` makes it. It lives in a file of its own until it is saved.

    Attributes:
        path: The file, in a temporary folder that goes when this object does. `save` copies it.
        receipt: What was gained and lost.
        engine: "litert" or "onnx": the runtime that computes the answers.
        format: The same as the name of the file's format, as in `bz.deploy.export`.
        mode: "dynamic", "int8" or "float16".
        class_names: Names of the classes, or None.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: tempfile.TemporaryDirectory[str],
        mode: str,
        receipt: Receipt,
        again: Callable[[str], Any],
    ) -> None:
        self._runtime = runtime
        self._folder = folder  # removed when this object is collected, or Python ends
        self._again = again
        self.path = runtime.path
        self.engine = runtime.engine
        self.format = runtime.engine
        self.mode = mode
        self.receipt = receipt
        self.signature = runtime.signature
        self.class_names = runtime.notes.class_names if runtime.notes else None

    def __call__(self, x: Any) -> Any:
        """Predict a batch of any size, from any thread.

        Args:
            x: What the model takes: an array (batch, ...), or a list or dict of arrays.

        Returns:
            What the model gives, as numpy arrays.

        Raises:
            ValueError: if a shape, a number of inputs or a name is wrong.
        """
        return self._runtime(x)

    def save(self, path: Any) -> Path:
        """Copy the file, whole or not at all.

        Args:
            path: A name that ends in .tflite or .onnx, as the format is, in a folder that exists.
                An existing file is replaced.

        Returns:
            The path.

        Raises:
            ValueError: if the name doesn't fit the format.
            OSError: if the path can't be written to.
        """
        target = resolve_target(path, self.format)
        with written(target) as partial:
            shutil.copyfile(self.path, partial)
        return target.given

    def export_to(self, path: Any, format: str | None = None) -> Receipt:
        """What `bz.deploy.export` calls: the file at `path`, quantised anew for another format.

        Args:
            path: Where.
            format: "litert" or "onnx"; None goes by the path.

        Returns:
            The receipt of the file.

        Raises:
            ValueError: for a format that can't be quantised for.
        """
        target = resolve_target(path, format)
        if target.format == self.format:
            self.save(path)
            return replace(self.receipt, path=str(target.given))
        if target.format not in ("litert", "onnx"):
            raise ValueError(
                f"{str(target.given)!r} is in the format {target.format!r}, which bigzoo doesn't "
                "quantise for; expected a .tflite or .onnx file. Export the original model there."
            )
        made: QuantizedModel = self._again(target.format)
        return made.export_to(path, target.format)

    def __repr__(self) -> str:
        return f"<QuantizedModel {self.engine}, {self.mode}: {str(self.path)!r}>"
