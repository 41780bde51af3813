"""A thousand requests that mean harm or are broken: each is refused with a reason, none does any.

All are made from a seed, so that one that fails can be made again.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import tempfile
import zipfile
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz

pytest.importorskip("starlette", reason="needs bigzoo[serve]")
pytest.importorskip("python_multipart", reason="needs bigzoo[serve]")

COUNT = 1000
MAX_BYTES = 120_000
MAX_PIXELS = 250_000
FORM = "multipart/form-data; boundary=xyz"


@pytest.fixture(scope="module")
def served():
    image = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu")(image)
    x = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
    return bz.deploy.app(
        keras.Model(image, x), ["cat", "dog"], max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS
    )


# --- files -----------------------------------------------------------------------------------


def _picture(rng, format):
    size = tuple(int(side) for side in rng.integers(1, 60, 2))
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def _mutated(rng, content):
    """Bytes turned, cut out, doubled, or the end cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 8))):
        if not data:
            break
        at = int(rng.integers(len(data)))
        length = int(rng.integers(1, 40))
        what = int(rng.integers(5))
        if what == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif what == 1:
            data[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif what == 2:
            del data[at : at + length]
        elif what == 3:
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
    return bytes(data)


def _png_chunk(kind, content):
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def _png(width, height, rows=b"", *chunks, depth=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def _bombs():
    """Small files that would unpack to gigabytes."""
    zeros = zlib.compress(bytes(40_000_000), 9)
    yield _png(60_000, 60_000)
    yield _png(2**31 - 1, 2**31 - 1)
    yield _png(0, 0)
    yield _png(20_000, 20_000, bytes(1000), depth=1, colour=0)
    yield _png(10, 10, bytes(30_000_000))  # more rows than the header says
    yield _png(10, 10, bytes(310), (b"zTXt", b"a\0\0" + zeros))
    yield _png(10, 10, bytes(310), (b"iTXt", b"a\0\1\0\0\0" + zeros))
    yield _png(10, 10, bytes(310), (b"iCCP", b"a\0\0" + zeros))
    bitmap = io.BytesIO()
    Image.new("RGB", (4, 4)).save(bitmap, "BMP")
    for width, height in ((2**30, 2**30), (-5, 7), (2**31 - 1, 1), (1, 2**31 - 1)):
        data = bytearray(bitmap.getvalue())
        data[18:26] = struct.pack("<ii", width, height)
        yield bytes(data)
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    for side in (65535, 0):
        data = bytearray(gif.getvalue())
        data[6:10] = struct.pack("<HH", side, side)
        yield bytes(data)
    frame = bytearray(gif.getvalue())
    at = frame.index(b",")  # a frame that is larger than the picture
    frame[at + 5 : at + 9] = struct.pack("<HH", 65535, 65535)
    yield bytes(frame)
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    data = bytearray(jpeg.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65535, 65535)
    yield bytes(data)
    webp = io.BytesIO()
    Image.new("RGB", (8, 8)).save(webp, "WEBP", lossless=True)
    data = bytearray(webp.getvalue())
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = b"\xff\xff\xff\x0f"
    yield bytes(data)


def _foreign(rng):
    """Files of other formats, and such as are of two at once."""
    picture = _picture(rng, "PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.txt", bytes(1_000_000))
    yield archive.getvalue()
    yield picture + archive.getvalue()
    yield b"<script>alert(1)</script>" + picture
    yield picture + b"<?php system('ls'); ?>"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n"
    yield b"GIF89a/*" + b"*/=1;alert(1)"
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield b"\xff\xd8\xff\xe0" + b"<html>" * 30
    yield b"MZ" + bytes(500)
    yield b"\x7fELF" + bytes(500)
    yield b"II*\0" + bytes(100)
    yield b"\x1f\x8b\x08" + bytes(100)
    yield b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."
    yield b"\x89HDF\r\n\x1a\n" + bytes(200)
    yield b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x.php?x=`ls`'\n"
    yield b"#EXTM3U\nconcat:file:///etc/passwd\n"


# --- requests --------------------------------------------------------------------------------


def _image_request(rng):
    formats = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
    content = _mutated(rng, _picture(rng, formats[int(rng.integers(5))]))
    path = ("/predict", "/predict", "/predict", "/grad_cam")[int(rng.integers(4))]
    return {"path": path, "body": content, "kind": "image/jpeg"}


def _json_request(rng):
    numbers = rng.uniform(-1, 256, (int(rng.integers(0, 3)), 2, 2, 3)).round(2).tolist()
    text = json.dumps({"inputs": numbers})
    words = [
        "NaN",
        "1e999",
        "null",
        "[[[",
        "]]}",
        '"\\ud800"',
        "-0",
        "9" * 30,
        "{}",
        "\x00",
        "true",
    ]
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(text) + 1))
        text = text[:at] + words[int(rng.integers(len(words)))] + text[at + int(rng.integers(4)) :]
    body = text.encode("utf-8", "surrogatepass")
    if rng.integers(3) == 0:
        body = _mutated(rng, body)
    return {"body": body, "kind": "application/json"}


def _nested_request(rng):
    depth = int(10 ** rng.uniform(0, 4.7))
    opened, closed = ("[", "]") if rng.integers(2) else ('{"inputs":', "}")
    text = opened * depth + "1" + closed * (depth if rng.integers(2) else 0)
    return {"body": f'{{"inputs": {text}}}'.encode()[:MAX_BYTES], "kind": "application/json"}


