"""Serve one service on this machine. `python serve.py FILE PORT` does it for a service of an example."""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from totoms import TotoMicroservice, TotoMicroserviceConfiguration
from totoms.cli.consoles import OpenedConsole, Wanted


async def serve(
    configuration: TotoMicroserviceConfiguration, port: int, then: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Start a service and return when it has stopped.

    Args:
        configuration: Its declaration. Its messages are pulled: a cloud could not push to this machine.
        port: The port, on 127.0.0.1.
        then: Called once when the service answers, with the address of the console. The services of a demo share one.
    """
    if configuration.message_bus_configuration is not None:
        configuration.message_bus_configuration.delivery = "pull"
    console = OpenedConsole(Wanted(None, write=True), configuration.service_name)
    microservice = await TotoMicroservice.init(configuration)
    announcing = asyncio.create_task(_when_started(microservice, console, then))
    try:
        await microservice.start(port=port, host="127.0.0.1")
    finally:
        announcing.cancel()
        console.close()


async def _when_started(
    microservice: TotoMicroservice, console: OpenedConsole, then: Callable[[str], Awaitable[None]] | None
) -> None:
    while microservice.state == "starting" or not microservice.url:
        await asyncio.sleep(0.01)
    address = console.open(microservice)
    if then is not None:
        await then(address)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    sys.path.insert(0, str(file.parent))
    asyncio.run(serve(importlib.import_module(file.stem).get_microservice_config(), int(sys.argv[2])))
