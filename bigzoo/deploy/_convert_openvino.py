"""An ONNX file to OpenVINO's form: a folder with model.xml and model.bin."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bigzoo._errors import shorten
from bigzoo._optional import require


def check_installed() -> None:
    """Before any work is done: the package without which there is no OpenVINO folder."""
    if find_spec("openvino") is None:
        require("openvino", "bigzoo[openvino]", "Export to OpenVINO")


def write_openvino(source: Path, folder: Path) -> None:
    """Convert the .onnx file `source`; weights stay in float32."""
    from bigzoo.deploy._runtime_openvino import import_openvino

    openvino = import_openvino("Export to OpenVINO")
    folder.mkdir()
    try:
        # `convert_model` does the same, and reports each use to the network.
        model = openvino.Core().read_model(str(source))
    # OpenVINO's exceptions are those of its parts.
    except Exception as error:
        text = f"OpenVINO can't hold this model: {shorten(error)}. Export it to .onnx."
        raise ValueError(text) from error
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
