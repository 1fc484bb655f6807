"""What ``/health`` says of a service, and what ``/ready`` says of its subscriptions while the broker is away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from totoms import (
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    TotoMessage,
    TotoMicroserviceConfiguration,
    toto_handler,
)
from totoms.errors import Unavailable
from totoms.local.messages.receiver import LocalReceiver
from totoms.testing import TestMicroservice

DEADLINE = 120.0
SECRET = "arn:aws:sns:eu-north-1:123456789012:posts"


@toto_handler(type="postCreated")
async def add_to_digest(message: TotoMessage) -> None: ...


def declared(**bus: Any) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        version="1.4.0",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
            message_handlers=[MessageBusHandlerConfig(handler=add_to_digest)],
            **bus,
        ),
    )


async def until_ready_says(service: TestMicroservice, condition: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(DEADLINE):
        while True:
            await asyncio.sleep(0)  # the client of a test never waits
            answer = await service.client_of(None).get("/ready")
            if condition(answer.json()["subscriptions"]["blog-posts"]):
                return answer


async def test_health_says_what_runs_since_when_and_on_what() -> None:
    async with TestMicroservice(declared()) as service:
        health = (await service.client_of(None).get("/health")).json()
    uptime = health.pop("uptime")
    assert isinstance(uptime, int)
    assert 0 <= uptime < DEADLINE
    assert health == {
        "status": "ok",
        "apiName": "blog",
        "message": "Service is running",
        "name": "blog",
        "version": "1.4.0",
        "backend": "testing",
    }


@pytest.mark.parametrize("needed", [False, True])
async def test_ready_says_since_when_a_subscription_cannot_receive(
    monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    whole = LocalReceiver.receive
    away = False

    async def receive(receiver: LocalReceiver, *arguments: Any) -> Any:
        if away:
            raise Unavailable(f"{SECRET} cannot be reached.", resource=SECRET) from OSError(SECRET)
        return await whole(receiver, *arguments)

    monkeypatch.setattr("totoms.messages.consumer._WAIT", 0.01)
    monkeypatch.setattr(LocalReceiver, "receive", receive)
    async with TestMicroservice(declared(away_is_unready=needed)) as service:
        answer = await service.client_of(None).get("/ready")
        assert answer.status_code == 200
        assert answer.json() == {"status": "ready", "subscriptions": {"blog-posts": {"state": "receiving"}}}
        away = True
        answer = await until_ready_says(service, lambda shown: shown["state"] == "away")
        assert answer.status_code == (503 if needed else 200)
        shown = answer.json()["subscriptions"]["blog-posts"]
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown.pop("since"))
        assert shown == {"state": "away", "failure": "Unavailable"}
        assert "arn:" not in answer.text
        if needed:
            assert answer.json()["message"] == "Not ready: blog-posts"
            assert answer.headers["retry-after"] == "1"
        away = False
        answer = await until_ready_says(service, lambda shown: shown["state"] == "receiving")
        assert answer.status_code == 200
