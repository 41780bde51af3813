"""What the server accepts, and how it makes requests wait.

Everything here runs in the event loop's thread, so nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


class Refused(Exception):
    """A request that gets an answer of 4xx, or 503, with the reason.

    Attributes:
        status: The HTTP status.
        reason: One sentence for the sender.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, and of all that are there at one time.

    Attributes:
        bytes: Largest body of a request.
        pixels: Largest picture; checked in its header, before it is decoded.
        rows: Most samples in one request of JSON.
        length: Longest axis of inputs whose size the model leaves open.
        requests: Most requests in flight; further ones get 503.
        held_bytes: Memory for the bodies of all requests in flight; further ones wait.
        seconds: Time for a body to arrive in.
    """

    bytes: int = 16_000_000
    pixels: int = 50_000_000
    rows: int = 1024
    length: int = 4096
    requests: int = 1000
    held_bytes: int = 256_000_000
    seconds: float = 60.0


@dataclass
class Gate:
    """Lets requests in: counts them, and gives each the memory for its body before it's read.

    A request gets all that it may need at once, in the order of arrival: with a part each, all
    could wait for each other.
    """

    limits: Limits
    inside: int = 0
    held: int = 0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)

    @contextlib.asynccontextmanager
    async def enter(self, size: int) -> AsyncIterator[None]:
        """Wait for room for `size` bytes, at most `limits.bytes`."""
        if self.inside >= self.limits.requests:
            raise Refused(503, "too many requests at a time; try again", {"Retry-After": "2"})
        self.inside += 1
        try:
            await self._take(size)
            try:
                yield
            finally:
                self._give(size)
        finally:
            self.inside -= 1

    async def _take(self, size: int) -> None:
        if not self.waiting and self._fits(size):
            self.held += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self.waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn had come in the same moment
                self._give(size)
            elif entry in self.waiting:
                self.waiting.remove(entry)
                self._admit()
            raise

    def _fits(self, size: int) -> bool:
        # One alone always gets in, however small the memory is set.
        return self.held == 0 or self.held + size <= self.limits.held_bytes

    def _give(self, size: int) -> None:
        self.held -= size
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self._fits(self.waiting[0][0]):
            size, turn = self.waiting.popleft()
            if not turn.done():
                self.held += size
                turn.set_result(None)
