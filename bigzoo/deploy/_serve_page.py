"""The page, and what a browser may do with it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Page:
    """The page as it is sent.

    Attributes:
        content: HTML, UTF-8; it needs no other file.
        policy: The Content-Security-Policy: only its own script and style, by their hashes, and
            requests to this server.
    """

    content: bytes
    policy: str


@functools.cache
def read_page() -> Page:
    """The page of the package."""
    text = resources.files("bigzoo.deploy").joinpath("page.html").read_text(encoding="utf-8")
    rules = {
        "default-src": "'none'",
        "script-src": _hashes(text, "script"),
        "style-src": _hashes(text, "style"),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return Page(text.encode(), "; ".join(f"{name} {value}" for name, value in rules.items()))


def _hashes(text: str, tag: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
