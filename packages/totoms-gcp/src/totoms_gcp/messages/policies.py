"""The settings of a subscription: what a service needs, and what one that exists lacks."""

from __future__ import annotations

import shlex
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import types

from totoms.errors import BackendError, ConfigurationError
from totoms.plugin import Subscription
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.naming import DEAD, companion

MIN_ATTEMPTS: Final = 5
MAX_ATTEMPTS: Final = 100
"""The delivery attempts that a dead-letter policy may allow."""
MIN_BACKOFF: Final = 10
MAX_DEADLINE: Final = 600
"""Seconds: the longest acknowledgement deadline and back-off, and how long Pub/Sub waits for the answer to a push
(https://cloud.google.com/pubsub/docs/lease-management)."""


def wanted(
    subscription: Subscription, path: str, topic: str, lease_seconds: int, settings: GCPConfiguration
) -> types.Subscription:
    """Return a subscription as a service needs it.

    Pub/Sub counts every answer to a push that is not 2xx, and every failed connection. So the limits of a push
    subscription are as wide as it allows: it retries for about sixteen hours
    (https://cloud.google.com/pubsub/docs/handling-failures).

    Args:
        subscription: What the service subscribes to.
        path: The path of the subscription.
        topic: That of the topic.
        lease_seconds: The acknowledgement deadline of a pulled one.
        settings: As whom Pub/Sub pushes.

    Raises:
        ConfigurationError: It is pushed, and no account to push as is configured.
    """
    pushed = subscription.delivery == "push"
    made = types.Subscription(
        name=path,
        topic=topic,
        ack_deadline_seconds=MAX_DEADLINE if pushed else lease_seconds,
        enable_message_ordering=subscription.ordered,
        expiration_policy=types.ExpirationPolicy(),  # never; by default it is deleted after 31 idle days
    )
    if has_dead_letters(subscription):
        # A few attempts more than the service's: it dead-letters itself, and keeps the reason. These are for messages
        # whose consumers die.
        attempts = min(subscription.retry.max_attempts + MIN_ATTEMPTS, MAX_ATTEMPTS)
        made.dead_letter_policy = types.DeadLetterPolicy(
            dead_letter_topic=companion(path, DEAD).topic, max_delivery_attempts=MAX_ATTEMPTS if pushed else attempts
        )
    if pushed:
        made.push_config = _push_config(subscription, settings)
        made.retry_policy = types.RetryPolicy(
            minimum_backoff=Duration(seconds=MIN_BACKOFF), maximum_backoff=Duration(seconds=MAX_DEADLINE)
        )
    return made


def has_dead_letters(subscription: Subscription) -> bool:
    """Return whether a subscription must have a dead-letter topic."""
    return subscription.delivery == "pull" or subscription.dead_letters


def check_fixed(found: types.Subscription, needed: types.Subscription) -> None:
    """Check what cannot be changed of a subscription.

    Raises:
        BackendError: It belongs to another topic, or has another setting for ordering.
    """
    if found.topic != needed.topic:
        problem = f"is attached to the topic {found.topic!r}, not {needed.topic!r}"
    elif found.enable_message_ordering != needed.enable_message_ordering:
        problem = "was created with another setting of `ordered`, which cannot be changed"
    else:
        return
    raise BackendError(f"The subscription {needed.name!r} {problem}.", resource=needed.name)


def changes(found: types.Subscription, needed: types.Subscription, *, deadline: bool) -> list[str]:
    """Return the fields of a subscription that must be changed.

    Args:
        found: As it is.
        needed: As the service needs it.
        deadline: Whether the acknowledgement deadline was configured.
    """
    changed = []
    if _pushes_differ(found, needed):
        changed.append("push_config")
    if found.dead_letter_policy.max_delivery_attempts < needed.dead_letter_policy.max_delivery_attempts:
        changed.append("dead_letter_policy")
    if deadline and found.ack_deadline_seconds != needed.ack_deadline_seconds:
        changed.append("ack_deadline_seconds")
    if needed.push_config.push_endpoint and _is_impatient(found):
        changed.append("retry_policy")
    return changed


def missing(found: types.Subscription, needed: types.Subscription, attempts: int) -> list[str]:
    """Return, in words, what a subscription lacks without which the service would not get its messages.

    Args:
        found: As it is.
        needed: As the service needs it.
        attempts: How many the service makes.
    """
    of = f"of the subscription {found.name!r}"
    gaps = []
    dead_letters = bool(needed.dead_letter_policy.dead_letter_topic)
    attempts = min(attempts, MAX_ATTEMPTS)
    if dead_letters and not found.dead_letter_policy.dead_letter_topic:
        gaps.append(f"dead-letter policy {of}")
    elif dead_letters and found.dead_letter_policy.max_delivery_attempts < attempts:
        gaps.append(f"dead-letter policy {of} that allows {attempts} attempts")
    if needed.enable_message_ordering and not found.enable_message_ordering:
        gaps.append(f"message ordering {of}")
    if _pushes_differ(found, needed):
        push = needed.push_config
        gaps.append(
            f"push {of} to {push.push_endpoint!r}, as {push.oidc_token.service_account_email!r}, with the audience "
            f"{push.oidc_token.audience!r}"
            if push.push_endpoint
            else f"pull {of}, which pushes to {found.push_config.push_endpoint!r}"
        )
    return gaps


def push_gaps(found: types.Subscription) -> str:
    """Return what a push subscription lacks so that an outage of an hour costs no message; see `_push_lacks`."""
    gaps, options = [], []
    policy = found.dead_letter_policy
    if not policy.dead_letter_topic:
        gaps.append("has no dead-letter topic, so that messages are dropped when they are older than its retention")
        options += ["--dead-letter-topic", "TOPIC", "--max-delivery-attempts", str(MAX_ATTEMPTS)]
    elif policy.max_delivery_attempts < MAX_ATTEMPTS:
        gaps.append(f"dead-letters messages after {policy.max_delivery_attempts} deliveries, handled or not")
        options += ["--max-delivery-attempts", str(MAX_ATTEMPTS)]
    if policy.dead_letter_topic and _is_impatient(found):
        gaps.append("pauses too briefly between deliveries")
        options += ["--min-retry-delay", f"{MIN_BACKOFF}s", "--max-retry-delay", f"{MAX_DEADLINE}s"]
    if not gaps:
        return ""
    return f"{' and '.join(gaps)}: {shlex.join(['gcloud', 'pubsub', 'subscriptions', 'update', found.name, *options])}"


def _push_config(subscription: Subscription, settings: GCPConfiguration) -> types.PushConfig:
    account, url = settings.push_service_account, subscription.push_url or ""
    if not account:
        raise ConfigurationError(
            "Set GCP_PUSH_SERVICE_ACCOUNT to the email of the service account that Pub/Sub pushes as: without it no "
            "push can be verified."
        )
    token = types.PushConfig.OidcToken(service_account_email=account, audience=settings.push_audience or url)
    return types.PushConfig(push_endpoint=url, oidc_token=token)


def _pushes_differ(found: types.Subscription, needed: types.Subscription) -> bool:
    """Return whether a subscription pushes to another address, or with another service account."""
    old, new = found.push_config, needed.push_config
    return (old.push_endpoint, old.oidc_token) != (new.push_endpoint, new.oidc_token)


def _is_impatient(found: types.Subscription) -> bool:
    return bool(found.retry_policy.maximum_backoff.seconds < MAX_DEADLINE)
