"""Publishes numbers to the local bus at a steady rate until it is ended; see the oracle in oracle.py.

``python flood.py FILE RATE``; a number is noted in FILE once `publish_messages` has returned for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from totoms import (
    MessageBusConfig,
    MessageBusTopicConfig,
    MessageDestination,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)

EVERY = 0.1


async def main() -> None:
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    rate = float(sys.argv[2])
    topics = [MessageBusTopicConfig(logical_name="numbers", secret="numbers_topic")]
    configuration = TotoMicroserviceConfiguration(
        service_name="flood", message_bus_configuration=MessageBusConfig(topics=topics)
    )
    bus = (await TotoMicroservice.init(configuration)).message_bus
    print("publishing", flush=True)
    began, published = time.monotonic(), 0
    while True:
        wanted = range(published, int((time.monotonic() - began) * rate))
        batch = [TotoMessage(type="number", id=str(one), data={"published": time.time()}) for one in wanted]
        results = await bus.publish_messages(MessageDestination(topic="numbers"), batch)
        acknowledged = [one for one, result in zip(wanted, results, strict=True) if isinstance(result, str)]
        os.write(file, "".join(f"{one}\n" for one in acknowledged).encode())
        published = wanted.stop
        await asyncio.sleep(EVERY)


if __name__ == "__main__":
    asyncio.run(main())
