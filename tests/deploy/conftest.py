"""A client for ASGI applications: requests as they are, well-formed or not, without a socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


async def ask(app, method, path, body=b"", kind=None, query="", headers=(), host="localhost:8000"):
    """One request. `body` may be a list: chunks, without a Content-Length."""
    chunks = list(body) if isinstance(body, list) else [body]
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    if host is not None:
        given.append((b"host", host.encode("latin-1")))
    if kind is not None:
        given.append((b"content-type", kind.encode("latin-1")))
    if not isinstance(body, list):
        given.append((b"content-length", str(len(body)).encode()))
    events = []

    async def receive():
        chunk = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(event):
        events.append(event)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": given,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    start = events[0]
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(e.get("body", b"") for e in events[1:]))


@pytest.fixture(scope="session")
def asgi():
    """`asgi(app, "POST", "/predict", body, "image/png")` -> Answer; a coroutine with `.many`."""

    class Client:
        ask = staticmethod(ask)

        def __call__(self, app, *request, **options):
            return asyncio.run(ask(app, *request, **options))

        def all(self, app, requests):
            """Many requests at the same time."""

            async def gather():
                return await asyncio.gather(*(ask(app, **request) for request in requests))

            return asyncio.run(gather())

    return Client()


@pytest.fixture(scope="session")
def serving():
    """`with serving("model.keras", *arguments) as (process, address, port)`: a real server."""
    import bigzoo

    home = str(Path(bigzoo.__file__).resolve().parents[1])

    @contextmanager
    def start(*arguments, cwd, **environment):
        env = {**os.environ, "PYTHONPATH": home, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        command = [sys.executable, "-m", "bigzoo", "serve", *arguments]
        log = Path(cwd) / "server.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, cwd=cwd, env=env, text=True
            )
            try:
                line = process.stdout.readline()
                found = re.search(r"http://\S+:(\d+)/", line)
                if found is None:
                    pytest.fail(f"no address in {line!r}; {log.read_text()[-2000:]}")
                yield process, found[0], int(found[1])
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                process.stdout.close()

    return start
