"""Takes one message and acknowledges it at SIGUSR1: ``python stopped_consumer.py URL PREFIX TOPIC SUBSCRIPTION``."""

from __future__ import annotations

import asyncio
import signal
import sys

from totoms import MessageBus, TotoEnvironment
from totoms.messages.subscription import Subscription
from totoms_nats.configuration import NatsConfiguration


async def main(url: str, prefix: str, topic: str, name: str) -> None:
    settings = NatsConfiguration(url=url, prefix=prefix, lease_seconds=2.0)
    bus, subscription = MessageBus(TotoEnvironment("nats", settings)), Subscription(name, topic, "posts")
    receiver = await bus._subscribe(subscription, create=False)
    batch = await receiver.receive(1, 20)
    print("received", flush=True)
    await asyncio.to_thread(signal.sigwait, {signal.SIGUSR1})
    (result,) = await receiver.ack(batch)
    print(f"ack: {type(result).__name__}", flush=True)
    await bus.close()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    asyncio.run(main(*sys.argv[1:5]))
