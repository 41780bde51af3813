"""A small web server for one model: JSON for programs, and a page for people."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bigzoo._errors import check_bool, check_int, shorten
from bigzoo._optional import require
from bigzoo._version import __version__
from bigzoo.deploy._scores import to_prediction
from bigzoo.deploy._serve_body import PACKAGE, announced, file_in_form, read_body
from bigzoo.deploy._serve_guard import LOOPBACK, Guard, check_hosts
from bigzoo.deploy._serve_images import overlay, read_upload, resized, shown_size
from bigzoo.deploy._serve_json import read_inputs, to_plain
from bigzoo.deploy._serve_limits import Gate, Limits, Refused
from bigzoo.deploy._serve_model import Served, open_served
from bigzoo.deploy._serve_page import read_page

_PURPOSE = "bigzoo.deploy.app"
_TOP = 5
_FORM, _JSON = "multipart/form-data", "application/json"
_log = logging.getLogger("bigzoo.deploy")


def app(
    model: Any,
    class_names: Sequence[str] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    crop_to_aspect_ratio: bool = False,
    max_bytes: int = Limits.bytes,
    max_pixels: int = Limits.pixels,
    max_requests: int = Limits.requests,
    threads: int | None = None,
    allowed_hosts: Sequence[str] | None = LOOPBACK,
) -> Any:
    """An ASGI application that answers with a model's predictions.

    `python -m bigzoo serve pets.keras` runs it; with a server of your own, write
    `app = bz.deploy.app("pets.keras")` in a module and run `uvicorn module:app`. It has no
    authentication and no encryption: for more than this computer, put a server in front of it that
    has both. Nothing that is sent to it is written to a file.

    - `GET /`: a page on which to drop a photo.
    - `GET /health`: what is served, and the limits, as JSON.
    - `POST /predict`: an image, as the body or as a file in a form, gives `label`, `probability`,
      `probabilities` and `top` (as many as `?top=5` says). JSON `{"inputs": [...]}`, one row per
      sample, or several inputs in the form that the model takes, gives `{"outputs": ...}`.
    - `POST /grad_cam`: an image gives a PNG of it with the places that speak for the likeliest
      class, or for that of `?class_index=`; for Keras models whose graph allows it.

    Bad requests get a status of 4xx and `{"error": "the reason"}`.

    Args:
        model: A `keras.Model`, or the path of a .keras, .onnx or .tflite file, or of a folder with
            a SavedModel or an OpenVINO model.
        class_names: One name per class; None takes those of the model.
        image_size: (height, width) in pixels, for models that take images of any size.
        crop_to_aspect_ratio: As in `bz.data.images`, with which the model was trained.
        max_bytes: Largest body of a request, at least 1.
        max_pixels: Largest image, at least 1; checked before it is decoded.
        max_requests: Most requests at a time, at least 1; more get status 503.
        threads: How many work at a time; None takes one per core, at most 4.
        allowed_hosts: Names that requests may call the server by. None allows all, for a server
            behind another one that checks them.

    Returns:
        The application, for any ASGI server.

    Raises:
        ImportError: if `bigzoo[serve]` isn't installed.
        FileNotFoundError: if there is no such file.
        TypeError, ValueError: if an argument is wrong, or the model fails on a first try.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> served = bz.deploy.app(model)
        >>> callable(served)
        True
    """
    crop = check_bool("crop_to_aspect_ratio", crop_to_aspect_ratio)
    limits = Limits(
        bytes=check_int("max_bytes", max_bytes, 1),
        pixels=check_int("max_pixels", max_pixels, 1),
        requests=check_int("max_requests", max_requests, 1),
    )
    workers = min(4, os.cpu_count() or 1) if threads is None else check_int("threads", threads, 1)
    hosts = check_hosts(allowed_hosts)
    _require_all()
    served = open_served(model, class_names, image_size)
    return Guard(_application(_Server(served, limits, crop, workers)), hosts)


def _require_all() -> None:
    """Everything that is needed, so that what is missing is said before the model is loaded."""
    require("starlette", PACKAGE, _PURPOSE)
    require("python_multipart", PACKAGE, _PURPOSE)


def _application(server: _Server) -> Any:
    applications = require("starlette.applications", PACKAGE, _PURPOSE)
    route = require("starlette.routing", PACKAGE, _PURPOSE).Route
    http_exception = require("starlette.exceptions", PACKAGE, _PURPOSE).HTTPException

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        server.close()

    async def refused(_: Any, error: Any) -> Any:
        return _json(error.status, {"error": error.reason}, error.headers)

    async def not_found(request: Any, error: Any) -> Any:
        known = "known: /, /health, /predict, /grad_cam"
        reasons = {
            404: f"there is no such path; {known}",
            405: f"the method {request.method[:20]} is not for this path",
        }
        reason = reasons.get(error.status_code, str(error.detail))
        return _json(error.status_code, {"error": reason}, error.headers)

    async def failed(_: Any, error: Any) -> Any:
        return _json(500, {"error": "the server has failed; its log says why"})

    built = applications.Starlette(
        routes=[
            route("/", server.page, methods=["GET"]),
            route("/health", server.health, methods=["GET"]),
            route("/predict", server.predict, methods=["POST"]),
            route("/grad_cam", server.grad_cam, methods=["POST"]),
        ],
        exception_handlers={Refused: refused, http_exception: not_found, Exception: failed},
        lifespan=lifespan,
    )
    built.router.redirect_slashes = False
    return built


class _Server:
    """The answers. Models work in threads of their own: the event loop stays free for the rest."""

    def __init__(self, served: Served, limits: Limits, crop: bool, threads: int) -> None:
        self.served = served
        self.limits = limits
        self.crop = crop
        self.gate = Gate(limits)
        self.threads = threads
        self.pool = self._new_pool()
        self.about = json.dumps(_about(served, limits)).encode()

    def close(self) -> None:
        """What waits is given up. The application may be started again."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="bigzoo-serve")

    async def page(self, request: Any) -> Any:
        page = read_page()
        return _response(page.content, "text/html", {"content-security-policy": page.policy})

    async def health(self, request: Any) -> Any:
        return _response(self.about, _JSON)

    async def predict(self, request: Any) -> Any:
        kind = _content_type(request)
        if kind == _JSON:
            return _response(await self._work(request, self._outputs), _JSON)
        if self.served.classifier is None:
            raise Refused(
                415, f"this model takes JSON, no images; {self.served.why_no_images}".rstrip("; ")
            )
        _check_image_type(kind)
        top = _whole_number(request, "top", 1, 1_000_000)

        def label(content: bytes) -> bytes:
            return self._label(content, _TOP if top is None else top)

        return _response(await self._work(request, label), _JSON)

    async def grad_cam(self, request: Any) -> Any:
        if self.served.explain is None or self.served.classifier is None:
            raise Refused(409, f"there is no Grad-CAM here: {self.served.why_no_map}")
        _check_image_type(_content_type(request))
        most = len(self.served.classifier.class_names) - 1
        chosen = _whole_number(request, "class_index", 0, most)
        png = await self._work(request, lambda content: self._map(content, chosen))
        return _response(png, "image/png")

    async def _work(self, request: Any, function: Callable[[bytes], bytes]) -> bytes:
        """Read the body, and call `function` with it, or with the file in it, in a thread."""
        gone = require("starlette.requests", PACKAGE, _PURPOSE).ClientDisconnect
        header = request.headers.get("content-type", "")
        is_form = _content_type(request) == _FORM
        async with self.gate.enter(announced(request.headers, self.limits.bytes)):
            try:
                body = await read_body(request, self.limits)
            except gone:
                raise Refused(400, "the connection was closed") from None

            def work() -> bytes:
                return function(file_in_form(header, body) if is_form else body)

            return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    # === In the threads ===

    def _outputs(self, body: bytes) -> bytes:
        inputs = read_inputs(body, self.served.signature, self.limits)
        return json.dumps({"outputs": to_plain(_compute(self.served.call, inputs))}).encode()

    def _label(self, content: bytes, top: int) -> bytes:
        found = self.served.classifier
        if found is None:
            raise RuntimeError("no classifier")
        pixels = read_upload(content, found.size, found.channels, self.crop, self.limits.pixels)
        row = _compute(found.probabilities, pixels[np.newaxis])[0]
        names = found.class_names
        answer = to_prediction("", row, names, found.kind, min(top, len(names)))
        return json.dumps(
            {
                "label": answer.label,
                "probability": answer.probability,
                "probabilities": answer.probabilities,
                "top": [{"label": name, "probability": part} for name, part in answer.top],
            }
        ).encode()

    def _map(self, content: bytes, class_index: int | None) -> bytes:
        found, explain = self.served.classifier, self.served.explain
        if found is None or explain is None:
            raise RuntimeError("no Grad-CAM")
        given = read_upload(content, found.size, found.channels, self.crop, self.limits.pixels)
        heat = _compute(lambda pixels: explain(pixels, class_index), given)
        whole = read_upload(
            content, found.size if self.crop else None, 3, self.crop, self.limits.pixels
        )
        size = shown_size(whole.shape[:2], found.size if self.crop else None)
        return overlay(resized(whole, size), heat)


