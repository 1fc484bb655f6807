"""How many messages wait in a subscription, and how old the oldest is."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, Final

from azure.servicebus import ServiceBusMessageState

from totoms.errors import AccessDenied, NotFound
from totoms.plugin import Backlog, Subscription
from totoms_azure.messages.clients import Clients
from totoms_azure.messages.naming import REPLAY, Entity, entity_of
from totoms_azure.messages.subscriptions import open_receiver

_PEEKED: Final = 10
"""Messages among which to look for the oldest: those before it may be scheduled for later."""


async def count_backlog(clients: Clients, subscription: Subscription) -> Backlog:
    """Return how many messages wait, including replayed ones, and the age of the oldest unless the order is kept.

    Args:
        clients: The bus's clients.
        subscription: A pulled subscription, or a queue.

    Raises:
        AccessDenied: The service lacks the right to manage, by which Service Bus gives the number.
        NotFound: There is no such subscription.
    """
    entity = entity_of(subscription)
    aged = not subscription.ordered  # to look into sessions, each would have to be locked
    found = await _count(clients, entity, aged=aged)
    if entity.topic:
        with contextlib.suppress(NotFound):  # nothing was ever replayed
            replayed = await _count(clients, entity.queue(REPLAY), aged=aged)
            ages = [one.oldest_seconds for one in (found, replayed) if one.oldest_seconds is not None]
            found = Backlog(found.messages + replayed.messages, max(ages, default=None))
    return found


async def _count(clients: Clients, entity: Entity, *, aged: bool) -> Backlog:
    def count(client: Any) -> int:
        if entity.topic:
            return int(client.get_subscription_runtime_properties(entity.topic, entity.name).active_message_count)
        return int(client.get_queue_runtime_properties(entity.name).active_message_count)

    try:
        messages = await clients.administer(count, entity.kind, str(entity))
    except AccessDenied as error:
        right = "the claim Manage, or the role Azure Service Bus Data Owner"
        raise AccessDenied(f"{error.message} It needs {right}.", resource=error.resource) from error
    return Backlog(messages, await _oldest(clients, entity) if messages and aged else None)


async def _oldest(clients: Clients, entity: Entity) -> float | None:
    async with open_receiver(clients, entity, entity.kind) as receiver:
        messages = await receiver.peek_messages(max_message_count=_PEEKED)
    enqueued = [one.enqueued_time_utc for one in messages if one.state == ServiceBusMessageState.ACTIVE]
    times = [time for time in enqueued if time is not None]
    return max(0.0, (datetime.now(UTC) - min(times)).total_seconds()) if times else None
