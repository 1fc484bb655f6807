"""The message bus of a service that declares none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from totoms.errors import BackendError, ConfigurationError
from totoms.messages.bus import MessageBus
from totoms.messages.outgoing import Outgoing


class UndeclaredMessageBus(MessageBus):
    """Is false, and raises ConfigurationError in every method: the service declares no message bus."""

    def __bool__(self) -> bool:
        return False

    def _check_open(self) -> NoReturn:
        raise ConfigurationError(
            "This service declares no message bus: set "
            'message_bus_configuration=MessageBusConfig(topics=[MessageBusTopicConfig(logical_name="posts", '
            'secret="posts-topic")]) in its TotoMicroserviceConfiguration.'
        )

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        self._check_open()
