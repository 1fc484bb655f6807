"""Trace context (https://www.w3.org/TR/trace-context/), without requiring a tracing library.

A `traceparent` that came in with a request or a message goes out with every message published from it.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_incoming: Final[ContextVar[str]] = ContextVar("totoms_traceparent", default="")


def remember_traceparent(candidate: str | None) -> None:
    """Keep the `traceparent` of the request or message at hand, if it is well formed."""
    _incoming.set(candidate if candidate and _TRACEPARENT.fullmatch(candidate) else "")


def current_traceparent() -> str:
    """Return the `traceparent` to pass on, or ""."""
    return _incoming.get()
