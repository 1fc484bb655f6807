"""List subscriptions with the number of their dead letters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from totoms.errors import AccessDenied, NotFound, Unsupported
from totoms.messages.bus import MessageBus

if TYPE_CHECKING:
    from totoms.declaration.service import TotoMicroserviceConfiguration

_MOST_LISTED: Final = 1000
"""Dead letters that are listed to count them, where the broker reports no number."""
_AT_A_TIME: Final = 8


@dataclass(frozen=True)
class Count:
    """The dead letters of one subscription.

    Attributes:
        subscription: Its name.
        dead_letters: How many there are; None if they cannot be counted.
        problem: Why they cannot be counted.
        more: Whether there are more than that.
        hidden: Whether they were hidden from others while they were counted.
    """

    subscription: str
    dead_letters: int | None
    problem: str = ""
    more: bool = False
    hidden: bool = False


def declared_subscriptions(configuration: TotoMicroserviceConfiguration) -> list[str]:
    """Return the names of the subscriptions that a service declares, in the order of its topics."""
    declared = configuration.message_bus_configuration
    if declared is None:
        return []
    heard = declared.heard
    return [
        topic.subscription or f"{configuration.service_name}-{topic.logical_name}"
        for topic in declared.topics
        if topic.logical_name in heard
    ]


async def count_all(bus: MessageBus, subscriptions: list[str] | None) -> list[Count]:
    """Count the dead letters of each subscription.

    Args:
        bus: The bus.
        subscriptions: The names; None for all that the backend knows.

    Raises:
        Unsupported: The backend has no dead letters, or cannot list its subscriptions.
    """
    if subscriptions is None:
        found = await bus._list_subscriptions()
        if found is None:
            raise Unsupported(
                f"The {bus.environment.hyperscaler} message bus cannot list subscriptions: name the service's "
                "declaration, such as service:configuration."
            )
        subscriptions = sorted(found)
    limit = asyncio.Semaphore(_AT_A_TIME)

    async def count(name: str) -> Count:
        async with limit:
            return await _count(bus, name)

    return list(await asyncio.gather(*map(count, subscriptions)))


async def _count(bus: MessageBus, subscription: str) -> Count:
    try:
        store = bus._store(subscription)
        number = await store.count()
        if number is not None:
            return Count(subscription, number)
        listed = len(await store.list(_MOST_LISTED + 1))
    except NotFound:
        return Count(subscription, None, "none such")
    except AccessDenied:  # others may be allowed
        return Count(subscription, None, "access denied")
    return Count(subscription, min(listed, _MOST_LISTED), more=listed > _MOST_LISTED, hidden=store.listing_hides)
