"""What the log says while something fails: at once, each minute, when the reason changes, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from totoms.errors import AccessDenied, BackendError, Unavailable
from totoms.logging.logger import TotoLogger
from totoms.messages.outages import Outage


class Clock:
    """Monotonic seconds, and the time of day, which a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> float:
        return 1_700_000_000.0 + self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[Outage]:
    caplog.set_level(logging.INFO)
    return Outage("receive from blog-posts", TotoLogger("blog"), clock, clock.now)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def away(resource: str = "blog-posts", request_id: int = 0) -> Unavailable:
    error = Unavailable("The broker cannot be reached.", resource=resource)
    error.__cause__ = ConnectionRefusedError(f"refused, request {request_id}")
    return error


def test_first_failure_is_an_error_that_says_why(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.failed(away())
    assert lines(caplog) == [
        (
            "ERROR",
            "Cannot receive from blog-posts: The broker cannot be reached. "
            "(ConnectionRefusedError: refused, request 0)",
        )
    ]


def test_it_is_logged_each_minute_with_how_long_it_lasts(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(0, 3700, 5):
        clock.seconds = 1000.0 + number
        outage.failed(away(request_id=number))
    logged = [text.partition(":")[0] for _, text in lines(caplog)]
    assert len(logged) == 62
    assert logged[:3] == [f"Cannot receive from blog-posts{lasting}" for lasting in ("", " for 1 min", " for 2 min")]
    assert logged[-1] == "Cannot receive from blog-posts for 1 h 1 min"
    assert {level for level, _ in lines(caplog)} == {"ERROR"}
    assert "request 3660" in caplog.messages[-1], "the newest reason"


@pytest.mark.parametrize(
    "other", [AccessDenied("Denied.", resource="blog-posts"), away("another"), RuntimeError("bug")]
)
def test_another_reason_is_logged_at_once(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture, other: Exception
) -> None:
    outage.failed(away())
    clock.seconds += 7
    outage.failed(other)
    assert [text.partition(":")[0] for _, text in lines(caplog)] == [
        "Cannot receive from blog-posts",
        "Cannot receive from blog-posts for 7 s",
    ]


def test_reasons_that_alternate_are_logged_each_once_a_minute(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(60):
        outage.failed(away())
        outage.failed(BackendError("Throttled."))
        clock.seconds += 1
    assert len(lines(caplog)) == 2


def test_end_is_logged_once_and_the_next_outage_at_once(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage.ended()
    outage.failed(away())
    clock.seconds += 185
    outage.ended()
    outage.ended()
    outage.failed(away())
    assert [(level, text.partition(":")[0]) for level, text in lines(caplog)] == [
        ("ERROR", "Cannot receive from blog-posts"),
        ("INFO", "Can receive from blog-posts again after 3 min 5 s."),
        ("ERROR", "Cannot receive from blog-posts"),
    ]


def test_it_knows_since_when_and_why(outage: Outage, clock: Clock) -> None:
    assert (outage.failures, outage.since, outage.failure) == (0, None, "")
    began = clock.now()
    outage.failed(away())
    clock.seconds += 30
    outage.failed(AccessDenied("Denied."))
    assert (outage.failures, outage.since, outage.failure) == (2, began, "AccessDenied")
    outage.ended()
    assert (outage.failures, outage.since, outage.failure) == (0, None, "")
