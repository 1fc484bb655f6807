"""The messaging side of one service: its bus, its subscriptions, its consumers and its push endpoint."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from totoms.bus import ORDERING, PULL, PUSH, MessageBus
from totoms.config import TotoControllerConfig
from totoms.configuration import MessageBusConfig, TotoMicroserviceConfiguration
from totoms.consumer import Consumer
from totoms.describe import where
from totoms.envelope import DeliveryMode, Subscription
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError
from totoms.logging import TotoLogger
from totoms.push import EVENTS_PATH, PushEndpoint
from totoms.routing import MessageRouter

BASE_URL_VARIABLE: Final = "SERVICE_BASE_URL"
"""The public address of the service, without the base path; a push subscription needs it."""
_CLOSE_PATIENCE: Final = 5.0


class Messaging:
    """Made at init, started and stopped with the service. Use :meth:`build`.

    Attributes:
        bus: What services publish to.
        push: The endpoint for pushed messages.
    """

    def __init__(
        self, bus: MessageBus, router: MessageRouter, subscriptions: list[Subscription], *, declared: MessageBusConfig,
        push: PushEndpoint, logger: TotoLogger,
    ) -> None:  # fmt: skip
        self.bus = bus
        self.push = push
        self.counts = router.counts
        self._router = router
        self._subscriptions = subscriptions
        self._declared = declared
        self._logger = logger
        self._consumers: list[Consumer] = []

    @classmethod
    async def build(
        cls, configuration: TotoMicroserviceConfiguration, declared: MessageBusConfig, environment: TotoEnvironment,
        config: TotoControllerConfig, logger: TotoLogger,
    ) -> Messaging:  # fmt: skip
        """Resolve the topics, construct bus and handlers, and check that the backend can do what is declared.

        Raises:
            ConfigurationError: A capability is missing, a handler is wrong, or two handle one type.
            BackendError: A topic's secret cannot be read.
        """
        identifiers = await asyncio.gather(
            *(
                config.secrets_manager.topic_identifier_async(topic.secret, topic.logical_name)
                for topic in declared.topics
            )
        )
        topics = {topic.logical_name: name for topic, name in zip(declared.topics, identifiers, strict=True)}
        bus = MessageBus(environment, topics)
        delivery = declared.delivery or bus.default_delivery
        _check_capabilities(bus, declared, delivery, environment.hyperscaler)
        handlers = [handler.handler_class(config, bus, environment) for handler in declared.message_handlers]
        for handler in handlers:
            handler.logger = logger  # of this service, where there are several
        router = MessageRouter(handlers, retry=declared.retry, timeout=declared.handler_timeout, logger=logger)
        base_url = os.environ.get(BASE_URL_VARIABLE, "").rstrip("/")
        push_url = f"{base_url}{configuration.base_path}{EVENTS_PATH}" if base_url else None
        subscriptions = [
            Subscription(
                name=topic.subscription or f"{configuration.service_name}-{topic.logical_name}",
                topic=topics[topic.logical_name],
                logical_name=topic.logical_name,
                delivery=delivery,
                push_url=push_url,
                retry=declared.retry,
                ordered=topic.ordered,
            )
            for topic in declared.topics
            if handlers
        ]
        push = PushEndpoint(bus, router, max_concurrency=declared.max_concurrency, url=push_url, logger=logger)
        return cls(bus, router, subscriptions, declared=declared, push=push, logger=logger)

    async def start(self) -> None:
        """Subscribe, and begin to pull where messages are pulled.

        Raises:
            BackendError: A subscription is missing and may not be made; the error says exactly what.
        """
        for subscription in self._subscriptions:
            if subscription.delivery == "push" and not subscription.push_url:
                self._logger.log(
                    "init",
                    f"Nobody was subscribed to {subscription.logical_name!r}: {BASE_URL_VARIABLE} is not set, so "
                    f"the public address of {EVENTS_PATH} is not known. Subscribe it yourself, or set it.",
                    "WARNING",
                )
                continue
            await self.bus._subscribe(subscription, create=self._declared.create_subscriptions)
            if subscription.delivery == "pull":
                consumer = Consumer(
                    self.bus, subscription, self._router,
                    max_concurrency=self._declared.max_concurrency, logger=self._logger,
                )  # fmt: skip
                consumer.start()
                self._consumers.append(consumer)
            self._logger.log(
                "init", f"Subscribed {subscription.name} to {subscription.topic} ({subscription.delivery})."
            )

    async def stop_receiving(self, grace: float) -> None:
        """Take no more messages; let those at work finish for `grace` seconds; give back the rest."""
        await asyncio.gather(self.push.stop(grace), *(consumer.stop(grace) for consumer in self._consumers))
        self._consumers.clear()

    async def close(self) -> None:
        """Close the bus. A backend that hangs or fails here does not keep the process alive."""
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await self.bus.close()
        except Exception as error:
            self._logger.log("shutdown", f"The message bus did not close: {where(error)}", "ERROR")


def _check_capabilities(bus: MessageBus, declared: MessageBusConfig, delivery: DeliveryMode, hyperscaler: str) -> None:
    wanted = {PUSH if delivery == "push" else PULL} if declared.message_handlers and declared.topics else set()
    if any(topic.ordered for topic in declared.topics):
        wanted.add(ORDERING)
    missing = sorted(wanted - bus.capabilities)
    if missing:
        raise ConfigurationError(f"The {hyperscaler} message bus has no {' and no '.join(missing)}.")
