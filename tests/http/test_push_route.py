"""The route of the push endpoint in a whole app: its own limit for bodies, and why a push was refused in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.local.push import LocalPushHarness
from totoms.errors import Unavailable
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.message import TotoMessage, encode_message
from totoms.testing import Pushed
from totoms.testing.push.base import BODY, RETRY
from totoms.testing.push.service import MESSAGE_TYPE, PushedService, succeed

LARGE = 12 * 1024 * 1024


class LargeBus(LocalMessageBus):
    """A broker whose messages are larger than what the API takes by default."""

    max_push_bytes = LARGE


class Through:
    """A middleware of the service's own: with one the request takes FastAPI's way."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, *arguments: Any) -> None:
        await self._app(*arguments)


class SmallBus(LocalMessageBus):
    max_push_bytes = 1000


async def serve(root: Path, bus_class: type[LocalMessageBus] = LocalMessageBus) -> tuple[PushedService, Any]:
    harness = LocalPushHarness(root / "root", bus_class)
    return PushedService(await harness.connect(), harness.url, succeed, RETRY), harness


def message_of(size: int) -> bytes:
    empty = len(encode_message(TotoMessage(type=MESSAGE_TYPE, id="large", data={"text": ""})))
    return encode_message(TotoMessage(type=MESSAGE_TYPE, id="large", data={"text": "x" * (size - empty)}))


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("size", "status"), [(LARGE, 200), (LARGE + 1, 413)])
async def test_push_endpoint_has_a_limit_of_its_own(
    tmp_path: Path, middleware: bool, announced: bool, size: int, status: int
) -> None:
    service, harness = await serve(tmp_path, LargeBus)
    if middleware:
        service._app.add_middleware(Through)
    pushed = await harness.genuine(message_of(size))

    async def pieces() -> Any:
        for begin in range(0, len(pushed.body), 1024 * 1024):
            yield pushed.body[begin : begin + 1024 * 1024]

    content = pushed.body if announced else pieces()
    answer = await service._client.post("/events", content=content, headers=dict(pushed.headers))
    assert answer.status_code == status
    other = await service._client.post("/elsewhere", content=pushed.body)
    assert other.status_code == 413, "the limit of all other paths stays as it is"
    await harness.close()


async def test_limit_of_the_push_endpoint_may_be_smaller_than_that_of_the_others(tmp_path: Path) -> None:
    service, harness = await serve(tmp_path, SmallBus)
    assert (await service.send(await harness.genuine(BODY))).status_code == 200
    assert (await service.send(await harness.genuine(message_of(1001)))).status_code == 413
    await harness.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("POST /events")]


@pytest.mark.parametrize(
    ("forgery", "status", "reason"),
    [("no credentials", 401, "A push token is required"), ("wrong topic", 403, "not one of this service's")],
)
async def test_refused_push_leaves_its_reason_in_the_log_with_the_cid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, forgery: str, status: int, reason: str
) -> None:
    service, harness = await serve(tmp_path)
    forged: Mapping[str, Pushed | str] = await harness.forgeries(BODY)
    pushed = forged[forgery]
    assert isinstance(pushed, Pushed)
    with caplog.at_level(logging.INFO):
        answer = await service.send(Pushed(pushed.body, {**pushed.headers, "x-correlation-id": "cid-of-the-push"}))
    (line,) = lines(caplog)
    assert f"POST /events {status}" in line
    assert reason in line
    assert answer.headers["x-correlation-id"] == "cid-of-the-push"
    await harness.close()


async def test_push_that_cannot_be_verified_leaves_what_the_backend_said_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(LocalMessageBus):
        async def _accept_push(self, request: Any) -> Any:
            raise Unavailable("The key server answered\n503.")

    service, harness = await serve(tmp_path, Away)
    with caplog.at_level(logging.INFO):
        answer = await service.send(await harness.genuine(BODY))
    assert (answer.status_code, answer.json()["message"]) == (503, "The push cannot be verified now.")
    (line,) = lines(caplog)
    assert "The push cannot be verified now. (The key server answered 503.)" in line
    await harness.close()
