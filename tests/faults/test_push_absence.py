"""Services that are pushed to and are away, or are offered ten times what they can handle: no message is given up.

The stand-ins deliver as SNS and Pub/Sub do, with the policies that we set, and count each attempt, also those that
found nobody. Their pauses pass four times as fast, which makes an absence of a minute one of four.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import uvicorn

from standins.aws.sns_certificates import CertificateServer
from standins.aws.sns_push import deliver
from standins.gcp.pubsub import PubSubStandIn
from standins.gcp.pubsub_push import push
from support.aws import kit as aws_kit
from support.aws.push import HOST, SNSPushHarness
from support.gcp.messages import stand_in
from support.gcp.push import PubSubPushHarness
from support.http.app import KeyServer, rsa_key
from totoms.http.server.server import uvicorn_config
from totoms.messages.message import ProcessingResponse, TotoMessage, encode_message
from totoms.messages.push_request import EVENTS_PATH
from totoms.messages.subscription import RetryPolicy
from totoms.testing import Pushed, PushHarness
from totoms.testing.push.service import MESSAGE_TYPE, PushedService, succeed
from totoms_aws.messages.bus import AWSMessageBus
from totoms_aws.messages.push_subscriptions import delivery_policy
from totoms_gcp.messages.bus import PubSubMessageBus

pytestmark = pytest.mark.faults

HURRY = 4.0
AWAY = 60.0
AT_ONCE = 4
HANDLER_SECONDS = 0.25
OFFERED = int(10 * AT_ONCE / HANDLER_SECONDS * 2)
"""Ten times what can be handled in two seconds, pushed all at once."""
RETRY = RetryPolicy(max_attempts=3)

Send = Callable[[Pushed], Awaitable[int]]


class Broker(Protocol):
    """What pushes.

    Attributes:
        name: Of the table.
        patience: Seconds that it waits for an answer.
        harness: Makes its requests.
    """

    name: str
    patience: float
    harness: PushHarness

    async def push(self, ids: list[str], send: Send) -> list[str]:
        """Publish messages and push them until none is left; return the ids of those that were given up."""
        ...


def body_of(name: str) -> bytes:
    return encode_message(TotoMessage(type=MESSAGE_TYPE, id=name, timestamp="now", cid="c"))


class SNS:
    """SNS, on the stand-in."""

    name = "SNS"
    patience = AWSMessageBus.push_patience

    def __init__(self, harness: SNSPushHarness) -> None:
        self.harness = harness

    async def push(self, ids: list[str], send: Send) -> list[str]:
        policy = json.loads(delivery_policy(RETRY))["healthyRetryPolicy"]

        async def push_one(name: str) -> int | None:
            async def send_once() -> int:
                return await send(await self.harness.genuine(body_of(name), message_id=name))

            return (await deliver(send_once, policy, hurry=HURRY))[-1]

        answers = await asyncio.gather(*map(push_one, ids))
        return [name for name, status in zip(ids, answers, strict=True) if status != 200]


class PubSub:
    """Pub/Sub, on the stand-in."""

    name = "Pub/Sub"
    patience = PubSubMessageBus.push_patience

    def __init__(self, harness: PubSubPushHarness, server: PubSubStandIn) -> None:
        self.harness = harness
        self._server = server

    async def push(self, ids: list[str], send: Send) -> list[str]:
        for name in ids:
            await asyncio.to_thread(self.harness.publish, body_of(name), {"messageId": name})

        async def send_message(message: Any, delivery: int) -> int:
            name = message.attributes["messageId"]
            return await send(await self.harness.genuine(message.data, message_id=name, attempt=delivery))

        await push(self._server, self.harness.path, send_message, hurry=HURRY)
        dead = self._server.subscriptions[f"{self.harness.path}-dead"]
        return [entry.message.attributes["messageId"] for entry in dead.entries]


@pytest.fixture(params=["sns", "pubsub"])
async def broker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Broker]:
    if request.param == "sns":
        with CertificateServer(HOST, tmp_path) as certificates:
            for name, value in certificates.variables.items():
                monkeypatch.setenv(name, value)
            with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
                monkeypatch.setenv("AWS_CA_BUNDLE", certificates.variables["AWS_CA_BUNDLE"])
                of_sns = SNSPushHarness(configuration, certificates, "2")
                yield SNS(of_sns)
                await of_sns.close()
        return
    keys = KeyServer()
    keys.keys["one"] = rsa_key()
    with stand_in() as server, keys.running():
        of_pubsub = PubSubPushHarness(server, keys, rsa_key())
        yield PubSub(of_pubsub, server)
        await of_pubsub.close()


@contextlib.asynccontextmanager
async def serving(service: PushedService, port: int) -> AsyncIterator[None]:
    """Serve on a port, and refuse connections afterwards."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        server = uvicorn.Server(uvicorn_config(service._app, 1))
        vars(server).update(capture_signals=contextlib.nullcontext)  # signals are pytest's
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def client(broker: Broker, port: int, seen: list[int | None]) -> AsyncIterator[Send]:
    """Send requests as brokers do; note the status of each, None if the service was unreachable."""
    limits = httpx.Limits(max_connections=1000)
    timeout = httpx.Timeout(broker.patience, pool=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=timeout) as http:

        async def send(pushed: Pushed) -> int:
            try:
                answer = await http.post(EVENTS_PATH, content=pushed.body, headers=dict(pushed.headers))
            except httpx.TransportError:
                seen.append(None)
                raise
            seen.append(answer.status_code)
            return answer.status_code

        yield send


