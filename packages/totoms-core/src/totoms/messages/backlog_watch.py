"""Read the backlogs of a service's subscriptions for its metrics, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.subscription import Subscription
from totoms.telemetry.service_metrics import Place, ServiceInstruments

INTERVAL: Final = 30.0
"""Seconds between two reads: some brokers count them, or update their numbers once a minute only."""
PATIENCE: Final = 10.0
"""Seconds that one read may take."""


class BacklogWatch:
    """Reads the backlog of each subscription every `INTERVAL` seconds.

    A failure is logged once until a read succeeds again. Meanwhile the subscription has no metric, so that an old
    number is not taken for the present one.

    Args:
        bus: The bus.
        logger: The service's logger.
        interval: Seconds between two reads, by default `INTERVAL`.
    """

    def __init__(self, bus: MessageBus, logger: TotoLogger, interval: float | None = None) -> None:
        self._bus = bus
        self._logger = logger
        self._interval = INTERVAL if interval is None else interval
        self._task: asyncio.Task[None] | None = None
        self._failed: set[Place] = set()

    def start(self, subscriptions: Sequence[Subscription], instruments: ServiceInstruments) -> None:
        """Start to read, on the running event loop."""
        if subscriptions:
            self._task = asyncio.create_task(self._run(subscriptions, instruments), name="totoms backlogs")

    async def stop(self) -> None:
        """Stop to read."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, subscriptions: Sequence[Subscription], instruments: ServiceInstruments) -> None:
        try:
            while True:
                await asyncio.gather(*(self._read(one, instruments) for one in subscriptions))
                await asyncio.sleep(self._interval)
        finally:
            for subscription in subscriptions:
                instruments.remove_backlog(_place(subscription))

    async def _read(self, subscription: Subscription, instruments: ServiceInstruments) -> None:
        place = _place(subscription)
        try:
            async with asyncio.timeout(PATIENCE):
                backlog = await self._bus._backlog(subscription)
        except Exception as error:
            instruments.remove_backlog(place)
            if place not in self._failed:
                self._failed.add(place)
                why = describe_error(error)
                text = f"The metrics of the backlog of {subscription.name} are missing until it can be read: {why}"
                self._logger.log("metrics", text, "WARNING")
            return
        self._failed.discard(place)
        if backlog is None:
            instruments.remove_backlog(place)
        else:
            instruments.set_backlog(place, backlog.messages, backlog.oldest_seconds)


def _place(subscription: Subscription) -> Place:
    return subscription.logical_name, subscription.name
