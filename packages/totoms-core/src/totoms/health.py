"""Readiness: whether what a service depends on answers, and what its subscriptions do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from totoms.logging.logger import TotoLogger

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig

CHECK_DEADLINE: Final = 2.0
"""Seconds that one check may take."""
CHECK_INTERVAL: Final = 1.0
"""Seconds for which results are kept, so that ``/ready`` cannot be used to load what is checked."""
OK: Final = "ok"
RECEIVING: Final = "receiving"
AWAITING: Final = "awaiting subscription"
AWAY: Final = "away"

ReadinessCheck = Callable[[Any], Awaitable[object]]
"""``async def check(config) -> None``; raising means not ready."""


class Readiness:
    """Runs the readiness checks of one service, and shows its subscriptions.

    Args:
        checks: The checks.
        config: The service's loaded configuration, for the checks.
        logger: The service's logger.
        clock: Returns monotonic seconds.
        subscriptions: Returns what ``/ready`` shows of each subscription, by name: its ``state``, which is `RECEIVING`,
            `AWAITING` or `AWAY`; see `away_since`.
        needs_subscriptions: Whether the service is not ready while a subscription is `AWAY`.
    """

    def __init__(
        self,
        checks: Sequence[ReadinessCheck],
        config: TotoControllerConfig,
        logger: TotoLogger,
        clock: Callable[[], float] = time.monotonic,
        *,
        subscriptions: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
        needs_subscriptions: bool = False,
    ) -> None:
        self.subscriptions = subscriptions
        self.needs_subscriptions = needs_subscriptions
        self._checks = {name_of(check): check for check in checks}
        self._config = config
        self._logger = logger
        self._clock = clock
        self._results: dict[str, str] = {}
        self._known_until = 0.0
        self._running: asyncio.Task[None] | None = None

    async def results(self) -> dict[str, str]:
        """Return "ok" or the class of the failure for each check, by name. They run at most once a second."""
        if not self._checks:
            return {}
        if self._running is None and self._clock() >= self._known_until:
            self._running = asyncio.create_task(self._run())
        if self._running is not None:
            await asyncio.shield(self._running)  # a caller that disconnects must not cancel it for the others
        return self._results

    async def _run(self) -> None:
        try:
            failures = await asyncio.gather(*map(self._failure, self._checks.values()))
            for name, failure in zip(self._checks, failures, strict=True):
                self._log_change(name, failure)
                self._results[name] = OK if failure is None else type(failure).__name__
            self._known_until = self._clock() + CHECK_INTERVAL
        finally:
            self._running = None

    async def _failure(self, check: ReadinessCheck) -> BaseException | None:
        task = asyncio.ensure_future(_guarded(check, self._config))
        done, _ = await asyncio.wait({task}, timeout=CHECK_DEADLINE)
        if done:
            return task.result()
        task.cancel()
        return TimeoutError(f"no answer within {CHECK_DEADLINE:g} s")

    def _log_change(self, name: str, failure: BaseException | None) -> None:
        before = self._results.get(name, OK)
        if failure is not None and before == OK:
            self._logger.log("ready", f"Not ready: the check {name} failed", "WARNING", failure)
        elif failure is None and before != OK:
            self._logger.log("ready", f"The check {name} succeeds again.")


def away_since(since: float, failure: str) -> dict[str, str]:
    """Return what ``/ready`` shows of a subscription that cannot receive.

    Args:
        since: When that began, in seconds since the epoch.
        failure: The class of the last error. Its text may name what a stranger should not know.
    """
    began = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"state": AWAY, "since": began, "failure": failure}


async def _guarded(check: ReadinessCheck, config: Any) -> BaseException | None:
    """Run a check and return its exception: raised in a task, a SystemExit would stop the service."""
    try:
        await check(config)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return error
    except BaseException as error:
        return error
    return None


def name_of(check: object) -> str:
    """Return the name of a check in ``/ready``."""
    function = getattr(check, "func", check)  # of a partial
    return str(getattr(function, "__name__", type(function).__name__))
