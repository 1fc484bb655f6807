"""What a service needs at Pub/Sub: its subscription, its policies, and where its dead letters are kept."""

from __future__ import annotations

from typing import Any, Final

from google.api_core import exceptions as api
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

from totoms.envelope import RetryPolicy, Subscription
from totoms.errors import AccessDenied, BackendError, ConfigurationError, NotFound
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.pubsub_clients import RETRY, RPC_SECONDS, Clients
from totoms_gcp.pubsub_names import DEAD, REPLAY, beside, subscription_path, topic_path

_KEPT: Final = (31 * 86_400, 7 * 86_400)
"""Seconds that dead letters are kept: the longest there is (an emulator may know the former limit only)."""
_LONGEST: Final = 600
"""Seconds: the longest back-off, and the longest that Pub/Sub waits for the answer to a push."""
_ATTEMPTS: Final = (5, 100)
"""What a dead-letter policy may say (https://cloud.google.com/pubsub/docs/handling-failures)."""
_HOW: Final[dict[str, Any]] = {"retry": RETRY, "timeout": RPC_SECONDS}


class Topology:
    """Looks for subscriptions and makes them.

    Args:
        clients: Of the bus.
        settings: The project, and as whom Pub/Sub pushes.
        lease_seconds: The acknowledgement deadline of subscriptions that are made here.
    """

    def __init__(self, clients: Clients, settings: GCPConfiguration, lease_seconds: int) -> None:
        self._clients = clients
        self._settings = settings
        self._lease_seconds = lease_seconds

    async def check(self, subscription: Subscription) -> types.Subscription:
        """Return the subscription as it is.

        Raises:
            NotFound: Something is missing; says exactly what, all of it.
        """
        path, topic = self.paths(subscription)
        found = await self.find(path)
        missing = []
        if found is None or found.topic != topic:
            missing.append(f"subscription {path!r} to the topic {topic!r}")
        else:
            wanted = self._wanted(subscription, path, topic)
            missing += _lacking(found, wanted, min(subscription.retry.max_attempts, _ATTEMPTS[1]))
        dead_topic, dead = beside(path, DEAD)
        if await self.find(dead) is None:
            if found is not None and found.dead_letter_policy.dead_letter_topic:
                dead_topic = found.dead_letter_policy.dead_letter_topic
            missing.append(f"subscription {dead!r} to the dead-letter topic {dead_topic!r}")
        if found is None or missing:
            raise NotFound(
                f"There is no {', and no '.join(missing)}; and create_subscriptions is off.", resource=subscription.name
            )
        return found

    async def make(self, subscription: Subscription) -> types.Subscription:
        """Return the subscription, made where it is missing, with its policies.

        Raises:
            NotFound: There is no such topic.
            BackendError: It exists and cannot be made what it must be.
        """
        path, topic = self.paths(subscription)
        wanted = self._wanted(subscription, path, topic)
        found = await self.find(path)
        if found is None:
            await self._check_topic(topic)
        dead_topic, dead = beside(path, DEAD)
        if found is not None and found.dead_letter_policy.dead_letter_topic:
            dead_topic = found.dead_letter_policy.dead_letter_topic
            wanted.dead_letter_policy.dead_letter_topic = dead_topic
        if await self.find(dead) is None:
            await self.make_topic(dead_topic)
            await self._make_dead(dead, dead_topic)
        if found is None:
            found = await self.make_subscription(wanted)
        return await self._adjust(found, wanted)

    async def make_replay(self, path: str) -> str:
        """Make what dead letters are replayed by: a second subscription of the same kind, to a topic of its own.

        Returns:
            The topic.
        """
        topic, replay = beside(path, REPLAY)
        if await self.find(replay) is None:
            like = await self.find(path)
            if like is None:
                raise NotFound(f"There is no subscription {path!r}.", resource=path)
            await self.make_topic(topic)
            await self.make_subscription(
                types.Subscription(
                    name=replay, topic=topic, push_config=like.push_config, retry_policy=like.retry_policy,
                    ack_deadline_seconds=like.ack_deadline_seconds, dead_letter_policy=like.dead_letter_policy,
                    enable_message_ordering=like.enable_message_ordering,
                    enable_exactly_once_delivery=like.enable_exactly_once_delivery,
                    expiration_policy=types.ExpirationPolicy(),
                )
            )  # fmt: skip
        return topic

    async def find(self, path: str) -> types.Subscription | None:
        """Return a subscription, or None."""
        try:
            found: types.Subscription = await self._subscriber("get_subscription", path, subscription=path)
        except NotFound:
            return None
        return found

    async def make_topic(self, path: str) -> None:
        """Make a topic, unless it exists."""
        try:
            await self._clients.administer_topics(
                lambda client: _unless_there(client.create_topic, name=path, **_HOW), "the topic", path
            )
        except AccessDenied as error:
            raise AccessDenied(f"The topic {path!r} is missing, and may not be made.", resource=path) from error

    async def make_subscription(self, wanted: types.Subscription) -> types.Subscription:
        """Make a subscription, or return the one that another process has just made."""
        try:
            made: types.Subscription | None = await self._clients.administer(
                lambda client: _unless_there(client.create_subscription, wanted, **_HOW), "the subscription",
                wanted.name,
            )  # fmt: skip
        except AccessDenied as error:
            told = f"The subscription {wanted.name!r} is missing, and may not be made."
            raise AccessDenied(told, resource=wanted.name) from error
        if made is None:  # another process was quicker
            made = await self.find(wanted.name)
        if made is None:
            raise NotFound(f"The subscription {wanted.name!r} was deleted meanwhile.", resource=wanted.name)
        return made

    def paths(self, subscription: Subscription) -> tuple[str, str]:
        """Return the path of a subscription and that of its topic."""
        project = self._settings.project_id
        return subscription_path(project, subscription.name), topic_path(project, subscription.topic)

    def _wanted(self, subscription: Subscription, path: str, topic: str) -> types.Subscription:
        least, most = _ATTEMPTS
        # A few more than ours: the core gives up itself, and tells why. This is for messages whose consumers die.
        attempts = min(max(subscription.retry.max_attempts + least, least), most)
        wanted = types.Subscription(
            name=path,
            topic=topic,
            ack_deadline_seconds=self._lease_seconds,
            enable_message_ordering=subscription.ordered,
            expiration_policy=types.ExpirationPolicy(),  # never; by default it is deleted after 31 idle days
            dead_letter_policy=types.DeadLetterPolicy(
                dead_letter_topic=beside(path, DEAD)[0], max_delivery_attempts=attempts
            ),
        )
        if subscription.delivery == "push":
            wanted.ack_deadline_seconds = _LONGEST
            wanted.push_config = self._push_config(subscription)
            wanted.retry_policy = _retry_policy(subscription.retry)
        return wanted

    def _push_config(self, subscription: Subscription) -> types.PushConfig:
        account = self._settings.push_service_account
        if not account:
            raise ConfigurationError(
                "Set GCP_PUSH_SERVICE_ACCOUNT to the email of the service account as which Pub/Sub shall push: without "
                "it no push can be verified."
            )
        url = subscription.push_url or ""
        token = types.PushConfig.OidcToken(service_account_email=account, audience=self._settings.push_audience or url)
        return types.PushConfig(push_endpoint=url, oidc_token=token)

    async def _adjust(self, found: types.Subscription, wanted: types.Subscription) -> types.Subscription:
        for name, problem in (
            ("topic", f"is one to the topic {found.topic!r}, not {wanted.topic!r}"),
            ("enable_message_ordering", "was made with another setting of `ordered`, which cannot be changed"),
        ):
            if getattr(found, name) != getattr(wanted, name):
                raise BackendError(f"The subscription {wanted.name!r} {problem}.", resource=wanted.name)
        changed = []
        if found.push_config != wanted.push_config and _differs(found.push_config, wanted.push_config):
            changed.append("push_config")
        if found.dead_letter_policy.max_delivery_attempts < wanted.dead_letter_policy.max_delivery_attempts:
            changed.append("dead_letter_policy")
        if not changed:
            return found
        request = types.UpdateSubscriptionRequest(subscription=wanted, update_mask=FieldMask(paths=changed))
        updated: types.Subscription = await self._subscriber("update_subscription", wanted.name, request=request)
        return updated

    async def _check_topic(self, topic: str) -> None:
        try:
            await self._clients.administer_topics(
                lambda client: client.get_topic(topic=topic, **_HOW), "the topic", topic
            )
        except NotFound as error:
            raise NotFound(f"There is no topic {topic!r}.", resource=topic) from error
        except AccessDenied:  # whoever may attach a subscription need not be allowed to look at the topic
            return

    async def _make_dead(self, path: str, topic: str) -> None:
        for seconds in _KEPT:
            wanted = types.Subscription(
                name=path, topic=topic, ack_deadline_seconds=10, expiration_policy=types.ExpirationPolicy(),
                message_retention_duration=Duration(seconds=seconds),
            )  # fmt: skip
            try:
                await self.make_subscription(wanted)
            except BackendError as error:
                if seconds == _KEPT[-1] or not isinstance(error.__cause__, api.InvalidArgument):
                    raise
            else:
                return

    async def _subscriber(self, method: str, resource: str, **arguments: Any) -> Any:
        return await self._clients.administer(
            lambda client: getattr(client, method)(**arguments, **_HOW), "the subscription", resource
        )


