"""The base class of message handlers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from totoms.environment import TotoEnvironment
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.message import ProcessingResponse, TotoMessage

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig


class TotoMessageHandler(ABC):
    """Handles messages of one type. A service creates one instance at start and uses it for concurrent messages.

    Attributes:
        config: The service's loaded configuration.
        message_bus: The bus, to publish further messages.
        environment: Where the service runs.
        logger: The service's logger: ``self.logger.log(message.cid, "...")``.
    """

    def __init__(self, config: TotoControllerConfig, message_bus: MessageBus, environment: TotoEnvironment) -> None:
        self.config = config
        self.message_bus = message_bus
        self.environment = environment
        self.logger = TotoLogger.get_instance()

    @abstractmethod
    def get_handled_message_type(self) -> str:
        """Return the message type that this handler processes."""

    @abstractmethod
    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        """Process one message. A plain ``def`` runs in a worker thread.

        Returns:
            SUCCESS or IGNORED to settle the message, FAILED to have it delivered again with backoff.

        Raises:
            NonRetryableError: Dead-letter the message at once, because it will never succeed.
            Exception: The same as FAILED.
        """
