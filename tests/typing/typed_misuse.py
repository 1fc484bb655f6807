"""Read by type checkers only: mistakes that they must find. An ignore that is not needed is itself an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

import totoms
from totoms import (
    APIEndpoint,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageDestination,
    ProcessingResponse,
    SecretsManager,
    TotoControllerConfig,
    TotoEnvironment,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroserviceConfiguration,
)


async def delegate() -> None: ...


class Wrong(TotoMessageHandler):
    def get_handled_message_type(self) -> int:  # type: ignore[override]
        return 1

    async def process_message(self, message: str) -> ProcessingResponse:  # type: ignore[override]
        return ProcessingResponse(status="fine")  # type: ignore[arg-type]


class Unloaded(TotoControllerConfig):
    async def load(self) -> None:  # type: ignore[override]
        return None


def misspelt() -> list[Any]:
    return [
        APIEndpoint(metod="GET", path="/", delegate=delegate),  # type: ignore[call-arg]
        TotoMicroserviceConfiguration(service_nam="blog"),  # type: ignore[call-arg]
        MessageBusConfig(delivery="poll"),  # type: ignore[arg-type]
        TotoMessage(typ="postCreated"),  # type: ignore[call-arg]
        totoms.TotoMicroservise,  # type: ignore[attr-defined]
    ]


def of_the_wrong_type() -> list[Any]:
    return [
        TotoMicroserviceConfiguration(service_name=1),  # type: ignore[arg-type]
        TotoMicroserviceConfiguration(service_name="blog", custom_config=dict),  # type: ignore[arg-type]
        MessageBusHandlerConfig(handler_class=TotoControllerConfig),  # type: ignore[arg-type]
        MessageDestination(topic=1),  # type: ignore[arg-type]
        TotoEnvironment(None),  # type: ignore[arg-type]
        SecretsManager().get_secret(1),  # type: ignore[arg-type]
    ]
