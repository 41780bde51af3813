"""The body of a request, read into memory within limits; nothing is ever written to a file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from bigzoo._optional import require
from bigzoo.deploy._serve_limits import Limits, Refused

PACKAGE = "bigzoo[serve]"
_MOST_PARTS = 16
# Of a part: its name and the file's. Earlier versions of the parser take any, and are slow at it.
_HEADER_BYTES = 4096
_BOUNDARY_BYTES = 1000
# What is read of a body that is too large and thrown away: a client that is still sending when the
# connection closes doesn't see why it was refused.
_DRAINED_BYTES = 64 * 2**20
_DRAINED_SECONDS = 5.0
_IN_A_FORM = "send one file in a form: curl -F file=@photo.jpg"


def announced(headers: Any, most: int) -> int:
    """Bytes to expect: Content-Length if there is a valid one, else as many as may come."""
    text = headers.get("content-length")
    if text is None:
        return most
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused(400, "Content-Length is no number")
    return min(int(text), most)


async def read_body(request: Any, limits: Limits) -> bytes:
    """The whole body, or Refused as soon as it has more than `limits.bytes`."""
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read(request, limits.bytes)
    except TimeoutError:
        seconds = f"{limits.seconds:g} seconds"
        raise Refused(408, f"the body didn't arrive within {seconds}") from None


async def _read(request: Any, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    stream = request.stream()
    if int(request.headers.get("content-length") or 0) > most:
        await _drain(stream)
        raise _too_large(most)
    async for chunk in stream:
        size += len(chunk)
        if size > most:
            chunks.clear()
            await _drain(stream)
            raise _too_large(most)
        chunks.append(chunk)
    return b"".join(chunks)


async def _drain(stream: Any) -> None:
    left, end = _DRAINED_BYTES, time.monotonic() + _DRAINED_SECONDS
    try:
        async with asyncio.timeout(_DRAINED_SECONDS):
            async for chunk in stream:
                left -= len(chunk)
                if left < 0 or time.monotonic() > end:
                    return
    except TimeoutError:
        return


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is too large; at most {most:,} bytes are accepted")


# === Forms ===


@dataclass
class _Part:
    disposition: bytes = b""
    content: list[bytes] = field(default_factory=list)


class _Parts:
    """Callbacks of the parser, which gives everything in pieces."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._name, self._value = b"", b""

    def on_part_begin(self) -> None:
        if len(self.parts) >= _MOST_PARTS:
            raise Refused(400, f"the form has more than {_MOST_PARTS} parts; {_IN_A_FORM}")
        self.parts.append(_Part())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content.append(data[start:end])

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._check(len(self._name) + end - start)
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._check(len(self._value) + end - start)
        self._value += data[start:end]

    def _check(self, size: int) -> None:
        if size > _HEADER_BYTES:
            raise Refused(400, f"a header in the form is too long; {_IN_A_FORM}")

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self.parts[-1].disposition = self._value
        self._name, self._value = b"", b""

    def on_end(self) -> None:
        self.complete = True

    def callbacks(self) -> dict[str, Any]:
        names = [name for name in vars(_Parts) if name.startswith("on_")]
        return {name: getattr(self, name) for name in names}


def file_in_form(content_type: str, body: bytes) -> bytes:
    """The one file in a form (multipart/form-data). The name that it came with is not looked at."""
    forms = require("python_multipart", PACKAGE, "bigzoo.deploy.app")
    boundary = None
    if len(content_type) <= _BOUNDARY_BYTES:
        boundary = forms.multipart.parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "the form has no boundary in its Content-Type")
    found = _Parts()
    try:
        parser = forms.MultipartParser(boundary, found.callbacks())
        parser.write(body)
        parser.finalize()
        files = [part for part in found.parts if _is_file(forms, part)]
    # The parser's own errors are ValueErrors; those of the headers in the parts are of all kinds.
    except (ValueError, LookupError, AttributeError) as error:
        raise Refused(400, f"the form can't be read; {_IN_A_FORM}") from error
    if not found.complete:
        raise Refused(400, "the form is cut off: its last boundary is missing")
    if len(files) != 1:
        raise Refused(422, f"the form has {len(files)} files; {_IN_A_FORM}")
    return b"".join(files[0].content)


def _is_file(forms: Any, part: _Part) -> bool:
    kind, options = forms.multipart.parse_options_header(part.disposition)
    return kind == b"form-data" and (b"filename" in options or options.get(b"name") == b"file")