def _unless_there(make: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return make(*arguments, **named)
    except api.AlreadyExists:
        return None


def _lacking(found: types.Subscription, wanted: types.Subscription, attempts: int) -> list[str]:
    """Return what a subscription does not have, and without which the service would not get its messages."""
    of = f"of the subscription {found.name!r}"
    lacking = []
    if not found.dead_letter_policy.dead_letter_topic:
        lacking.append(f"dead-letter policy {of}")
    elif found.dead_letter_policy.max_delivery_attempts < attempts:
        lacking.append(f"dead-letter policy {of} that allows {attempts} attempts")
    if wanted.enable_message_ordering and not found.enable_message_ordering:
        lacking.append(f"message ordering {of}")
    if _differs(found.push_config, wanted.push_config):
        push = wanted.push_config
        lacking.append(
            f"push {of} to {push.push_endpoint!r}, as {push.oidc_token.service_account_email!r}, with the audience "
            f"{push.oidc_token.audience!r}"
            if push.push_endpoint
            else f"pull {of}, which pushes to {found.push_config.push_endpoint!r}"
        )
    return lacking


def _differs(found: types.PushConfig, wanted: types.PushConfig) -> bool:
    return (found.push_endpoint, found.oidc_token) != (wanted.push_endpoint, wanted.oidc_token)


def _retry_policy(retry: RetryPolicy) -> types.RetryPolicy:
    least, most = min(retry.min_backoff, _LONGEST), min(max(retry.max_backoff, retry.min_backoff), _LONGEST)
    return types.RetryPolicy(minimum_backoff=_duration(least), maximum_backoff=_duration(most))


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
