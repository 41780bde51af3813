"""What travels inside an exported file: its signature, class names, image size, how it was made."""

from __future__ import annotations

import json
import os
import unicodedata
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bigzoo._errors import message, shorten
from bigzoo._optional import require
from bigzoo.deploy._tensor_specs import Signature

_ENTRY = "bigzoo.json"
_KEY = "bigzoo"
# 20,000 long class names fit.
_MOST_BYTES = 2**24
_KINDS = ("softmax", "sigmoid", "multilabel", "softmax_logits", "sigmoid_logits")
# 400 MB as float32 pixels: a file that asks for more would fill the memory of who opens it.
_MOST_PIXELS = 2**25
_MODES = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True)
class Notes:
    """What bigzoo writes into every file that it exports.

    Attributes:
        model: Name of the model.
        signature: Its inputs and outputs.
        class_names: One per class, or None.
        image_size: (height, width) in pixels that an image model takes, or None.
        output_kind: "softmax", "sigmoid", "multilabel", or the first two with "_logits"; None if
            the model is no classifier.
        mode: "float32", "float16", "dynamic" or "int8".
        versions: Package -> its version.
    """

    model: str
    signature: Signature
    class_names: tuple[str, ...] | None
    image_size: tuple[int, int] | None
    output_kind: str | None
    mode: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As dicts and lists, which `from_json` reads."""
        return {
            "model": self.model,
            "signature": self.signature.to_json(),
            "class_names": None if self.class_names is None else list(self.class_names),
            "image_size": None if self.image_size is None else list(self.image_size),
            "output_kind": self.output_kind,
            "mode": self.mode,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, data: Any) -> Notes:
        """The notes that `to_json` gave; ValueError for anything else, hostile or not."""
        if not isinstance(data, dict):
            raise ValueError(message("notes", data, "a dict"))
        versions = data.get("versions")
        if not isinstance(versions, dict) or not all(
            _is_text(key) and _is_text(value) for key, value in versions.items()
        ):
            raise ValueError(message("versions", versions, "names with versions"))
        signature = Signature.from_json(data.get("signature"))
        return cls(
            model=_text(data, "model"),
            signature=signature,
            class_names=_class_names(data.get("class_names"), signature),
            image_size=_image_size(data.get("image_size")),
            output_kind=_choice(data, "output_kind", (*_KINDS, None)),
            mode=str(_choice(data, "mode", _MODES)),
            versions=dict(versions),
        )


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not _is_text(value):
        raise ValueError(message(key, value, "a text without control characters"))
    return str(value)


def _is_text(value: Any) -> bool:
    """A str that can be shown: no control codes for a terminal, no half of a character."""
    return isinstance(value, str) and not any(
        unicodedata.category(letter) in ("Cc", "Cs") for letter in value
    )


def _choice(data: dict[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    value = data.get(key)
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(message(key, value, "one of " + ", ".join(map(repr, choices))))
    return value


def _class_names(names: Any, signature: Signature) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(_is_text(name) and name.strip() for name in names):
        raise ValueError(message("class_names", names, "a list of names of printable letters"))
    units = signature.outputs[0].shape[-1]
    if len(signature.outputs) == 1 and units is not None and len(names) != max(units, 2):
        raise ValueError(message("class_names", names, f"{max(units, 2)} names"))
    if len(set(names)) < len(names):
        raise ValueError(message("class_names", names, "different names"))
    return tuple(names)


def _image_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and side > 0 for side in size)
        or size[0] * size[1] > _MOST_PIXELS
    ):
        expected = f"a pair (height, width), at most {_MOST_PIXELS:,} pixels"
        raise ValueError(message("image_size", size, expected))
    return size[0], size[1]


def file_format(path: Path) -> str | None:
    """ "onnx", "litert", "saved_model" or "openvino", by the suffix or what a folder holds."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        return "openvino" if (path / "model.xml").is_file() else None
    return {".onnx": "onnx", ".tflite": "litert", ".xml": "openvino"}.get(path.suffix.lower())


# --- writing ---------------------------------------------------------------------------------