def _form_request(rng):
    name = ("../../../etc/passwd", "C:\\x\\y.png", "a\0b.png", "x" * 3000, "é\r\n.png", "")[
        int(rng.integers(6))
    ]
    head = f'--xyz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + _picture(rng, "PNG") + b"\r\n--xyz--\r\n"
    if rng.integers(4):
        body = _mutated(rng, body)
    kinds = (FORM, FORM, "multipart/form-data", FORM + "é", "multipart/form-data; boundary=" * 2)
    return {"body": body, "kind": kinds[int(rng.integers(5))]}


def _path_request(rng):
    pieces = (
        "..",
        "%2e%2e",
        "etc",
        "passwd",
        "\\",
        "predict",
        "",
        "\0",
        "é",
        "~",
        "file:",
        "a" * 900,
    )
    chosen = [pieces[int(i)] for i in rng.integers(0, len(pieces), int(rng.integers(1, 9)))]
    methods = ("GET", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "CONNECT", "é\r\n")
    return {
        "method": methods[int(rng.integers(len(methods)))],
        "path": "/" + "/".join(chosen),
        "body": b"x",
        "query": ("", "top=-1", "top=9e9", "class_index=__import__", "%00%ff")[
            int(rng.integers(5))
        ],
    }


def _size_request(rng):
    body = bytes(int(rng.integers(MAX_BYTES - 2, MAX_BYTES + 5000)))
    length = ("", "-1", "1e3", "9" * 30, "٣", "0x10", "5, 6", "1_000")[int(rng.integers(8))]
    request = {"body": body, "kind": ("image/png", "application/json", FORM)[int(rng.integers(3))]}
    if rng.integers(2):
        return {**request, "body": [body[:50_000], b"", body[50_000:]]}
    return {
        **request,
        "body": [body],
        "headers": [("content-length", length.encode().decode("latin-1"))],
    }


def _header_request(rng):
    hosts = ("evil.example", "localhost.evil", "127.0.0.1:x", "[::1", "", "localhost\0", "::1", "0")
    kinds = (
        "",
        "image",
        "IMAGE/PNG; a=b",
        "text/html",
        "application/json; charset=utf-7",
        "é" * 50,
    )
    origins = ("null", "http://evil.example", "file://", "http://localhost:8000", "é")
    return {
        "path": ("/predict", "/grad_cam", "/", "/health")[int(rng.integers(4))],
        "body": _picture(rng, "PNG"),
        "kind": kinds[int(rng.integers(len(kinds)))],
        "host": hosts[int(rng.integers(len(hosts)))] if rng.integers(2) else "localhost",
        "headers": [("origin", origins[int(rng.integers(len(origins)))])],
        "query": (
            "class_index=1",
            "class_index=2",
            "class_index=٣".encode().decode("latin-1"),
            "top",
        )[int(rng.integers(4))],
    }


MAKERS = (
    _image_request,
    _image_request,
    _image_request,
    _json_request,
    _nested_request,
    _form_request,
    _path_request,
    _size_request,
    _header_request,
)


def requests():
    rng = np.random.default_rng(20)
    found = [{"body": content, "kind": "image/png"} for content in (*_bombs(), *_foreign(rng))]
    found += [{**request, "path": "/grad_cam"} for request in found]
    while len(found) < COUNT:
        found.append(MAKERS[len(found) % len(MAKERS)](rng))
    return [{"method": "POST", "path": "/predict", **request} for request in found]


def _files(*folders):
    return {
        (root, name)
        for folder in folders
        for root, _, names in os.walk(folder)
        for name in (*names, "")
    }


@pytest.mark.filterwarnings("ignore")  # Pillow's, on broken files
def test_a_thousand_hostile_requests(asgi, served, tmp_path, monkeypatch):
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(scratch))
    opened = []
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda *a, **k: opened.append(a))
    all_requests = requests()
    before = _files(tmp_path)

    async def ask_in_turn():
        found = []
        for start in range(0, len(all_requests), 20):
            part = all_requests[start : start + 20]
            found += await asyncio.gather(*(asgi.ask(served, **request) for request in part))
        return found

    answers = asyncio.run(ask_in_turn())
    statuses = [answer.status for answer in answers]
    assert len(statuses) == COUNT
    bad = [(i, status) for i, status in enumerate(statuses) if status // 100 not in (2, 4)]
    assert bad == []
    for answer in answers:
        if answer.status >= 400:
            reason = answer.json()["error"]
            assert reason
            assert "Traceback" not in reason and ".py" not in reason and "/work" not in reason
    # The test would be worthless if all were refused for one and the same reason.
    assert {200, 400, 403, 404, 405, 413, 415, 422} <= set(statuses)
    assert _files(tmp_path) == before
    assert opened == []
    good = asgi(served, "POST", "/predict", _picture(np.random.default_rng(0), "PNG"), "image/png")
    assert good.status == 200


def test_bombs_are_refused_before_they_unpack(asgi, served):
    for content in (_png(60_000, 60_000), _png(600, 600, bytes(1_080_600))):
        answer = asgi(served, "POST", "/predict", content, "image/png")
        assert answer.status == 413
        assert "too large" in answer.json()["error"]


def test_long_text_among_numbers_takes_no_memory(asgi, served):
    # numpy would make room for the longest text at every place: 2 TB here.
    numbers = ["a" * 50_000, *["b"] * 10_000]
    answer = asgi(
        served, "POST", "/predict", json.dumps({"inputs": numbers}).encode(), "application/json"
    )
    assert answer.status == 422
