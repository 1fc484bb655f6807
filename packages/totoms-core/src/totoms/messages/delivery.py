"""Choose between pull and push when the declaration does not set `delivery`.

A wrong choice would go unnoticed: messages that never arrive, or that are handled twice. So the choice depends on the
subscriptions that exist at the broker, and the service does not start if they are ambiguous.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from urllib.parse import urlsplit

from totoms.errors import AccessDenied, BackendError, ConfigurationError
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.driver import PULL
from totoms.messages.push_request import EVENTS_PATH
from totoms.messages.subscription import Backlog, DeliveryMode, Existing, Subscription

_SET_DELIVERY = 'Set MessageBusConfig(delivery="pull") or delivery="push"'


async def choose_delivery(
    bus: MessageBus, subscription: Subscription, *, events_path: str, base_url: str
) -> tuple[DeliveryMode, Existing | None]:
    """Return how the messages of `subscription` are delivered, and what exists at the broker.

    The first that applies: pull, if the service's pull subscription exists; push, if `base_url` is known; push, if
    a push subscription to this service exists; pull. Always pull if the backend does not create push subscriptions.

    Args:
        bus: The backend.
        subscription: The subscription; its `delivery` is ignored.
        events_path: The path of the push endpoint, ``{base_path}/events``.
        base_url: The value of ``SERVICE_BASE_URL``; empty if it is not set.

    Raises:
        ConfigurationError: The service may not read subscriptions, both kinds of subscription exist, or several push
            subscriptions may be the service's. The message says what to set.
    """
    topic = subscription.logical_name
    if PULL not in bus.capabilities:
        return "push", None
    if not bus.creates_push:
        return "pull", None
    try:
        existing = await bus._existing(subscription)
    except AccessDenied as error:
        raise ConfigurationError(
            f"Cannot find out whether messages of {topic!r} are pushed or pulled: {error.message} "
            f"Grant the right, or choose: {_SET_DELIVERY}.",
            resource=error.resource,
        ) from error
    if existing is None:
        return "pull", None
    ours = pushed_to_us(existing.push, events_path, base_url)
    if existing.pull and ours:
        raise ConfigurationError(
            f"Both the pull subscription {subscription.name!r} and a push to {', '.join(ours)} bring the messages of "
            f"{topic!r}: each would be handled twice. Delete one of them, or choose: {_SET_DELIVERY}.",
            resource=topic,
        )
    if existing.pull:
        return "pull", existing
    if base_url:
        return "push", existing
    if not ours:
        return "pull", existing
    if len(ours) > 1 or events_path == EVENTS_PATH:  # services without a base path share it
        raise ConfigurationError(
            f"Messages of {topic!r} are pushed to {', '.join(ours)}, and it is not clear which of these is this "
            f"service. {_SET_DELIVERY}, or set SERVICE_BASE_URL.",
            resource=topic,
        )
    return "push", existing


def pushed_to_us(urls: Sequence[str], events_path: str, base_url: str) -> list[str]:
    """Return those of `urls` that may be this service's push endpoint.

    Args:
        urls: Addresses that a topic is pushed to.
        events_path: The path of the push endpoint, which the path of an address must equal.
        base_url: The service's public address; "" if it is unknown, to compare paths only.
    """
    base = urlsplit(base_url)
    paths = {events_path, base.path.rstrip("/") + events_path}
    return [
        url
        for url in urls
        if (parts := urlsplit(url)).path in paths
        and (not base.hostname or (parts.hostname, parts.port) == (base.hostname, base.port))
    ]


async def find_existing(bus: MessageBus, subscription: Subscription) -> Existing | None:
    """Return what exists at the broker; None if the service may not read it, which does not stop messages."""
    try:
        return await bus._existing(subscription)
    except BackendError:
        return None


async def find_backlog(bus: MessageBus, subscription: Subscription) -> Backlog | None:
    """Return the backlog of a pull subscription; None if the broker does not say, or the service may not read it."""
    try:
        return await bus._backlog(dataclasses.replace(subscription, delivery="pull"))
    except BackendError:
        return None


def warn_of_long_handlers(
    bus: MessageBus, subscription: Subscription, handler_timeout: float, logger: TotoLogger
) -> None:
    """Log a warning if handlers may take longer than the broker waits for the answer to a push.

    Args:
        bus: The backend.
        subscription: A push subscription.
        handler_timeout: Seconds that a handler may take.
        logger: The service's logger.
    """
    if handler_timeout > bus.push_patience:
        logger.log(
            "init",
            f"Messages of {subscription.logical_name!r} are pushed, and the broker waits {bus.push_patience:g} s for "
            f"an answer; handler_timeout is {handler_timeout:g} s. A message whose handler takes longer is sent again: "
            "set a shorter handler_timeout, or pull.",
            "WARNING",
        )


def require_capabilities(bus: MessageBus, wanted: set[str]) -> None:
    """Raise ConfigurationError if the backend lacks one of the capabilities."""
    missing = sorted(wanted - bus.capabilities)
    if missing:
        raise ConfigurationError(f"The {bus.environment.hyperscaler} message bus has no {' and no '.join(missing)}.")
