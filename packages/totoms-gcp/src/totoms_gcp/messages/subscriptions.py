"""Finding and creating subscriptions, and the topics and subscriptions for their dead letters and replays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from google.api_core import exceptions as api
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

from totoms.errors import AccessDenied, BackendError, NotFound
from totoms.plugin import Existing, Subscription
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages import policies
from totoms_gcp.messages.clients import RETRY, RPC_SECONDS, Clients
from totoms_gcp.messages.naming import DEAD, REPLAY, companion, subscription_path, topic_path

_RETENTIONS: Final = (31 * 86_400, 7 * 86_400)
"""Seconds that dead letters are kept: the longest there is. Emulators may know the former limit only."""
_OPTIONS: Final[dict[str, Any]] = {"retry": RETRY, "timeout": RPC_SECONDS}


class Subscriptions:
    """Finds, checks and creates subscriptions.

    Args:
        clients: Of the bus.
        settings: The project, and as whom Pub/Sub pushes.
        lease_seconds: The acknowledgement deadline of subscriptions that are created here.
    """

    def __init__(self, clients: Clients, settings: GCPConfiguration, lease_seconds: int) -> None:
        self._clients = clients
        self._settings = settings
        self._lease_seconds = lease_seconds
        self._lease_configured = False
        self._dead_letter_topics: dict[str, str] = {}

    def use_lease(self, seconds: int) -> None:
        """Use acknowledgement deadlines of `seconds`, also on existing subscriptions."""
        self._lease_seconds, self._lease_configured = seconds, True

    def path(self, name: str) -> str:
        """Return the path of a subscription."""
        return subscription_path(self._settings.project_id, name)

    def topic(self, subscription: Subscription) -> str:
        """Return the path of the topic of a subscription."""
        return topic_path(self._settings.project_id, subscription.topic)

    def dead_letter_topic(self, path: str) -> str:
        """Return the dead-letter topic of a subscription: the one found in its policy, else the one made here."""
        return self._dead_letter_topics.get(path) or companion(path, DEAD).topic

    async def check(self, subscription: Subscription) -> types.Subscription:
        """Return the subscription as it is.

        Raises:
            NotFound: Something is missing; the message names all of it.
        """
        path, topic = self.path(subscription.name), self.topic(subscription)
        found = await self.find(path)
        missing = []
        if found is None or found.topic != topic:
            missing.append(f"subscription {path!r} to the topic {topic!r}")
        else:
            missing += policies.missing(found, self._wanted(subscription), subscription.retry.max_attempts)
        dead = companion(path, DEAD).subscription
        if policies.has_dead_letters(subscription) and await self.find(dead) is None:
            missing.append(f"subscription {dead!r} to the dead-letter topic {self.dead_letter_topic(path)!r}")
        if found is None or missing:
            raise NotFound(
                f"There is no {', and no '.join(missing)}; and create_subscriptions is off.", resource=subscription.name
            )
        return found

    async def create(self, subscription: Subscription) -> types.Subscription:
        """Return the subscription; create it, or change its policies, if needed.

        Raises:
            NotFound: There is no such topic.
            BackendError: It exists, and cannot be changed into what it must be.
        """
        wanted = self._wanted(subscription)
        found = await self.find(wanted.name)
        if found is None:
            await self._check_topic(wanted.topic)
        if policies.has_dead_letters(subscription):
            topic = wanted.dead_letter_policy.dead_letter_topic = self.dead_letter_topic(wanted.name)
            dead = companion(wanted.name, DEAD).subscription
            if await self.find(dead) is None:
                await self.create_topic(topic)
                await self._create_dead(dead, topic)
        if found is None:
            found = await self._create(wanted)
        policies.check_fixed(found, wanted)
        changed = policies.changes(found, wanted, deadline=self._lease_configured)
        if changed:
            request = types.UpdateSubscriptionRequest(subscription=wanted, update_mask=FieldMask(paths=changed))
            found = await self._administer("update_subscription", wanted.name, request=request)
        return found

    async def with_dead_letters(self) -> list[str]:
        """Return the names of the project's subscriptions that have a subscription for their dead letters.

        Raises:
            AccessDenied: Without the right ``pubsub.subscriptions.list``.
        """
        project = f"projects/{self._settings.project_id}"

        def names(client: Any) -> list[str]:
            found = client.list_subscriptions(project=project, **_OPTIONS)
            return [one.name.rpartition("/")[2] for one in found]

        listed = await self._clients.administer(names, "the subscriptions of", project)
        return [name.removesuffix(DEAD) for name in listed if name.endswith(DEAD)]

    async def create_replay(self, path: str) -> str:
        """Create a topic for replayed dead letters, with a subscription of the same kind.

        Returns:
            The topic.
        """
        replay = companion(path, REPLAY)
        if await self.find(replay.subscription) is None:
            model = await self.find(path)
            if model is None:
                raise NotFound(f"There is no subscription {path!r}.", resource=path)
            await self.create_topic(replay.topic)
            await self._create(
                types.Subscription(
                    name=replay.subscription,
                    topic=replay.topic,
                    push_config=model.push_config,
                    retry_policy=model.retry_policy,
                    ack_deadline_seconds=model.ack_deadline_seconds,
                    dead_letter_policy=model.dead_letter_policy,
                    enable_message_ordering=model.enable_message_ordering,
                    enable_exactly_once_delivery=model.enable_exactly_once_delivery,
                    expiration_policy=types.ExpirationPolicy(),
                )
            )
        return replay.topic

    async def existing(self, subscription: Subscription) -> Existing:
        """Return what exists for a subscription, and change nothing.

        Raises:
            AccessDenied: ``pubsub.topics.get`` or ``pubsub.subscriptions.get`` is missing
                (https://cloud.google.com/pubsub/docs/access-control).
            NotFound: There is no such topic.
        """
        path, pull = self.path(subscription.name), False
        drain = f"gcloud pubsub subscriptions delete {path}"
        try:
            own = await self.find(path)
            pull = own is not None and not own.push_config.push_endpoint
            others = await self._of_topic(self.topic(subscription))
        except AccessDenied as error:
            if pull:  # that decides, whatever others there are
                return Existing(pull=True, drain=drain)
            raise AccessDenied(
                f"{error.message} It needs pubsub.topics.get and pubsub.subscriptions.get, which are in the role "
                "roles/pubsub.viewer.",
                resource=error.resource,
            ) from error
        pushing = [one for one in others if one.push_config.push_endpoint]
        return Existing(
            pull=pull,
            push=tuple(one.push_config.push_endpoint for one in pushing),
            drain=drain if pull else "",
            dead_letters=tuple(f"the topic {self.dead_letter_topic(one.name)!r}" for one in pushing),
        )

    async def push_gaps(self, subscription: Subscription, address: str) -> str:
        """Return what the push subscription to an address lacks so that an outage of an hour costs no message."""
        found = await self._of_topic(self.topic(subscription))
        pushing = next((one for one in found if one.push_config.push_endpoint == address), None)
        return policies.push_gaps(pushing) if pushing is not None else ""

    async def find(self, path: str) -> types.Subscription | None:
        """Return a subscription, or None."""
        try:
            found: types.Subscription = await self._administer("get_subscription", path, subscription=path)
        except NotFound:
            return None
        self._dead_letter_topics[path] = found.dead_letter_policy.dead_letter_topic
        return found

    async def create_topic(self, path: str) -> None:
        """Create a topic, unless it exists."""
        try:
            await self._clients.administer_topics(
                lambda client: _unless_exists(client.create_topic, name=path, **_OPTIONS), path
            )
        except AccessDenied as error:
            raise AccessDenied(
                f"The topic {path!r} is missing, and the service may not create it.", resource=path
            ) from error

    async def _of_topic(self, topic: str) -> list[types.Subscription]:
        paths = await self._clients.administer_topics(
            lambda client: list(client.list_topic_subscriptions(topic=topic, **_OPTIONS)), topic
        )
        found = await asyncio.gather(*(self.find(one) for one in paths))
        return [one for one in found if one is not None]

    async def _create(self, wanted: types.Subscription) -> types.Subscription:
        """Create a subscription, or return the one that another process has just created."""

        def create(client: Any) -> Any:
            return _unless_exists(client.create_subscription, wanted, **_OPTIONS)

        try:
            made: types.Subscription | None = await self._clients.administer(create, "the subscription", wanted.name)
        except AccessDenied as error:
            message = f"The subscription {wanted.name!r} is missing, and the service may not create it."
            raise AccessDenied(message, resource=wanted.name) from error
        if made is None:  # another process was faster
            made = await self.find(wanted.name)
        if made is None:
            raise NotFound(f"The subscription {wanted.name!r} was deleted meanwhile.", resource=wanted.name)
        return made

    async def _create_dead(self, path: str, topic: str) -> None:
        for seconds in _RETENTIONS:
            wanted = types.Subscription(
                name=path,
                topic=topic,
                ack_deadline_seconds=10,
                expiration_policy=types.ExpirationPolicy(),
                message_retention_duration=Duration(seconds=seconds),
            )
            try:
                await self._create(wanted)
            except BackendError as error:
                if seconds == _RETENTIONS[-1] or not isinstance(error.__cause__, api.InvalidArgument):
                    raise
            else:
                return

    async def _check_topic(self, topic: str) -> None:
        try:
            await self._clients.administer_topics(lambda client: client.get_topic(topic=topic, **_OPTIONS), topic)
        except NotFound as error:
            raise NotFound(f"There is no topic {topic!r}.", resource=topic) from error
        except AccessDenied:  # the right to attach a subscription does not need the right to see the topic
            return

    def _wanted(self, subscription: Subscription) -> types.Subscription:
        path, topic = self.path(subscription.name), self.topic(subscription)
        return policies.wanted(subscription, path, topic, self._lease_seconds, self._settings)

    async def _administer(self, method: str, path: str, **arguments: Any) -> Any:
        def call(client: Any) -> Any:
            return getattr(client, method)(**arguments, **_OPTIONS)

        return await self._clients.administer(call, "the subscription", path)


def _unless_exists(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return make(*arguments, **options)
    except api.AlreadyExists:
        return None
