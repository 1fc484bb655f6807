"""The messaging side of one service: its bus, its subscriptions, its consumers and its push endpoint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from totoms.context import current_cid
from totoms.controller_config import TotoControllerConfig
from totoms.declaration.messaging import MessageBusConfig, MessageBusHandlerConfig
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, NotFound
from totoms.execution import ExecutionContext
from totoms.health import AWAITING, RECEIVING, away_since
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.loop_watch import LoopWatch
from totoms.messages.backlog_watch import BacklogWatch
from totoms.messages.bus import MessageBus
from totoms.messages.consumer import Consumer
from totoms.messages.delivery import require_capabilities
from totoms.messages.driver import ORDERING, PULL, PUSH
from totoms.messages.handler import BoundHandler, TotoMessageHandler
from totoms.messages.outages import Outage
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import EVENTS_PATH
from totoms.messages.receiver import Receiver
from totoms.messages.router import MessageRouter
from totoms.messages.subscriber import BASE_URL_VARIABLE, Subscriber
from totoms.messages.subscription import Subscription
from totoms.messages.unconfirmed import UnconfirmedPushes
from totoms.telemetry import state as telemetry
from totoms.threads import MOST_THREADS

_CLOSE_PATIENCE: Final = 5.0


class Messaging:
    """Receives messages for one service. Call :meth:`build` to create one.

    Attributes:
        bus: The bus that handlers and delegates publish to.
        push: The push endpoint.
        unconfirmed: The push subscriptions that are not confirmed yet.
        counts: Deliveries since the start, by outcome.
        end: Ends the process, and logs the reason that it gets; set by the service.
        watch: Logs when a handler blocks the event loop.
        away_is_unready: Whether the service is not ready while a subscription cannot receive.
    """

    def __init__(
        self,
        bus: MessageBus,
        router: MessageRouter,
        subscriptions: dict[str, Subscription],
        *,
        declared: MessageBusConfig,
        push: PushEndpoint,
        unconfirmed: UnconfirmedPushes,
        logger: TotoLogger,
    ) -> None:
        self.bus = bus
        self.push = push
        self.unconfirmed = unconfirmed
        self.counts = router.counts
        self.end: Callable[[str], None] = lambda _why: None
        self.away_is_unready = declared.away_is_unready
        self._router = router
        heard = declared.heard
        self._subscriptions = [one for name, one in subscriptions.items() if name in heard]
        self._unhandled = [one for name, one in subscriptions.items() if name not in heard]
        self._declared = declared
        self._logger = logger
        self._subscriber = Subscriber(
            bus,
            unconfirmed,
            delivery=declared.delivery,
            create=declared.create_subscriptions,
            handler_timeout=declared.handler_timeout,
            logger=logger,
        )
        self._consumers: list[Consumer] = []
        self._receiving: dict[str, Outage] = {}
        self._warning: asyncio.Task[None] | None = None
        self._backlogs = BacklogWatch(bus, logger)
        lease = bus.lease_seconds if declared.lease is None else declared.lease
        self.watch = LoopWatch(logger, lease if self._subscriptions else 0.0, handler_of=router.handler_of)

    @classmethod
    async def build(
        cls,
        configuration: TotoMicroserviceConfiguration,
        declared: MessageBusConfig,
        environment: TotoEnvironment,
        config: TotoControllerConfig,
        logger: TotoLogger,
    ) -> Messaging:
        """Resolve the topics, create the bus and the handlers, and check the backend's capabilities.

        Raises:
            ConfigurationError: A capability is missing, or two handlers take the same type of the same topic.
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
        if declared.lease is not None:
            bus.use_lease(declared.lease)
        _check_capabilities(bus, declared)
        bus.publishes = {
            topic.logical_name: topic.publishes for topic in declared.topics if topic.publishes is not None
        }

        def context() -> ExecutionContext:
            return ExecutionContext(logger, current_cid.get(), config, bus, environment)

        def handler_of(one: MessageBusHandlerConfig) -> TotoMessageHandler | BoundHandler:
            if one.function is not None:
                return one.function.bind(context)
            assert one.handler_class is not None
            handler = one.handler_class(config, bus, environment)
            handler.logger = logger  # of this service, where there are several
            return handler

        heard = declared.heard
        router = MessageRouter(
            [handler_of(one) for one in declared.message_handlers],
            retry=declared.retry,
            timeout=declared.handler_timeout,
            logger=logger,
            topics=[handler.topics for handler in declared.message_handlers],
            unhandled=topics.keys() - heard,
            system=bus.system,
            max_threads=declared.max_threads or _max_running(declared),
        )
        base_url = _base_url(configuration.base_path, logger)
        events_path = configuration.base_path + EVENTS_PATH
        push_url = f"{base_url}{events_path}" if base_url else None
        subscriptions = {
            topic.logical_name: Subscription(
                name=topic.subscription or f"{configuration.service_name}-{topic.logical_name}",
                topic=topics[topic.logical_name],
                logical_name=topic.logical_name,
                delivery=declared.delivery or "pull",
                push_url=push_url,
                retry=declared.retry,
                ordered=topic.ordered,
                dead_letters=declared.dead_letters,
            )
            for topic in declared.topics
        }
        unconfirmed = UnconfirmedPushes(bus, events_path, base_url, logger)
        push = PushEndpoint(
            bus,
            router,
            max_concurrency=declared.max_concurrency,
            url=push_url,
            logger=logger,
            on_push=unconfirmed.confirm,
        )
        return cls(
            bus,
            router,
            subscriptions,
            declared=declared,
            push=push,
            unconfirmed=unconfirmed,
            logger=logger,
        )

    async def start(self) -> None:
        """Subscribe, and start the consumers.

        Raises:
            ConfigurationError: The choice between push and pull is ambiguous, or the backend does not support it.
            BackendError: A subscription does not exist and cannot be created; the error says why.
        """
        heard = []
        for subscription in self._subscriptions:
            subscribed, receiver = await self._subscriber.subscribe(subscription)
            heard.append(subscribed)
            if receiver is not None:
                self._consume(subscribed, receiver)
        if telemetry.active is not None:
            self._backlogs.start(heard, telemetry.active.instruments.service)
        if self._unhandled:
            self._warning = asyncio.create_task(self._subscriber.warn_of_unhandled(self._unhandled))

    def states(self) -> dict[str, dict[str, str]]:
        """Return what ``/ready`` shows of each subscription, by name."""
        states: dict[str, dict[str, str]] = {}
        for subscription in self._subscriptions:
            name = subscription.name
            receiving = self._receiving.get(name)
            if receiving is not None and receiving.since is not None:
                states[name] = away_since(receiving.since, receiving.failure)
            else:
                awaited = subscription.logical_name in self.unconfirmed.topics
                states[name] = {"state": AWAITING if awaited else RECEIVING}
        return states

    def _consume(self, subscription: Subscription, receiver: Receiver) -> None:
        most = self._declared.max_concurrency
        pulled = subscription.delivery == "pull"
        again = partial(self._subscribe_again, subscription) if pulled else None
        consumer = Consumer(receiver, self._router, max_concurrency=most, logger=self._logger, resubscribe=again)
        consumer.start()
        self._consumers.append(consumer)
        if pulled:
            self._receiving[subscription.name] = consumer.receiving

    async def _subscribe_again(self, subscription: Subscription, error: NotFound) -> Receiver:
        if self._declared.vanished_subscriptions == "exit":
            self.end(f"the subscription {subscription.name!r} vanished: {error.message}")
            raise error
        return await self._subscriber.subscribe_again(subscription)

    async def stop_receiving(self, grace: float) -> None:
        """Stop receiving, wait at most `grace` seconds for running handlers, and give back the rest."""
        await asyncio.gather(self.push.stop(grace), *(consumer.stop(grace) for consumer in self._consumers))
        self._consumers.clear()

    async def close(self) -> None:
        """Close the bus; give up on a backend that hangs."""
        if self._warning is not None:
            self._warning.cancel()
        await self._backlogs.stop()
        await self.unconfirmed.close()
        self._router.close()
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await self.bus.close()
        except Exception as error:
            self._logger.log("shutdown", f"The message bus did not close: {describe_error(error)}", "ERROR")


def _max_running(declared: MessageBusConfig) -> int:
    # One consumer for each topic, and the push endpoint.
    return min(MOST_THREADS, declared.max_concurrency * (len(declared.topics) + 1))


def _base_url(base_path: str, logger: TotoLogger) -> str:
    """Return the public address of the service without the base path; "" if it is unknown."""
    given = os.environ.get(BASE_URL_VARIABLE, "").rstrip("/")
    if base_path and urlsplit(given).path.endswith(base_path):
        base_url = given.removesuffix(base_path)
        # As the README of 1.5.0 asked for.
        logger.log("init", f"{BASE_URL_VARIABLE} includes the base path: using {base_url}.")
        return base_url
    return given


def _check_capabilities(bus: MessageBus, declared: MessageBusConfig) -> None:
    wanted: set[str] = set()
    if declared.delivery and declared.heard:
        wanted.add(PUSH if declared.delivery == "push" else PULL)
    if any(topic.ordered for topic in declared.topics):
        wanted.add(ORDERING)
    require_capabilities(bus, wanted)
    for topic in declared.topics:
        if topic.ordered and not bus._keeps_order(bus.topics[topic.logical_name]):
            raise ConfigurationError(f"The topic {topic.logical_name!r} is declared ordered, but preserves no order.")
