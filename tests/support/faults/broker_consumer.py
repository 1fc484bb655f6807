"""A process that consumes from a cloud's broker until it is stopped: ``broker_consumer.py TOPIC FILE [ordered]``.

The environment says which broker, as it does to a service. What was handled is noted in FILE, a number a line. SIGTERM
stops it as a service stops.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from totoms import MessageBus, ProcessingResponse, ProcessingStatus, TotoMessage, TotoMessageHandler
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import Subscription

FILE = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Handler(TotoMessageHandler):
    def __init__(self) -> None: ...

    def get_handled_message_type(self) -> str:
        return "numbered"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        await asyncio.sleep(0.02)
        await asyncio.to_thread(os.write, FILE, f"{message.id}\n".encode())
        return ProcessingResponse(ProcessingStatus.SUCCESS)


async def main() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    topic = sys.argv[1]
    bus = MessageBus(topics={"posts": topic})
    subscription = Subscription("shop-posts", topic, "posts", ordered="ordered" in sys.argv)
    receiver = await bus._subscribe(subscription, create=True)
    logger = TotoLogger("tested")
    router = MessageRouter([Handler()], retry=subscription.retry, timeout=60.0, logger=logger)
    consumer = Consumer(receiver, router, max_concurrency=16, logger=logger)
    consumer.start()
    await ended.wait()
    await consumer.stop(10.0)
    await bus.close()


asyncio.run(main())
