"""What a service needs at Service Bus: its subscription, or its queue, and how often that hands over a message."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError
from azure.servicebus import NEXT_AVAILABLE_SESSION
from azure.servicebus.aio import ServiceBusReceiver

from totoms.envelope import Subscription
from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms_azure.servicebus_clients import SOCKET_SECONDS, Clients
from totoms_azure.servicebus_errors import translate
from totoms_azure.servicebus_names import Entity, entity_of

_MORE_ATTEMPTS: Final = 5
"""More than ours: the core gives up itself, and tells why. This is for messages whose consumers die."""
_MOST_ATTEMPTS: Final = 2000
_SESSION_WAIT: Final = 1.0


class Topology:
    """Looks for entities and makes them.

    Args:
        clients: Of the bus.
        lease_seconds: How long locks last on what is made here; at most 300.
    """

    def __init__(self, clients: Clients, lease_seconds: float) -> None:
        self._clients = clients
        self._lock = timedelta(seconds=lease_seconds)

    async def check(self, subscription: Subscription) -> None:
        """See that a subscription is there, as whoever may receive from it can: by connecting.

        Raises:
            NotFound: It is not; says what is missing.
            BackendError: It keeps an order and should not, or the other way round.
        """
        entity = entity_of(subscription)
        try:
            await self._connect(subscription, entity)
        except NotFound as error:
            raise NotFound(
                f"There is no {_called(entity)}; and create_subscriptions is off.", resource=subscription.name
            ) from error.__cause__

    async def make(self, subscription: Subscription) -> None:
        """See that a subscription is there, made where it is missing.

        Raises:
            NotFound: There is no such topic.
            AccessDenied: It is missing and may not be made.
            BackendError: It exists and cannot be made what it must be.
        """
        entity = entity_of(subscription)
        attempts = min(subscription.retry.max_attempts + _MORE_ATTEMPTS, _MOST_ATTEMPTS)
        try:
            found = await self._find(entity)
            if found is None:
                if entity.topic:
                    await self._check_topic(entity.topic)
                found = await self._make(entity, subscription.ordered, attempts)
        except (AccessDenied, Unavailable) as error:  # whoever may receive need not be allowed to administer
            try:
                await self._connect(subscription, entity)
            except NotFound:
                told = f"The {_called(entity)} is missing, and could not be made."
                raise type(error)(told, resource=subscription.name) from error.__cause__
            return
        if bool(found.requires_session) != subscription.ordered:
            raise _other_order(entity)
        if (found.max_delivery_count or 0) < attempts:
            found.max_delivery_count = attempts
            await self._update(entity, found)

    async def make_queue(self, name: str) -> None:
        """Make a queue, unless it exists.

        Raises:
            AccessDenied: It is missing and may not be made.
        """
        entity = Entity("", name)
        try:
            await self._make(entity, False, _MOST_ATTEMPTS)
        except AccessDenied as error:
            if await self.exists(entity):
                return
            raise AccessDenied(f"The {_called(entity)} is missing, and may not be made.", resource=name) from error

    async def require_queue(self, name: str, *, create: bool) -> None:
        """See that a queue is there, made where it is missing if `create` says so.

        Raises:
            NotFound: It is missing, and nothing is to be made.
            AccessDenied: It is missing and may not be made.
        """
        entity = Entity("", name)
        if create:
            await self.make_queue(name)
        elif not await self.exists(entity):
            raise NotFound(f"There is no {_called(entity)}; and create_subscriptions is off.", resource=name)

    async def find_topic_of(self, subscription: str) -> str | None:
        """Return the topic beneath which there is a subscription of that name, or None.

        Raises:
            AccessDenied: That may not be looked up.
        """

        def look(client: Any) -> str | None:
            for topic in client.list_topics():
                for found in client.list_subscriptions(topic.name):
                    if found.name.lower() == subscription.lower():
                        return str(topic.name)
            return None

        return await self._clients.administer(look, "the subscription", subscription)

    async def exists(self, entity: Entity) -> bool:
        """Tell whether it is there, as whoever may receive from it can."""
        try:
            await self._probe(entity, None)
        except NotFound:
            return False
        except BackendError as error:
            if not _is_refusal(error):
                raise
        return True

    async def _find(self, entity: Entity) -> Any:
        def find(client: Any) -> Any:
            if entity.topic:
                return client.get_subscription(entity.topic, entity.name)
            return client.get_queue(entity.name)

        try:
            return await self._clients.administer(find, _kind(entity), str(entity))
        except NotFound:
            return None

    async def _check_topic(self, topic: str) -> None:
        try:
            await self._clients.administer(lambda client: client.get_topic(topic), "the topic", topic)
        except NotFound as error:
            raise NotFound(f"There is no topic {topic!r}.", resource=topic) from error.__cause__

    async def _make(self, entity: Entity, ordered: bool, attempts: int) -> Any:
        settings: dict[str, Any] = {
            "requires_session": ordered, "lock_duration": self._lock, "max_delivery_count": attempts,
            "dead_lettering_on_message_expiration": True,
        }  # fmt: skip

        def make(client: Any) -> Any:
            try:
                if entity.topic:
                    return client.create_subscription(entity.topic, entity.name, **settings)
                return client.create_queue(entity.name, **settings)
            except ResourceExistsError:  # another process was quicker
                return None

        made = await self._clients.administer(make, _kind(entity), str(entity))
        return made if made is not None else await self._find(entity)

    async def _update(self, entity: Entity, wanted: Any) -> None:
        def update(client: Any) -> None:
            if entity.topic:
                client.update_subscription(entity.topic, wanted)
            else:
                client.update_queue(wanted)

        await self._clients.administer(update, _kind(entity), str(entity))

    async def _connect(self, subscription: Subscription, entity: Entity) -> None:
        try:
            await self._probe(entity, NEXT_AVAILABLE_SESSION if subscription.ordered else None)
        except Unavailable as error:
            # That no session has messages is told by nothing but a time-out.
            if not (subscription.ordered and type(error.__cause__).__name__ == "OperationTimeoutError"):
                raise
        except BackendError as error:
            raise _other_order(entity) if _is_refusal(error) else error from error.__cause__

    async def _probe(self, entity: Entity, session: Any) -> None:
        receiver = receiver_of(
            self._clients, entity, session_id=session, max_wait_time=_SESSION_WAIT if session else None
        )
        try:
            async with receiver:
                pass
        except BackendError:
            raise
        except Exception as error:
            raise translate(error, _kind(entity), str(entity)) from error
        finally:
            await receiver.close()


def receiver_of(clients: Clients, entity: Entity, **options: Any) -> ServiceBusReceiver:
    """Return a receiver, not connected yet.

    Args:
        clients: Of the bus.
        entity: What to receive from.
        options: Of the SDK's `get_queue_receiver` and `get_subscription_receiver`.
    """
    options = {"socket_timeout": SOCKET_SECONDS, **options}
    if entity.topic:
        return clients.receiving.get_subscription_receiver(entity.topic, entity.name, **options)
    return clients.receiving.get_queue_receiver(entity.name, **options)


def _kind(entity: Entity) -> str:
    return "the subscription" if entity.topic else "the queue"


def _called(entity: Entity) -> str:
    return f"subscription {entity.name!r} to the topic {entity.topic!r}" if entity.topic else f"queue {entity.name!r}"


def _is_refusal(error: BackendError) -> bool:
    # Connected to and refused: a receiver without a session for what wants one, or with one for what has none.
    return type(error) is BackendError


def _other_order(entity: Entity) -> BackendError:
    return BackendError(
        f"The {_called(entity)} was made with another setting of `ordered`, which cannot be changed.",
        resource=str(entity),
    )
