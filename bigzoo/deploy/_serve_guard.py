"""What is checked of every request before anything else, and the headers of every answer.

A server on the loopback address is within reach of every web page that its user visits. Pages
can't read answers of another origin, but they can send requests; and a page whose host name is
made to point at 127.0.0.1 counts as the same origin (DNS rebinding). So the Host header must name
this server, and a request that another page caused is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from bigzoo._errors import message
from bigzoo.deploy._serve_limits import Refused

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# Of answers that aren't the page: nothing in them may run, whatever a browser takes them for.
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def check_hosts(hosts: Any) -> tuple[str, ...] | None:
    """Names that the Host header may have, in lower case; None for all."""
    if hosts is None:
        return None
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Sequence):
        raise TypeError(message("allowed_hosts", hosts, "a list of host names, or None for all"))
    if not hosts or not all(isinstance(host, str) and host for host in hosts):
        raise ValueError(message("allowed_hosts", hosts, "host names that aren't empty"))
    return tuple(host.lower().strip("[]") for host in hosts)


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, hosts: tuple[str, ...] | None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(event: Any) -> None:
            await send(_with_headers(event) if event["type"] == "http.response.start" else event)

        # If what follows the headers is no HTTP, uvicorn has already answered, but notes that the
        # connection is closed only after this task's first step.
        await asyncio.sleep(0)
        try:
            _check(scope, self.hosts)
        except Refused as refused:
            await _answer(refused, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


def _with_headers(event: Any) -> Any:
    headers = list(event.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    wanted = {"content-security-policy": _NOTHING, **_HEADERS}
    headers += [
        (name.encode(), value.encode())
        for name, value in wanted.items()
        if name.encode() not in present
    ]
    return {**event, "headers": headers}


async def _answer(refused: Refused, send: Any) -> None:
    body = json.dumps({"error": refused.reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _check(scope: Any, hosts: tuple[str, ...] | None) -> None:
    host = _only(scope, b"host")
    if not host or not _is_allowed(_name(host), hosts):
        fix = "call it by the address that it was started with"
        raise Refused(400, f"the Host header doesn't name this server; {fix}")
    if scope["method"] in ("GET", "HEAD"):
        return
    origin = _only(scope, b"origin")
    own = {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}
    if origin is not None and origin.lower() not in own:
        raise Refused(403, "requests from pages of other servers are refused")
    # Browsers set it themselves; "none" is what the user has started.
    if _only(scope, b"sec-fetch-site") not in (None, "same-origin", "none"):
        raise Refused(403, "requests from pages of other servers are refused")


def _only(scope: Any, name: bytes) -> str | None:
    found = [value for key, value in scope["headers"] if key.lower() == name]
    if len(found) > 1:
        raise Refused(400, f"the header {name.decode()} is there {len(found)} times")
    return found[0].decode("latin-1").strip() if found else None


def _name(host: str) -> str:
    """ "localhost:8000" and "[::1]:8000" without the port."""
    if host.startswith("["):
        inside, bracket, port = host[1:].partition("]")
        valid = bracket and (not port or (port[0] == ":" and port[1:].isdigit()))
        return inside.lower() if valid else ""
    name, _, port = host.partition(":")
    return "" if port and not port.isdigit() else name.lower()


def _is_allowed(name: str, hosts: tuple[str, ...] | None) -> bool:
    if hosts is None or name in hosts:
        return True
    # Whoever listens on every address can be called by each; no name that points here is involved.
    return any(host in _EVERY_ADDRESS for host in hosts) and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