def write_notes(path: Path, format: str, notes: Notes) -> None:
    """Put `notes` into the file or folder at `path`; earlier ones are replaced."""
    text = json.dumps(notes.to_json(), ensure_ascii=False)
    if format == "onnx":
        _write_onnx(path, text)
    elif format == "litert":
        _write_litert(path, text)
    elif format == "saved_model":
        _replace(path / "assets.extra" / _ENTRY, text.encode("utf-8"))
    elif format == "openvino":
        _write_openvino(_xml_of(path), text)
    else:
        raise ValueError(message("format", format, "onnx, litert, saved_model or openvino"))


def _write_onnx(path: Path, text: str) -> None:
    onnx = require("onnx", "bigzoo[onnx]", "An .onnx file")
    model = onnx.load(str(path), load_external_data=False)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, _KEY: text})
    _replace(path, model.SerializeToString())


def _write_litert(path: Path, text: str) -> None:
    """As TensorFlow Lite keeps files that belong to a model: a zip behind it in the same file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if [entry.filename for entry in entries] != [_ENTRY]:
            raise ValueError(f"{str(path)!r} has files of others behind its model.")
        os.truncate(path, entries[0].header_offset)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_ENTRY, text)


def _write_openvino(xml: Path, text: str) -> None:
    tree = ElementTree.parse(xml)
    root = tree.getroot()
    info = root.find("rt_info")
    if info is None:
        info = ElementTree.SubElement(root, "rt_info")
    for old in info.findall(_KEY):
        info.remove(old)
    ElementTree.SubElement(info, _KEY, {"value": text})
    _replace(xml, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _xml_of(path: Path) -> Path:
    return path / "model.xml" if path.is_dir() else path


def _replace(path: Path, content: bytes) -> None:
    """Write the whole file under another name first: a crash leaves the earlier one."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- reading ---------------------------------------------------------------------------------


def read_notes(path: Path) -> Notes | None:
    """What bigzoo noted in an exported file or folder; None in files of others.

    Raises:
        ValueError: if the file is damaged, or has notes that aren't what bigzoo writes.
    """
    kind = file_format(path)
    readers = {
        "onnx": _read_onnx,
        "litert": _read_litert,
        "saved_model": _read_saved_model,
        "openvino": _read_openvino,
    }
    if kind is None:
        return None
    try:
        text = readers[kind](path)
    except (OSError, ImportError, MemoryError):
        raise
    # What a damaged file raises depends on the part that is broken.
    except Exception as error:
        raise ValueError(f"{str(path)!r} is damaged: {shorten(error)}.") from error
    return None if text is None else parse_notes(text, repr(str(path)))


def parse_notes(text: str | bytes, what: str) -> Notes:
    """The notes from their text in a file, which a stranger may have written."""
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError(f"they are over {_MOST_BYTES // 2**20} MiB")
        return Notes.from_json(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} has damaged notes of bigzoo: {shorten(error)}.") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _read_onnx(path: Path) -> str | None:
    onnx = require("onnx", "bigzoo[onnx]", "An .onnx file")
    model = onnx.load(str(path), load_external_data=False)
    found = [entry.value for entry in model.metadata_props if entry.key == _KEY]
    return found[0] if found else None


def _read_litert(path: Path) -> bytes | None:
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if _ENTRY not in archive.namelist():
            return None
        return _read_entry(archive)


def _read_entry(archive: zipfile.ZipFile) -> bytes:
    # The size that the entry claims may be a lie: read no more than is allowed.
    with archive.open(_ENTRY) as entry:
        return entry.read(_MOST_BYTES + 1)


def _read_saved_model(path: Path) -> bytes | None:
    file = path / "assets.extra" / _ENTRY
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return stream.read(_MOST_BYTES + 1)


def _read_openvino(path: Path) -> str | None:
    # OpenVINO's files have neither; they are how XML is made to explode or to read other files. A
    # NUL is in every file of another encoding, UTF-16, where the words would look different.
    content = _xml_of(path).read_bytes()
    if any(word in content for word in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise ValueError("it declares XML entities, or isn't UTF-8")
    info = ElementTree.fromstring(content).find(f"rt_info/{_KEY}")
    return None if info is None else info.get("value")
