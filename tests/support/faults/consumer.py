"""Handles numbered messages: appends "number attempt message_id latency" to a file and says SUCCESS; poison fails.

``python consumer.py FILE [LEASE_SECONDS] [HANDLER_SECONDS] [MAX_CONCURRENCY] [MAX_ATTEMPTS]``
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from totoms import (
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    ProcessingResponse,
    ProcessingStatus,
    RetryPolicy,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.local.messages.bus import LocalMessageBus


def argument(position: int, default: float) -> float:
    return float(sys.argv[position]) if len(sys.argv) > position else default


FILE = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
LEASE_SECONDS = argument(2, 2.0)
HANDLER_SECONDS = argument(3, 0.0)
MAX_CONCURRENCY = int(argument(4, 16))
MAX_ATTEMPTS = int(argument(5, 1000))


class NumberHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "number"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        assert message.delivery is not None
        if HANDLER_SECONDS:
            await asyncio.sleep(HANDLER_SECONDS)
        latency = time.time() - message.data["published"]
        line = f"{message.id} {message.delivery.attempt} {message.delivery.message_id} {latency:.4f}\n"
        os.write(FILE, line.encode())
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class PoisonHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "poison"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.FAILED, error="poison")


async def main() -> None:
    LocalMessageBus.lease_seconds = LEASE_SECONDS
    configuration = TotoMicroserviceConfiguration(
        service_name="consumer",
        shutdown_grace=5,
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="numbers", secret="numbers_topic")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=NumberHandler),
                MessageBusHandlerConfig(handler_class=PoisonHandler),
            ],
            max_concurrency=MAX_CONCURRENCY,
            retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, min_backoff=0.01, max_backoff=0.05),
        ),
    )
    microservice = await TotoMicroservice.init(configuration)
    await microservice.start(port=0, host="127.0.0.1")


if __name__ == "__main__":
    asyncio.run(main())
