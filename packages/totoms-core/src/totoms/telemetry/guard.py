"""Keep errors of a telemetry provider away from requests and messages.

The API of OpenTelemetry must not raise, but a sampler, a span processor or a provider of the user's may.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec

from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger

REMINDER_INTERVAL: Final = 60.0
"""Seconds between two lines of the log about it."""
_Parameters = ParamSpec("_Parameters")
_next = 0.0


def unfailing(record: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Decorate a function that records something: when it raises, log that once a minute, and continue."""

    @wraps(record)
    def recorded(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception as error:
            report(error)

    return recorded


def report(error: Exception) -> None:
    """Log that something could not be recorded, at most once a minute."""
    global _next
    now = time.monotonic()
    if now >= _next:
        _next = now + REMINDER_INTERVAL
        TotoLogger.get_instance().log(
            "telemetry", f"A span or a metric could not be recorded: {describe_error(error)}", "ERROR"
        )
