"""Read by type checkers only: a plugin as its author writes it."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import AliasChoices, Field

from totoms.bus import PULL, MessageBus
from totoms.envelope import Outgoing, Received, Subscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager


class SkylineConfiguration(HyperscalerConfiguration):
    region: str = Field(default="north", validation_alias=AliasChoices("region", "SKYLINE_REGION"))


class SkylineSecrets(SecretsManager):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return b""


class SkylineBus(MessageBus):
    capabilities: ClassVar[frozenset[str]] = frozenset({PULL})

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return [None for _ in batch]

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        return None

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return []


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
