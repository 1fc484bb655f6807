"""The correlation id and the trace context of the request or message being handled.

They are context variables, so tasks and worker threads inherit them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

current_cid: Final[ContextVar[str]] = ContextVar("totoms_cid", default="")
"""The correlation id of the request or message being handled; empty outside of both."""

# Visible ASCII without what could break a log line or a header; 128 is what the clouds' log indexes keep.
_SANE_CID: Final = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")


def new_cid() -> str:
    """Generate a correlation id: 32 random hexadecimal digits, also a valid W3C trace id."""
    return os.urandom(16).hex()


def sane_cid(candidate: str | None) -> str:
    """Return `candidate` if it is a valid correlation id, else a new one.

    Args:
        candidate: A caller's id; 1 to 128 letters, digits and ``._:/+=@~-`` are valid.
    """
    if candidate and _SANE_CID.fullmatch(candidate):
        return candidate
    return new_cid()


_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_incoming: Final[ContextVar[str]] = ContextVar("totoms_traceparent", default="")


def is_traceparent(candidate: str | None) -> bool:
    """Return whether `candidate` is well formed (https://www.w3.org/TR/trace-context/#traceparent-header)."""
    return bool(candidate and _TRACEPARENT.fullmatch(candidate))


def remember_traceparent(candidate: str | None) -> None:
    """Set the `traceparent` of the request or message being handled, if it is well formed."""
    _incoming.set(candidate if candidate and is_traceparent(candidate) else "")


def incoming_traceparent() -> str:
    """Return the `traceparent` that the request or message being handled came with, or ""."""
    return _incoming.get()


def current_traceparent() -> str:
    """Return the `traceparent` of the current span, else of the request or message being handled, or ""."""
    if traceparent_of_tracer is not None and (found := traceparent_of_tracer()):
        return found
    return _incoming.get()


def current_span_ids() -> tuple[str, str]:
    """Return the trace id and the span id of the current span, or "" for each that is unknown.

    Without a tracer the trace id is that of the `traceparent` of the request or message, and the span id is "".
    """
    if span_ids_of_tracer is not None and any(found := span_ids_of_tracer()):
        return found
    received = _incoming.get()
    return (received[3:35], "") if received else ("", "")


# `totoms.telemetry` sets these two once a tracer provider is configured.
span_ids_of_tracer: Callable[[], tuple[str, str]] | None = None
"""Returns the ids of OpenTelemetry's current span."""
traceparent_of_tracer: Callable[[], str] | None = None
"""Returns the `traceparent` of OpenTelemetry's current span, or ""."""
