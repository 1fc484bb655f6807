"""Serve one service on this machine. `python serve.py FILE PORT` does it for a service of an example."""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from totoms import TotoMicroservice, TotoMicroserviceConfiguration


async def serve(
    configuration: TotoMicroserviceConfiguration, port: int, then: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Start a service and return when it has stopped.

    Args:
        configuration: Its declaration. Its messages are pulled: a cloud could not push to this machine.
        port: The port, on 127.0.0.1.
        then: Called once when the service answers.
    """
    if configuration.message_bus_configuration is not None:
        configuration.message_bus_configuration.delivery = "pull"
    microservice = await TotoMicroservice.init(configuration)
    announcing = asyncio.create_task(_when_started(microservice, then))
    await microservice.start(port=port, host="127.0.0.1")
    announcing.cancel()


async def _when_started(microservice: TotoMicroservice, then: Callable[[], Awaitable[None]] | None) -> None:
    while microservice.state == "starting":
        await asyncio.sleep(0.01)
    if then is not None:
        await then()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    sys.path.insert(0, str(file.parent))
    asyncio.run(serve(importlib.import_module(file.stem).get_microservice_config(), int(sys.argv[2])))
