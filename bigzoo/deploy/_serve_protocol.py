"""HTTP connections that must say what they want in time.

uvicorn waits for a request's first line and headers for as long as its client likes: whoever opens
many connections and sends a byte now and then would take them all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bigzoo._optional import require
from bigzoo.deploy._serve_body import PACKAGE

# For the headers of a request, and for what is still sent after its answer.
HEADER_SECONDS = 20.0


def patient_protocol(seconds: float = HEADER_SECONDS) -> Any:
    """uvicorn's protocol, which closes a connection without a new request for `seconds`."""
    name = "uvicorn.protocols.http.h11_impl"
    base: Any = require(name, PACKAGE, "python -m bigzoo serve").H11Protocol

    class Protocol(base):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.wait()

        def on_response_complete(self) -> None:
            answered = self.cycle
            super().on_response_complete()
            if self.cycle is answered:  # else the next request has come along with this one
                self.wait()

        def connection_lost(self, exc: Exception | None) -> None:
            if self.late is not None:
                self.late.cancel()
            super().connection_lost(exc)

        def wait(self) -> None:
            """Close the connection unless a request begins in time."""
            seen = self.cycle

            def close() -> None:
                if self.cycle is seen:
                    self.transport.close()

            if self.late is not None:
                self.late.cancel()
            self.late = self.loop.call_later(seconds, close)

    return Protocol
