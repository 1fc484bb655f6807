"""The services that aws_pushes.py measures: ``python aws_push_services.py totoms|totoms1|totoms1-alone PORT``.

All have one handler, on one worker. The first two have uvloop and httptools; 1.5.0 requires neither, and alone does
without. Totoms verifies what is pushed; 1.5.0 does not.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

CERTIFICATE = "BENCH_CERTIFICATE"
"""The variable that names the file with the certificate that SNS has in this benchmark."""


async def totoms1() -> Any:
    """Version 1.5.0, in an environment of its own."""
    from totoms.evt.TotoMessageHandler import ProcessingResponse, ProcessingStatus, TotoMessageHandler
    from totoms.model.TotoConfig import TotoControllerConfig
    from totoms.model.TotoEnvironment import TotoEnvironment
    from totoms.TotoMicroservice import (
        MessageBusConfig,
        MessageBusHandlerConfig,
        MessageBusTopicConfig,
        TotoMicroservice,
        TotoMicroserviceConfiguration,
        determine_environment,
    )

    class Config(TotoControllerConfig):
        def get_mongo_secret_names(self) -> dict[str, str] | None:
            return None

        def get_props(self) -> dict[str, Any]:
            return {}

    class Measured(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "measured"

        async def process_message(self, message: Any) -> Any:
            return ProcessingResponse(status=ProcessingStatus.SUCCESS)

    configuration = TotoMicroserviceConfiguration(
        service_name="bench",
        base_path="/bench",
        environment=TotoEnvironment(hyperscaler="aws", hyperscaler_configuration=determine_environment()),
        custom_config=Config,
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig("bench", "bench-topic")], message_handlers=[MessageBusHandlerConfig(Measured)]
        ),
    )
    return await TotoMicroservice.init(configuration)


async def totoms1_alone(port: int) -> None:
    """Version 1.5.0 as it starts itself where nothing is installed but what it requires."""
    sys.modules["httptools"] = None  # type: ignore[assignment]
    await (await totoms1()).start(port)


async def totoms(port: int, pem: bytes) -> None:
    """This project. SNS's certificate is given, as SNS cannot be reached."""
    from totoms import (
        MessageBusConfig,
        MessageBusHandlerConfig,
        MessageBusTopicConfig,
        ProcessingResponse,
        ProcessingStatus,
        TotoMessage,
        TotoMessageHandler,
        TotoMicroservice,
        TotoMicroserviceConfiguration,
    )
    from totoms_aws.messages import bus, signatures

    class Measured(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "measured"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    made = signatures.Certificates
    bus.Certificates = lambda: made(fetch=lambda _url: pem)  # type: ignore[assignment, misc]
    configuration = TotoMicroserviceConfiguration(
        service_name="bench",
        base_path="/bench",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig("bench", "bench-topic")],
            message_handlers=[MessageBusHandlerConfig(Measured)],
            delivery="push",
            max_concurrency=64,  # 1.5.0 knows no limit
            create_subscriptions=False,
        ),
    )
    await (await TotoMicroservice.create(configuration)).start(port)


def main(variant: str, port: int) -> None:
    """Serve a variant."""
    if variant == "totoms1-alone":
        asyncio.run(totoms1_alone(port))
        return

    import uvicorn
    import uvloop

    if variant == "totoms":
        uvloop.run(totoms(port, Path(os.environ[CERTIFICATE]).read_bytes()))
        return
    app = asyncio.run(totoms1()).api_controller.app
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.create_server(("127.0.0.1", port))])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
