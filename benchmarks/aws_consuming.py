"""Messages handled from SQS, compared with a loop of bare boto3 that receives, parses and deletes ten at a time.

The server answers without doing anything, and its queue never ends. Both take turns, each in a process of its own. Run
as ``python -m benchmarks.aws_consuming``.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks.aws_files import canned_aws
from benchmarks.canned_aws import QUEUE

ROUNDS = 5
WARM_UP = 500
MESSAGES = 5_000
AT_ONCE = 64


def bare() -> float:
    """Return how many messages a second boto3's loop handles."""
    import boto3

    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    done, began = 0, 0.0
    while done < WARM_UP + MESSAGES:
        if done >= WARM_UP and not began:
            done, began = WARM_UP, time.perf_counter()
        found = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=2,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )["Messages"]
        for message in found:
            assert json.loads(message["Body"])["type"] == "measured"
        entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(found)]
        sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        done += len(found)
    return MESSAGES / (time.perf_counter() - began)


async def totoms() -> float:
    """Return how many messages a second a service handles."""
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

    handled, began, finished, done = 0, 0.0, 0.0, asyncio.Event()

    class Handler(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "measured"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            nonlocal handled, began, finished
            handled += 1
            if handled == WARM_UP:
                began = time.perf_counter()
            elif handled == WARM_UP + MESSAGES:
                finished = time.perf_counter()
                done.set()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    configuration = TotoMicroserviceConfiguration(
        service_name="measured",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig("bench", "bench-topic")],
            message_handlers=[MessageBusHandlerConfig(Handler)],
            delivery="pull",
            max_concurrency=AT_ONCE,
            create_subscriptions=False,
        ),
    )
    service = await TotoMicroservice.create(configuration)
    async with service.app.router.lifespan_context(service.app):
        await done.wait()
    return MESSAGES / (finished - began)


def measure() -> None:
    """Measure and print."""
    found: dict[str, list[float]] = {"boto3": [], "totoms": []}
    with canned_aws() as variables:
        for _ in range(ROUNDS):
            for way, rates in found.items():
                command = [sys.executable, "-m", "benchmarks.aws_consuming", way]
                made = subprocess.run(
                    command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True
                )
                rates.append(float(made.stdout.splitlines()[-1]))
    for way, rates in found.items():
        print(f"handled, {way:<6} {statistics.median(rates):8.0f} messages/s")
    ratio = statistics.median(ours / theirs for ours, theirs in zip(found["totoms"], found["boto3"], strict=True))
    print(f"handled, of the loop  {ratio:.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["boto3"]:
        print(bare())
    elif sys.argv[1:] == ["totoms"]:
        import uvloop

        print(uvloop.run(totoms()))
    else:
        measure()
