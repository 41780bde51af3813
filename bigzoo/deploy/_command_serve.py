"""`python -m bigzoo serve pets.keras`: a model behind a small web server on this computer."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import Any

from bigzoo._errors import check_int
from bigzoo._optional import require
from bigzoo.deploy._serve_body import PACKAGE
from bigzoo.deploy._serve_guard import LOOPBACK
from bigzoo.deploy._serve_limits import Limits
from bigzoo.deploy._serve_protocol import patient_protocol

_EVERY_ADDRESS = ("0.0.0.0", "::")
_NO_AUTHENTICATION = (
    "warning: everyone who can reach {} can use this server: it has no authentication and no "
    "encryption"
)
# Connections that may wait for the server to take them.
_BACKLOG = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("model", help="a .keras, .onnx or .tflite file, or a folder of a SavedModel or OpenVINO")
    add("--host", default="127.0.0.1", help="address to listen on [127.0.0.1: this computer only]")
    add("--port", type=int, default=8000, metavar="N", help="0 takes a free one [8000]")
    add("--class-names", metavar="NAMES", help="such as cat,dog [those of the model]")
    add("--image-size", type=_size, metavar="SIZE", help="height,width, for models of any size")
    add("--crop", action="store_true", help="cut sides off instead of distorting, as in training")
    add(
        "--max-bytes",
        type=int,
        default=Limits.bytes,
        metavar="N",
        help=f"largest request [{Limits.bytes}]",
    )
    add(
        "--max-pixels",
        type=int,
        default=Limits.pixels,
        metavar="N",
        help=f"largest image [{Limits.pixels}]",
    )


def run(arguments: argparse.Namespace, build: Any) -> int:
    """Serve until the process is stopped; the exit status."""
    uvicorn = require("uvicorn", PACKAGE, "python -m bigzoo serve")
    port = check_int("--port", arguments.port, 0, 65535)
    # Before the model is loaded: that the port is in use should be said at once.
    with _bound(arguments.host, port) as listener:
        from bigzoo.deploy._serve import app

        names = arguments.class_names
        served = app(
            arguments.model,
            None if names is None else [name.strip() for name in names.split(",")],
            image_size=arguments.image_size,
            crop_to_aspect_ratio=arguments.crop,
            max_bytes=arguments.max_bytes,
            max_pixels=arguments.max_pixels,
            allowed_hosts=_hosts(arguments.host),
        )
        if not _is_loopback(listener):
            print(_NO_AUTHENTICATION.format(arguments.host), file=sys.stderr)
        print(f"Serving {arguments.model} at {_url(listener)} (stop: Ctrl+C)", flush=True)
        config = uvicorn.Config(
            served,
            http=patient_protocol(),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",  # to standard error; not what is wrong with a request
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _size(text: str) -> tuple[int, int]:
    """ "128,96" as (128, 96)."""
    parts = text.replace("x", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected height,width: 128,128")
    return int(parts[0]), int(parts[1])


def _bound(host: str, port: int) -> socket.socket:
    if not host:
        raise ValueError("`--host` is empty; expected an address, such as 127.0.0.1.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"{host!r} is no address of this computer; use 127.0.0.1.") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # Else a port can't be used again for a minute after the server has stopped. On Windows the
        # option would let two servers share it.
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once: two sockets that don't listen yet can bind the same port. Who connects while the
        # model is loaded waits.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        fix = "Stop what uses the port, or give another one; --port 0 takes a free one."
        reason = error.strerror or str(error)
        raise OSError(f"Can't listen on {host}, port {port}: {reason}. {fix}") from error
    return listener


def _hosts(host: str) -> tuple[str, ...]:
    """Names by which the server may be called."""
    if host in _EVERY_ADDRESS:
        return (*LOOPBACK, host, socket.gethostname())
    return (*LOOPBACK, host)


def _is_loopback(listener: socket.socket) -> bool:
    address = str(listener.getsockname()[0])
    return address.startswith("127.") or address == "::1"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