def _compute(function: Callable[[Any], Any], inputs: Any) -> Any:
    """What the model makes of `inputs`. It works on others, so that a failure is due to them."""
    try:
        return function(inputs)
    except MemoryError:
        raise Refused(413, "there is no memory for inputs of this size") from None
    # Each backend and runtime has errors of its own; their text has paths and calls in it.
    except Exception as error:
        _log.warning("the model failed: %s: %s", type(error).__name__, shorten(error, 200))
        raise Refused(422, "the model can't compute this: are all numbers in its range?") from None


def _about(served: Served, limits: Limits) -> dict[str, Any]:
    found = served.classifier
    plain = served.signature.to_json()
    about: dict[str, Any] = {
        "status": "ok",
        "model": served.name,
        "image": None,
        "classes": None,
        "grad_cam": served.explain is not None,
        **{key: plain[key] for key in ("inputs", "outputs", "input_form")},
        "max_bytes": limits.bytes,
        "max_pixels": limits.pixels,
        "version": __version__,
    }
    if found is None:
        return {**about, "note": served.why_no_images}
    size = {"height": found.size[0], "width": found.size[1], "channels": found.channels}
    return {**about, "image": size, "classes": list(found.class_names), "note": found.note}


def _content_type(request: Any) -> str:
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _check_image_type(kind: str) -> None:
    if kind.startswith("image/") or kind in (_FORM, "application/octet-stream"):
        return
    got = f"the Content-Type is {kind[:60]!r}" if kind else "there is no Content-Type"
    fix = "send an image (image/jpeg, image/png …), a form with one file, or JSON"
    raise Refused(415, f"{got}; {fix}")


def _whole_number(request: Any, name: str, least: int, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    valid = text.isascii() and text.isdigit() and len(text) < 10
    if not valid or not least <= int(text) <= most:
        raise Refused(422, f"{name} is no whole number from {least} to {most}")
    return int(text)


def _json(status: int, data: Any, headers: Any = None) -> Any:
    return _response(json.dumps(data).encode(), _JSON, headers, status)


def _response(content: bytes, kind: str, headers: Any = None, status: int = 200) -> Any:
    make = require("starlette.responses", PACKAGE, _PURPOSE).Response
    return make(content, status, dict(headers or {}), kind)