async def service_of(harness: PushHarness, process: Callable[[TotoMessage], Any], **options: Any) -> PushedService:
    return PushedService(await harness.connect(), harness.url, process, RETRY, **options)


async def test_service_that_is_away_for_a_minute_handles_every_message(broker: Broker, figure: Any) -> None:
    ids = [f"m-{number:02}" for number in range(50)]
    seen: list[int | None] = []
    port = aws_kit.free_port()
    service = await service_of(broker.harness, succeed)
    async with client(broker, port, seen) as send:
        began = time.monotonic()
        pushing = asyncio.create_task(broker.push(ids, send))
        await asyncio.sleep(AWAY)
        assert set(seen) == {None}
        failed = len(seen)
        async with serving(service, port):
            given_up = await pushing
        took = time.monotonic() - began
    assert given_up == []
    assert service.dead_lettered == []
    assert sorted(message.id for message in service.handled) == ids
    figure(
        f"{broker.name}: pushed to, away for {AWAY:g} s",
        f"{len(ids)} published, {failed} deliveries found nobody, {len(service.handled)} handled "
        f"{took - AWAY:.1f} s after the return, 0 dead-lettered",
    )


async def test_tenfold_overload_dead_letters_nothing(broker: Broker, figure: Any) -> None:
    at_work = most = 0

    async def process(message: TotoMessage) -> ProcessingResponse:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(HANDLER_SECONDS)
        at_work -= 1
        return succeed(message)

    ids = [f"m-{number:03}" for number in range(OFFERED)]
    seen: list[int | None] = []
    port = aws_kit.free_port()
    service = await service_of(broker.harness, process, max_concurrency=AT_ONCE)
    began = time.monotonic()
    async with client(broker, port, seen) as send, serving(service, port):
        given_up = await broker.push(ids, send)
    took = time.monotonic() - began
    assert given_up == []
    assert service.dead_lettered == []
    assert sorted({message.id for message in service.handled}) == ids
    assert most == AT_ONCE
    figure(
        f"{broker.name}: tenfold overload",
        f"{OFFERED} published, {len(seen)} deliveries, {seen.count(503)} answered 503, {seen.count(None)} not answered "
        f"in time, {len(service.handled)} handled in {took:.0f} s, {most} at a time, 0 dead-lettered",
    )
