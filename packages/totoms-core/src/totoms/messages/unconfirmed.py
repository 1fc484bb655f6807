"""Warn about topics for which no working push subscription is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.delivery import find_existing, pushed_to_us
from totoms.messages.subscription import Existing, Subscription

REMINDER_INTERVAL: Final = 60.0
"""Seconds between two warnings about topics that are not pushed."""


class UnconfirmedPushes:
    """The push subscriptions of a service that are not confirmed yet.

    A push or a handshake confirms a subscription, and so does a broker that lists it.

    Args:
        bus: Polled for the subscriptions that exist.
        events_path: The path of the push endpoint.
        base_url: The service's public address, "" if it is unknown.
        logger: The service's logger.
        pause: Sleeps between polls; replaced in tests.
    """

    def __init__(
        self,
        bus: MessageBus,
        events_path: str,
        base_url: str,
        logger: TotoLogger,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bus = bus
        self.events_path = events_path
        self.base_url = base_url
        self._logger = logger
        self._pause = pause
        self._unconfirmed: dict[str, Subscription] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def topics(self) -> list[str]:
        """The logical names of the topics whose push subscriptions are not confirmed."""
        return list(self._unconfirmed)

    def add(self, subscription: Subscription, existing: Existing | None) -> None:
        """Add a subscription, unless `existing` confirms it, and warn until it is confirmed.

        Args:
            subscription: A push subscription.
            existing: What exists at the broker; None if the broker cannot be asked.
        """
        if self.pushed_here(existing):
            self._logger.log("init", f"Subscribed {subscription.name} to {subscription.topic} (push).")
            return
        self._unconfirmed[subscription.logical_name] = subscription
        if existing is None:  # a topic without messages is not an error, so warn once only
            self._logger.log(
                "init", f"Awaiting the first push of {subscription.logical_name!r} to {self.events_path}.", "WARNING"
            )
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._remind())

    def confirm(self, topic: str) -> None:
        """Confirm the subscription of `topic`, a logical name."""
        self._unconfirmed.pop(topic, None)

    def pushed_here(self, existing: Existing | None) -> list[str]:
        """Return the addresses of existing push subscriptions to this service."""
        return [] if existing is None else pushed_to_us(existing.push, self.events_path, self.base_url)

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _remind(self) -> None:
        while self._unconfirmed:
            for topic, subscription in list(self._unconfirmed.items()):
                if self.pushed_here(await find_existing(self._bus, subscription)):
                    self.confirm(topic)
                    self._logger.log("events", f"The push subscription of {topic!r} exists now.")
                elif topic in self._unconfirmed:
                    self._logger.log(
                        "events",
                        f"No messages of {topic!r} can arrive: no confirmed subscription pushes them to "
                        f"{subscription.push_url or f'this service ({self.events_path})'}.",
                        "ERROR",
                    )
            await self._pause(REMINDER_INTERVAL)
