"""Subscribe a service to its topics, and log what exists at the broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from totoms.errors import AccessDenied, BackendError, Unsupported
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.delivery import (
    choose_delivery,
    find_backlog,
    find_existing,
    require_capabilities,
    warn_of_long_handlers,
)
from totoms.messages.driver import PULL, PUSH
from totoms.messages.push_request import EVENTS_PATH
from totoms.messages.receiver import Receiver
from totoms.messages.subscription import DeliveryMode, Existing, Subscription
from totoms.messages.unconfirmed import UnconfirmedPushes

BASE_URL_VARIABLE: Final = "SERVICE_BASE_URL"
"""The public address of the service, with or without the base path; a push subscription needs it."""
_WITHOUT_STORE: Final = (
    "A push subscription needs a dead-letter store; if the service may not create one, "
    "MessageBusConfig(dead_letters=False) starts without it."
)


class Subscriber:
    """Creates the subscriptions of one service.

    Args:
        bus: The backend.
        unconfirmed: Gets the push subscriptions.
        delivery: As declared; None to choose by the subscriptions that exist.
        create: Whether missing subscriptions are created.
        handler_timeout: Seconds that a handler may take.
        logger: The service's logger.
    """

    def __init__(
        self,
        bus: MessageBus,
        unconfirmed: UnconfirmedPushes,
        *,
        delivery: DeliveryMode | None,
        create: bool,
        handler_timeout: float,
        logger: TotoLogger,
    ) -> None:
        self._bus = bus
        self._unconfirmed = unconfirmed
        self._declared = delivery
        self._create = create
        self._handler_timeout = handler_timeout
        self._logger = logger

    async def subscribe(self, subscription: Subscription) -> tuple[Subscription, Receiver | None]:
        """Subscribe; return the subscription, with the delivery that was chosen, and its receiver.

        That of a push subscription receives the messages the broker could not push; there may be none.

        Raises:
            ConfigurationError: The choice between push and pull is ambiguous, or the backend does not support it.
            BackendError: The subscription does not exist and cannot be created; the error says why.
        """
        existing = None
        if self._declared is None:
            delivery, existing = await choose_delivery(
                self._bus, subscription, events_path=self._unconfirmed.events_path, base_url=self._unconfirmed.base_url
            )
            subscription = dataclasses.replace(subscription, delivery=delivery)
        pushed = subscription.delivery == "push"
        require_capabilities(self._bus, {PUSH if pushed else PULL})
        if not pushed:
            return subscription, await self._pull(subscription)
        receiver = await self._push(subscription, existing)
        warn_of_long_handlers(self._bus, subscription, self._handler_timeout, self._logger)
        return subscription, receiver

    async def subscribe_again(self, subscription: Subscription) -> Receiver:
        """Return a new receiver of a pull subscription that has vanished, once it exists again.

        Raises:
            BackendError: It does not exist and cannot be created; the error says why.
        """
        receiver = await self._bus._subscribe(subscription, create=self._create)
        self._logger.log(
            "events",
            f"The subscription {subscription.name} had vanished and exists again. What was published to "
            f"{subscription.topic} in between is lost, and so is what it still had.",
            "WARNING",
        )
        return receiver

    async def _pull(self, subscription: Subscription) -> Receiver:
        receiver = await self._bus._subscribe(subscription, create=self._create)
        self._logger.log("init", f"Subscribed {subscription.name} to {subscription.topic} (pull).")
        if self._declared:
            existing = await find_existing(self._bus, subscription)
            ours = self._unconfirmed.pushed_here(existing)
            if ours and (self._unconfirmed.base_url or self._unconfirmed.events_path != EVENTS_PATH):
                self._logger.log(
                    "init",
                    f"Messages of {subscription.logical_name!r} are pushed to {', '.join(ours)} as well, so each is "
                    "handled twice. Delete that push subscription.",
                    "ERROR",
                )
        return receiver

    async def _push(self, subscription: Subscription, existing: Existing | None) -> Receiver | None:
        topic = subscription.logical_name
        by_hand = self._unconfirmed.pushed_here(existing)
        if subscription.push_url:
            try:
                await self._bus._subscribe_push(subscription, create=self._create)
            except (AccessDenied, Unsupported) as error:
                if not by_hand:
                    existing = await find_existing(self._bus, subscription)
                    by_hand = self._unconfirmed.pushed_here(existing)
                if not by_hand:
                    if isinstance(error, AccessDenied) and subscription.dead_letters:
                        raise AccessDenied(f"{error.message} {_WITHOUT_STORE}", resource=error.resource) from error
                    raise
                self._logger.log(
                    "init",
                    f"Using the existing push subscription of {topic!r} to {by_hand[0]}, which the service cannot "
                    f"create or change: {error.message}{_dead_letters_of(existing, by_hand[0])}",
                    "WARNING",
                )
        elif by_hand:
            kept = _dead_letters_of(existing, by_hand[0])
            self._logger.log(
                "init",
                f"Messages of {topic!r} are pushed to {by_hand[0]} by an existing subscription.{kept}",
                "WARNING" if kept else "INFO",
            )
        else:
            self._logger.log(
                "init",
                f"Not subscribed to {topic!r}: {BASE_URL_VARIABLE} is not set, so the public address of "
                f"{self._unconfirmed.events_path} is unknown. Set it, or create the push subscription yourself.",
                "WARNING",
            )
        existing = await find_existing(self._bus, subscription)
        for address in self._unconfirmed.pushed_here(existing):
            await self._warn_of_limits(subscription, address)
        if existing and existing.pull and existing.drain:
            self._logger.log(
                "init",
                f"The pull subscription {subscription.name!r} of {topic!r} still exists"
                f"{await self._waiting(subscription)}, and "
                'nothing receives from it. Run the service with delivery="pull" until it is empty, then delete it: '
                f"{existing.drain}",
                "ERROR",
            )
        self._unconfirmed.add(subscription, existing)
        return await self._undelivered(subscription)

    async def _warn_of_limits(self, subscription: Subscription, address: str) -> None:
        try:
            lacking = await self._bus._push_lacks(subscription, address)
        except BackendError:  # the service may not read subscriptions
            return
        if lacking:
            name = f"The push subscription of {subscription.logical_name!r} to {address}"
            self._logger.log("init", f"{name} {lacking}", "WARNING")

    async def _undelivered(self, subscription: Subscription) -> Receiver | None:
        """Return a receiver of messages that the broker could not push, or None."""
        try:
            return await self._bus._undelivered(subscription)
        except BackendError as error:  # the service may have no right to receive them
            what = f"Cannot receive messages of {subscription.logical_name!r} that the broker could not push"
            self._logger.log("init", f"{what}: {describe_error(error)}", "WARNING")
            return None

    async def warn_of_unhandled(self, subscriptions: Sequence[Subscription]) -> None:
        """Log which subscriptions still exist although no handler takes messages of their topic."""
        for subscription in subscriptions:
            existing = await find_existing(self._bus, subscription)
            if existing and existing.pull:
                self._logger.log(
                    "init",
                    f"The subscription {subscription.name!r} exists{await self._waiting(subscription)}, but no handler "
                    f"takes messages of {subscription.logical_name!r}. It continues to collect messages"
                    f"{f'; to delete it: {existing.drain}' if existing.drain else '.'}",
                    "WARNING",
                )

    async def _waiting(self, subscription: Subscription) -> str:
        backlog = await find_backlog(self._bus, subscription)
        return "" if backlog is None else f" with {backlog.messages} messages waiting"


def _dead_letters_of(existing: Existing | None, address: str) -> str:
    if existing is None or not existing.dead_letters:
        return ""
    place = existing.dead_letters[existing.push.index(address)]
    return f" Its dead letters go to {place}. Create that if it does not exist: until then they are pushed again."
