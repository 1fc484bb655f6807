"""`ExecutionContext`: the services that totoms offers to a delegate or a message handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from totoms.environment import TotoEnvironment
from totoms.logging.logger import TotoLogger

if TYPE_CHECKING:
    from totoms.messages.bus import MessageBus
    from totoms.storage.storage import CloudStorage

ConfigT = TypeVar("ConfigT", default=Any)
"""The configuration class of a service; Any by default, so that a bare ``ExecutionContext`` is valid."""


@dataclass
class ExecutionContext(Generic[ConfigT]):
    """The services that totoms offers to a delegate or a message handler, for one request or message.

    With ``ExecutionContext[BlogConfig]`` type checkers know the type of `config`.

    Attributes:
        logger: ``exec_context.logger.log(exec_context.cid, "...")``.
        cid: The correlation id of the request or message.
        config: The service's loaded configuration.
        message_bus: To publish messages; a false object in a service that declares none, whose methods raise
            ConfigurationError.
        environment: The environment of the service: its hyperscaler and settings.
    """

    logger: TotoLogger
    cid: str
    config: ConfigT
    message_bus: MessageBus
    environment: TotoEnvironment

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Make pydantic, and so FastAPI, accept only an instance: a request cannot supply one."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    def get_storage(self, bucket_name: str) -> CloudStorage:
        """Return the storage of a bucket on the service's hyperscaler.

        Args:
            bucket_name: The bucket's name, without a path.
        """
        from totoms.storage.storage import CloudStorage  # imported here because few services use storage

        warn = getattr(self.config, "_warn_of_undeclared", None)  # a test may pass any object as config
        if warn is not None:
            warn(bucket_name)

        return CloudStorage(bucket_name, self.logger, self.cid, environment=self.environment)
