"""The log line of each request and WebSocket."""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.types import Scope

from totoms.declaration.logging import LogConfiguration
from totoms.http.context import Call
from totoms.logging.logger import TotoLogger
from totoms.logging.masking import mask, mask_again

_PROBES: Final = frozenset({"/", "/health", "/ready"})
"""The paths that a platform asks every few seconds: their lines have the level DEBUG."""
_MAX_LOGGED_PATH: Final = 2000


class RequestLog:
    """Writes a line for each request, with its readable text and its fields.

    Args:
        settings: Whether it does, and whether the caller is named.
    """

    def __init__(self, settings: LogConfiguration) -> None:
        self._requests = settings.requests
        self._subjects = settings.subjects

    def write(self, logger: TotoLogger, call: Call, scope: Scope) -> None:
        """Write the line of a request that has been responded to.

        Args:
            logger: The service's logger.
            call: The state of the request.
            scope: The ASGI scope.
        """
        if not self._requests:
            return
        path = scope["path"]
        level = logging.INFO
        if path in _PROBES:
            level = logging.DEBUG
            if not logger.enabled(level):
                return
        took = f"{(time.perf_counter() - call.started) * 1000:.1f}"
        path = mask_again(path)
        if len(path) > _MAX_LOGGED_PATH:
            path = truncated(path)
        method = scope.get("method", "WEBSOCKET")
        note = f": {mask(call.note)}" if call.note else ""
        user = call.user
        subject = mask_again(user._facts.subject or "") if user is not None and self._subjects else ""
        text = f"{method} {path} {call.status} {took} ms{note}"
        logger.log_request(call.cid, text, level, method, call.route, call.status, took, subject)


def truncated(path: str) -> str:
    """Return `path` for the log; callers must not be able to fill it."""
    return path if len(path) <= _MAX_LOGGED_PATH else f"{path[:_MAX_LOGGED_PATH]}... ({len(path)} characters)"
