"""Publish a test message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, InvalidArgument, NotSerializable
from totoms.messages.bus import MessageBus
from totoms.messages.message import MessageDestination, TotoMessage

if TYPE_CHECKING:
    from totoms.declaration.service import TotoMicroserviceConfiguration


def read_data(given: str) -> Any:
    """Return the data of a message.

    Args:
        given: JSON, or ``@`` and the name of a file with JSON.

    Raises:
        ConfigurationError: The file cannot be read, or it is not JSON.
    """
    where = "--data"
    try:
        if given.startswith("@"):
            where = given[1:]
            given = Path(where).read_text(encoding="utf-8")
        return json.loads(given)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} is not JSON: {type(error).__name__}.") from None


async def topic_identifier(
    configuration: TotoMicroserviceConfiguration, name: str, environment: TotoEnvironment
) -> tuple[str, str]:
    """Return the logical name and the provider's identifier of a topic that a service declares.

    Args:
        configuration: The declaration.
        name: The logical name of the topic, or the name of the service's subscription to it.
        environment: Where the secret with the identifier is.

    Raises:
        ConfigurationError: The service declares no such topic.
        BackendError: The secret cannot be read.
    """
    from totoms.secrets.manager import SecretsManager

    declared = configuration.message_bus_configuration
    topics = declared.topics if declared is not None else []
    for topic in topics:
        if name in (topic.logical_name, topic.subscription or f"{configuration.service_name}-{topic.logical_name}"):
            secrets = SecretsManager(environment)
            return topic.logical_name, await secrets.topic_identifier_async(topic.secret, topic.logical_name)
    known = ", ".join(repr(topic.logical_name) for topic in topics) or "none"
    raise ConfigurationError(f"{configuration.service_name} declares no topic {name!r}: its topics are: {known}.")


async def publish(bus: MessageBus, destination: MessageDestination, message_type: str, data: Any) -> str:
    """Publish a message and return its id.

    Raises:
        ConfigurationError: Such a message cannot be published, to this destination or to any.
        BackendError: Of the backend.
    """
    try:
        return await bus.publish_message(destination, TotoMessage(type=message_type, msg="test message", data=data))
    except (InvalidArgument, NotSerializable) as error:
        raise ConfigurationError(error.message) from error
