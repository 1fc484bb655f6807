"""Checking and creating the subscription or queue of a service when it starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError
from azure.servicebus import NEXT_AVAILABLE_SESSION
from azure.servicebus.aio import ServiceBusReceiver

from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms.plugin import Existing, Subscription
from totoms_azure import private_api
from totoms_azure.messages.clients import SOCKET_SECONDS, Clients, is_no_session, translate
from totoms_azure.messages.naming import DEAD, REPLAY, Entity, entity_of, subscription_name, subscription_to

_EXTRA_DELIVERIES: Final = 5
"""Deliveries beyond the attempts, for messages whose consumers die: so that the core dead-letters first, with a
reason."""
_MOST_DELIVERIES: Final = 2000
_SESSION_WAIT: Final = 1.0


class Subscriptions:
    """Finds and creates entities.

    Args:
        clients: The bus's clients.
        lease_seconds: How long locks last on entities that are created; at most 300.
    """

    def __init__(self, clients: Clients, lease_seconds: float) -> None:
        self._clients = clients
        self._lock = timedelta(seconds=lease_seconds)
        self._configured_lock: timedelta | None = None

    def use_lease(self, seconds: float) -> None:
        """Use locks of `seconds`, also on existing entities."""
        self._lock = self._configured_lock = timedelta(seconds=seconds)

    async def check(self, subscription: Subscription) -> None:
        """Check that a subscription exists by connecting to it, which takes only the right to receive.

        Raises:
            NotFound: It does not; says what is missing.
            BackendError: It keeps the order and should not, or the other way round.
        """
        entity = entity_of(subscription)
        try:
            await self._connect(subscription, entity)
        except NotFound as error:
            raise NotFound(
                f"There is no {entity.title}; and create_subscriptions is off.", resource=subscription.name
            ) from error.__cause__

    async def create(self, subscription: Subscription) -> float | None:
        """Create a subscription, unless it exists.

        Returns:
            How many seconds its locks last; None if the service may not read that.

        Raises:
            NotFound: There is no such topic.
            AccessDenied: It is missing, and the service may not create it.
            BackendError: It exists with a setting that cannot be changed.
        """
        entity = entity_of(subscription)
        deliveries = min(subscription.retry.max_attempts + _EXTRA_DELIVERIES, _MOST_DELIVERIES)
        try:
            found = await self._find(entity)
            if found is None:
                if entity.topic:
                    await self._check_topic(entity.topic)
                found = await self._create(entity, subscription.ordered, deliveries)
        except (AccessDenied, Unavailable) as error:  # a service that may receive may lack the right to manage
            try:
                await self._connect(subscription, entity)
            except NotFound:
                message = f"The {entity.title} is missing and could not be created."
                raise type(error)(message, resource=subscription.name) from error.__cause__
            return None
        if bool(found.requires_session) != subscription.ordered:
            raise _other_order(entity)
        other_lock = self._configured_lock is not None and found.lock_duration != self._configured_lock
        if (found.max_delivery_count or 0) < deliveries or other_lock:
            found.max_delivery_count = max(found.max_delivery_count or 0, deliveries)
            found.lock_duration = self._configured_lock or found.lock_duration
            await self._update(entity, found)
        lock: object = found.lock_duration
        return lock.total_seconds() if isinstance(lock, timedelta) else None

    async def create_queue(self, name: str) -> None:
        """Create a queue, unless it exists.

        Raises:
            AccessDenied: It is missing, and the service may not create it.
        """
        entity = Entity("", name)
        try:
            await self._create(entity, False, _MOST_DELIVERIES)
        except AccessDenied as error:
            if await self.exists(entity):
                return
            raise AccessDenied(
                f"The {entity.title} is missing, and the service may not create it.", resource=name
            ) from error

    async def require_queue(self, name: str, *, create: bool) -> None:
        """Check that a queue exists; with `create`, create it if it is missing.

        Raises:
            NotFound: It is missing, and `create` is off.
            AccessDenied: It is missing, and the service may not create it.
        """
        entity = Entity("", name)
        if create:
            await self.create_queue(name)
        elif not await self.exists(entity):
            raise NotFound(f"There is no {entity.title}; and create_subscriptions is off.", resource=name)

    async def find(self, subscription: str) -> Entity | None:
        """Return the subscription with that name to any topic, pulled or pushed; None if there is none.

        A pushed one is found by the queue that keeps its dead letters.

        Raises:
            AccessDenied: The service may not look that up.
        """
        name = subscription_name(subscription)
        ending = f".{name}{DEAD}"

        def find(client: Any) -> str | None:  # names at Service Bus are case-insensitive
            for topic in client.list_topics():
                for found in client.list_subscriptions(topic.name):
                    if found.name.lower() == name.lower():
                        return str(topic.name)
            for queue in client.list_queues():
                pushed_to = str(queue.name)[: -len(ending)]
                if pushed_to and queue.name.lower() == Entity(pushed_to, name).queue(DEAD).name.lower():
                    return pushed_to
            return None

        topic = await self._clients.administer(find, "the subscription", subscription)
        return None if topic is None else subscription_to(topic, subscription)

    async def names(self) -> list[str]:
        """Return the subscriptions, as ``topic/subscription``, and the queues; AccessDenied without the right."""

        def names(client: Any) -> list[str]:
            topics = [str(topic.name) for topic in client.list_topics()]
            found = [f"{topic}/{one.name}" for topic in topics for one in client.list_subscriptions(topic)]
            for queue in (str(one.name) for one in client.list_queues()):
                topic = max((one for one in topics if queue.startswith(f"{one}.")), key=len, default="")
                if topic and queue.endswith(DEAD):
                    found.append(f"{topic}/{queue[len(topic) + 1 : -len(DEAD)]}")
                elif not queue.endswith((DEAD, REPLAY)):
                    found.append(queue)
            return list(dict.fromkeys(found))

        return await self._clients.administer(names, "the subscriptions of", "the namespace")

    async def existing(self, subscription: Subscription) -> Existing:
        """Return whether a pull subscription exists. Pushes cannot be looked up.

        Raises:
            AccessDenied: The service lacks the right to manage, which it need not have.
        """
        entity = entity_of(subscription)
        if not entity.topic:
            return Existing()
        if await self._find(entity) is None:
            return Existing()
        drain = f"az servicebus topic subscription delete --topic-name {entity.topic} --name {entity.name}"
        return Existing(pull=True, drain=drain)

    async def exists(self, entity: Entity) -> bool:
        """Return whether an entity exists, by connecting to it, which takes only the right to receive."""
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
            return await self._clients.administer(find, entity.kind, str(entity))
        except NotFound:
            return None

    async def _check_topic(self, topic: str) -> None:
        try:
            await self._clients.administer(lambda client: client.get_topic(topic), "the topic", topic)
        except NotFound as error:
            raise NotFound(f"There is no topic {topic!r}.", resource=topic) from error.__cause__

    async def _create(self, entity: Entity, ordered: bool, deliveries: int) -> Any:
        settings: dict[str, Any] = {
            "requires_session": ordered,
            "lock_duration": self._lock,
            "max_delivery_count": deliveries,
            "dead_lettering_on_message_expiration": True,
        }

        def create(client: Any) -> Any:
            try:
                if entity.topic:
                    return client.create_subscription(entity.topic, entity.name, **settings)
                return client.create_queue(entity.name, **settings)
            except ResourceExistsError:  # another process was faster
                return None

        made = await self._clients.administer(create, entity.kind, str(entity))
        return made if made is not None else await self._find(entity)

    async def _update(self, entity: Entity, wanted: Any) -> None:
        def update(client: Any) -> None:
            if entity.topic:
                client.update_subscription(entity.topic, wanted)
            else:
                client.update_queue(wanted)

        await self._clients.administer(update, entity.kind, str(entity))

    async def _connect(self, subscription: Subscription, entity: Entity) -> None:
        try:
            await self._probe(entity, NEXT_AVAILABLE_SESSION if subscription.ordered else None)
        except Unavailable as error:
            if not (subscription.ordered and is_no_session(error)):
                raise
        except BackendError as error:
            raise _other_order(entity) if _is_refusal(error) else error from error.__cause__

    async def _probe(self, entity: Entity, session: Any) -> None:
        options = {"session_id": session, "max_wait_time": _SESSION_WAIT if session else None}
        async with open_receiver(self._clients, entity, entity.kind, **options):
            pass


def receiver_of(clients: Clients, entity: Entity, **options: Any) -> ServiceBusReceiver:
    """Return a receiver of the SDK, not connected yet.

    Args:
        clients: The bus's clients.
        entity: What to receive from.
        options: Arguments of the SDK's `get_queue_receiver` and `get_subscription_receiver`.
    """
    options = {"socket_timeout": SOCKET_SECONDS, **options}
    if entity.topic:
        return clients.receiving.get_subscription_receiver(entity.topic, entity.name, **options)
    return clients.receiving.get_queue_receiver(entity.name, **options)


@asynccontextmanager
async def open_receiver(
    clients: Clients, entity: Entity, what: str, **options: Any
) -> AsyncIterator[ServiceBusReceiver]:
    """Connect a receiver, and close it at the end. What the SDK raises meanwhile is raised as a BackendError.

    Args:
        clients: The bus's clients.
        entity: What to receive from.
        what: What errors are about, for a person: "the subscription".
        options: Those of `receiver_of`.
    """
    receiver = receiver_of(clients, entity, **options)
    try:
        await private_api.connect(receiver)
        yield receiver
    except BackendError:
        raise
    except Exception as error:
        raise translate(error, what, str(entity)) from error
    finally:
        await receiver.close()


def _is_refusal(error: BackendError) -> bool:
    # Service Bus refuses a receiver without a session on an entity that requires one, and the other way round.
    return type(error) is BackendError


def _other_order(entity: Entity) -> BackendError:
    return BackendError(
        f"The {entity.title} was created with another setting of `ordered`, which cannot be changed.",
        resource=str(entity),
    )
