"""Read by type checkers only: a plugin as its author writes it."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import AliasChoices, Field

from totoms.errors import BackendError
from totoms.plugin import (
    PULL,
    DeadLetterReason,
    HyperscalerConfiguration,
    Lease,
    LeasingReceiver,
    MessageBus,
    Outgoing,
    Received,
    SecretsManager,
    Subscription,
    TotoEnvironment,
    hookimpl,
)


class SkylineConfiguration(HyperscalerConfiguration):
    region: str = Field(default="north", validation_alias=AliasChoices("region", "SKYLINE_REGION"))


class SkylineSecrets(SecretsManager):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return b""


class SkylineReceiver(LeasingReceiver):
    async def _fetch(self, most: int, wait: float) -> list[Received]:
        return [Received(b"{}", "1", 1, self.subscription, lease=Lease("handle", 30.0))]

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return [None for _ in held]

    async def _nack(self, received: Received, delay: float) -> None:
        return None

    async def _release(self, held: Sequence[Received]) -> None:
        return None

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return [None for _ in held]

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        return None


class SkylineBus(MessageBus):
    capabilities: ClassVar[frozenset[str]] = frozenset({PULL})

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return [None for _ in batch]

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> SkylineReceiver:
        return SkylineReceiver(subscription)


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    return SkylineConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    return SkylineSecrets


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    return SkylineBus


ENVIRONMENT = TotoEnvironment("skyline", SkylineConfiguration(region="south"))
