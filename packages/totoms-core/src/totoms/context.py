"""What travels with the work at hand: the correlation id.

Held in a :class:`contextvars.ContextVar`, so that it follows ``await``, tasks and worker threads
without being passed along. Set for each request and for each message that is being handled.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import Final

current_cid: Final[ContextVar[str]] = ContextVar("totoms_cid", default="")
"""The correlation id of the request or message being handled; empty outside of both."""

# Visible ASCII without what could break a log line or a header; 128 is what the clouds' log indexes keep.
_SANE_CID: Final = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")


# Asked of the system many at a time: one by one it costs as much as the rest of a request. A forked child starts anew.
_ready: Final[list[str]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)


def new_cid() -> str:
    """Make a correlation id: 32 hexadecimal digits, random (also a valid W3C trace id)."""
    try:
        return _ready.pop()
    except IndexError:
        digits = os.urandom(16 * 128).hex()
        _ready.extend(digits[start : start + 32] for start in range(32, len(digits), 32))
        return digits[:32]


def sane_cid(candidate: str | None) -> str:
    """Return `candidate` if it may be used as a correlation id, else a new one.

    Args:
        candidate: What a caller sent; 1 to 128 letters, digits and ``._:/+=@~-`` are accepted.
    """
    if candidate and _SANE_CID.fullmatch(candidate):
        return candidate
    return new_cid()
