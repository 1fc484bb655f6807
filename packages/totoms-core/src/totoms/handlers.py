"""Message handlers: what a service developer subclasses to react to a type of message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from totoms.bus import MessageBus
from totoms.environment import TotoEnvironment
from totoms.logging import TotoLogger
from totoms.messages import ProcessingResponse, TotoMessage

if TYPE_CHECKING:
    from totoms.config import TotoControllerConfig


class TotoMessageHandler(ABC):
    """Base of message handlers. One instance per service, made at start, used for many messages at once.

    Attributes:
        config: The service's loaded configuration.
        message_bus: To publish further messages.
        environment: Where the service runs.
        logger: ``self.logger.log(message.cid, "...")``.
    """

    def __init__(self, config: TotoControllerConfig, message_bus: MessageBus, environment: TotoEnvironment) -> None:
        self.config = config
        self.message_bus = message_bus
        self.environment = environment
        self.logger = TotoLogger.get_instance()

    @abstractmethod
    def get_handled_message_type(self) -> str:
        """Return the one message type this handler processes."""

    @abstractmethod
    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        """Process one message. A plain ``def`` is run in a worker thread.

        Returns:
            SUCCESS or IGNORED settles the message, FAILED has it delivered again with backoff.

        Raises:
            NonRetryableError: It will never succeed: dead-letter it at once.
            Exception: Any other is the same as FAILED.
        """
