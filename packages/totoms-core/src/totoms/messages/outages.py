"""Log that something cannot be done, for as long as it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger

REMINDER_INTERVAL: Final = 60.0
"""Seconds between two lines about the same reason."""


class Outage:
    """Something that may fail for a while, such as receiving from one subscription.

    While it fails, an ERROR says each minute for how long and why. A new reason, which is another class of error or
    another resource, is logged at once. When it works again, one more line says so.

    Args:
        action: What cannot be done, to follow "Cannot": "receive from blog-posts".
        logger: The service's logger.
        clock: Returns monotonic seconds.
        now: Returns the time in seconds since the epoch.

    Attributes:
        failures: How many attempts have failed in a row.
        since: When the first of them failed, in seconds since the epoch; None if the last attempt succeeded.
        failure: The class of the last error; "" if the last attempt succeeded.
    """

    def __init__(
        self,
        action: str,
        logger: TotoLogger,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.failures = 0
        self.since: float | None = None
        self.failure = ""
        self._action = action
        self._logger = logger
        self._clock = clock
        self._now = now
        self._began = 0.0
        self._logged: dict[tuple[Any, ...], float] = {}

    def failed(self, error: Exception) -> None:
        """Note that an attempt has failed, and log it if that is due."""
        clock = self._clock()
        if self.since is None:
            self.since, self._began = self._now(), clock
        self.failures += 1
        self.failure = type(error).__name__
        reason = type(error), getattr(error, "resource", None)
        # By reason: two that alternate must not be logged at each attempt.
        due = {logged: at for logged, at in self._logged.items() if clock - at < REMINDER_INTERVAL}
        if reason not in due:
            due[reason] = clock
            self._logger.log("events", f"Cannot {self._action}{self._lasting()}: {describe_error(error)}", "ERROR")
        self._logged = due

    def ended(self) -> None:
        """Note that an attempt has succeeded, and log it if the one before failed."""
        if self.since is None:
            return
        self._logger.log("events", f"Can {self._action} again{self._lasting(' after')}.")
        self.failures, self.since, self.failure = 0, None, ""
        self._logged = {}

    def _lasting(self, preposition: str = " for") -> str:
        seconds = round(self._clock() - self._began)
        if not seconds:
            return ""
        minutes, rest = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if number]
        return f"{preposition} {' '.join(parts)}"
