"""Publishes numbered messages and appends each number to a file once `publish_message` has returned.

``python publisher.py FILE FIRST LAST [CONCURRENCY] [POISON_EVERY] [RATE]``; numbers already in FILE are not
published again. RATE is in messages per second; 0 means as fast as it goes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from totoms import (
    BackendError,
    MessageBusConfig,
    MessageBusTopicConfig,
    MessageDestination,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)


async def main() -> None:
    path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    concurrency = int(sys.argv[4]) if len(sys.argv) > 4 else 32
    poison_every = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    rate = float(sys.argv[6]) if len(sys.argv) > 6 else 0.0
    began = time.monotonic()
    done = set(path.read_text().split()) if path.exists() else set()
    numbers = enumerate([number for number in range(first, last) if str(number) not in done])
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    configuration = TotoMicroserviceConfiguration(
        service_name="publisher",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="numbers", secret="numbers_topic")]
        ),
    )
    bus = (await TotoMicroservice.init(configuration)).message_bus
    assert bus is not None

    async def worker() -> None:
        for position, number in numbers:
            if rate:
                await asyncio.sleep(max(0.0, began + position / rate - time.monotonic()))
            poison = poison_every and number % poison_every == 0
            message = TotoMessage(
                type="poison" if poison else "number", id=str(number), data={"published": time.time()}
            )
            while True:
                try:
                    await bus.publish_message(MessageDestination(topic="numbers"), message)
                    break
                except BackendError as error:
                    print(f"publish failed: {type(error).__name__}", flush=True)
                    await asyncio.sleep(0.05)
            os.write(file, f"{number}\n".encode())

    print("publishing", flush=True)
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    await TotoMicroservice.get_instance().stop()
    print("published all", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
