"""Readiness checks: what ``/ready`` answers, how often they run, and what a hung one does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from totoms import TotoMicroserviceConfiguration, health
from totoms.health import Readiness
from totoms.logging.logger import TotoLogger
from totoms.testing import TestMicroservice


async def answers(config: Any) -> None: ...


def readiness(*checks: Any, now: list[float] | None = None) -> Readiness:
    times = now or [100.0]
    return Readiness(checks, None, TotoLogger("tested"), clock=lambda: times[0])  # type: ignore[arg-type]


async def test_ready_lists_checks_by_name_with_ok_or_the_class_of_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    up = False
    seen: list[Any] = []

    async def database(config: Any) -> None:
        seen.append(config)
        if not up:
            raise ConnectionRefusedError("10.0.0.7 refuses the password hunter22")

    declared = TotoMicroserviceConfiguration(service_name="tested", readiness_checks=[answers, database])
    async with TestMicroservice(declared) as service:
        answer = await service.client_of(None).get("/ready")
        assert answer.status_code == 503
        body = answer.json()
        assert body.pop("cid")
        assert body == {
            "code": 503,
            "message": "Not ready: database",
            "detail": "Not ready: database",
            "checks": {"answers": "ok", "database": "ConnectionRefusedError"},
        }
        assert answer.headers["retry-after"] == "1"
        (record,) = [record for record in caplog.records if "Not ready" in record.getMessage()]
        assert record.getMessage() == "Not ready: the check database failed"
        assert "ConnectionRefusedError: 10.0.0.7" in (record.exc_text or "")
        up = True
        service.microservice.readiness._known_until = 0.0
        answer = await service.client_of(None).get("/ready")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ready", "checks": {"answers": "ok", "database": "ok"}},
        )
        assert "The check database succeeds again." in caplog.messages
        assert seen[0] is service.microservice.config


async def test_checks_run_at_most_once_a_second_however_many_ask() -> None:
    runs = 0

    async def counted(config: Any) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)

    now = [100.0]
    checked = readiness(counted, now=now)
    await asyncio.gather(*(checked.results() for _ in range(10)))
    await checked.results()
    assert runs == 1
    now[0] += health.CHECK_INTERVAL
    assert await checked.results() == {"counted": "ok"}
    assert runs == 2


async def test_check_that_hangs_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hung(config: Any) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if ending:
                    raise

    ending: list[bool] = []
    monkeypatch.setattr(health, "CHECK_DEADLINE", 0.01)
    assert await readiness(hung).results() == {"hung": "TimeoutError"}
    ending.append(True)


async def test_caller_that_disconnects_does_not_cancel_the_check_for_others() -> None:
    go_on = asyncio.Event()

    async def slow(config: Any) -> None:
        await go_on.wait()

    checked = readiness(slow)
    impatient = asyncio.create_task(checked.results())
    patient = asyncio.create_task(checked.results())
    await asyncio.sleep(0)
    impatient.cancel()
    go_on.set()
    assert await patient == {"slow": "ok"}


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_no_exception_of_a_check_stops_the_service(error: BaseException) -> None:
    async def bad(config: Any) -> None:
        raise error

    assert await readiness(bad).results() == {"bad": type(error).__name__}
