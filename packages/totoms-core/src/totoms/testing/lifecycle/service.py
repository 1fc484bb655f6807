"""The shop: the small service that the lifecycle contract starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx
from fastapi import HTTPException, Request

from totoms.auth.tokens import make_token
from totoms.auth.user import UserContext
from totoms.controller_config import JWT_KEY_SECRET, TotoControllerConfig
from totoms.declaration.api import APIConfiguration, APIEndpoint
from totoms.declaration.messaging import MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment
from totoms.execution import ExecutionContext
from totoms.http.delegate import toto_delegate
from totoms.messages.handler import TotoMessageHandler
from totoms.messages.message import MessageDestination, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.messages.subscription import RetryPolicy
from totoms.secrets.manager import SecretsManager
from totoms.service import TotoMicroservice
from totoms.storage.storage import CloudStorage

ORDERS: Final = MessageDestination(topic="orders")
STAMP_SECRET: Final = "totoms-contract-stamp"
SIGNING_KEY: Final = "the signing key of the contract, 32 bytes or more"
USER: Final = "ann@example.com"

__all__ = ["JWT_KEY_SECRET", "ORDERS", "SIGNING_KEY", "STAMP_SECRET", "USER", "Shop", "running"]


class ShopConfig(TotoControllerConfig):
    """Holds the shop, and a secret that is read at start."""

    shop: Shop
    stamp: str

    async def load(self) -> ShopConfig:
        """Read the secrets."""
        await super().load()
        self.stamp = await self.secrets_manager.get_secret_async(STAMP_SECRET)
        return self


@toto_delegate
async def place(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    """Publish an order."""
    body = await request.json()
    message = TotoMessage(type="orderPlaced", id=body["id"], msg="An order", data={"text": body["text"]})
    message_id = await exec_context.message_bus.publish_message(ORDERS, message)
    return {"messageId": message_id, "user": user_context.email, "stamp": _shop_config(exec_context.config).stamp}


@toto_delegate
async def read(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    """Return the file that the handler wrote for an order, and the current secret."""
    storage = CloudStorage(_shop_config(exec_context.config).shop.bucket)  # in the environment of this service
    stamp = await SecretsManager().get_secret_async(STAMP_SECRET)
    content = await storage.get_file_content_async(f"orders/{request.path_params['order']}.txt")
    if content is None:
        raise HTTPException(404, "There is no such order.")
    return {"content": content, "stamp": stamp}


class OrderHandler(TotoMessageHandler):
    """Writes a file for each order."""

    def get_handled_message_type(self) -> str:
        """Return the type of the shop's messages."""
        return "orderPlaced"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        """Write the order, prefixed with the secret."""
        shop = _shop_config(self.config).shop
        stamp = await SecretsManager().get_secret_async(STAMP_SECRET)
        text = f"{stamp}: {message.data['text']}"
        await CloudStorage(shop.bucket).upload_bytes_async(text.encode(), f"orders/{message.id}.txt")
        async with shop.changed:
            shop.handled.append(message)
            shop.changed.notify_all()
        return ProcessingResponse(ProcessingStatus.SUCCESS)


@dataclass(eq=False)
class Shop:
    """The shop in one environment.

    Attributes:
        environment: The environment of the services.
        bucket: The bucket that the handler writes to.
        mark: Ends the names of the services and of the secret with the topic's name. Each test has its own: secrets are
            cached for the process, and subscriptions stay, while the topic of an earlier test may be gone.
        handled: The messages that the handler got.
        changed: Notified after a message was handled.
    """

    environment: TotoEnvironment
    bucket: str
    mark: str = field(default_factory=lambda: uuid4().hex[:8])
    handled: list[TotoMessage] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def topic_secret(self) -> str:
        """The secret that holds the name of the topic."""
        return f"totoms-contract-topic-{self.mark}"

    def declare(
        self, name: str = "shop", *, handles: bool = True, published: str | None = None
    ) -> TotoMicroserviceConfiguration:
        """Return the declaration of a service that takes orders.

        Args:
            name: The start of its name.
            handles: Whether it handles the orders as well.
            published: The secret of a topic ``receipts`` that it only publishes to.
        """
        handlers = [MessageBusHandlerConfig(handler_class=OrderHandler, topic="orders")] if handles else []
        topics = [MessageBusTopicConfig(logical_name="orders", secret=self.topic_secret)]
        if published is not None:
            topics.append(MessageBusTopicConfig(logical_name="receipts", secret=published))
        return TotoMicroserviceConfiguration(
            service_name=f"{name}-{self.mark}",
            base_path="/shop",
            environment=self.environment,
            custom_config=type("ConfigOfShop", (ShopConfig,), {"shop": self}),
            api_configuration=APIConfiguration(
                api_endpoints=[
                    APIEndpoint(method="POST", path="/orders", delegate=place),
                    APIEndpoint(method="GET", path="/orders/{order}", delegate=read),
                ]
            ),
            message_bus_configuration=MessageBusConfig(
                topics=topics,
                message_handlers=handlers,
                delivery="pull",
                retry=RetryPolicy(max_attempts=5, min_backoff=0.0, max_backoff=0.0),
            ),
        )

    async def until(self, orders: set[str], patience: float) -> None:
        """Wait until all of `orders` were handled."""
        try:
            async with asyncio.timeout(patience), self.changed:
                await self.changed.wait_for(lambda: orders <= {message.id for message in self.handled})
        except TimeoutError:
            missing = orders - {message.id for message in self.handled}
            raise AssertionError(f"not handled within {patience:g} s: {sorted(missing)}") from None


@asynccontextmanager
async def running(
    configuration: TotoMicroserviceConfiguration,
) -> AsyncIterator[tuple[TotoMicroservice, Callable[[str | None], httpx.AsyncClient]]]:
    """Run a service in memory; yield it, and a function that returns a client of a user."""
    service = await TotoMicroservice.create(configuration)
    clients: list[httpx.AsyncClient] = []

    def client(user: str | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {make_token(SIGNING_KEY, user)}"} if user else {}
        transport = httpx.ASGITransport(service.app)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers))
        return clients[-1]

    async with service.app.router.lifespan_context(service.app):
        yield service, client
    for one in clients:
        await one.aclose()


def _shop_config(config: TotoControllerConfig) -> ShopConfig:
    assert isinstance(config, ShopConfig)
    return config
