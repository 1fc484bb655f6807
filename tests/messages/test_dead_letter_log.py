"""The log of dead letters: one ERROR each, with the handler, the reason and the id of the letter."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from support.messages.by_name import Through
from support.messages.kit import SUBSCRIPTION, MemoryBus
from totoms import NonRetryableError, ProcessingResponse, ProcessingStatus, TotoEvent, TotoMessage
from totoms.errors import LeaseLost
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.consumer import Consumer
from totoms.messages.dead_letter_log import dead_letter
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.handler import TotoMessageHandler
from totoms.messages.message import encode_message
from totoms.messages.outcome import Action, Outcome
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import RetryPolicy

CID = "cid-of-the-message"
RETRY = RetryPolicy(3, 0.0, 0.0)


class PostCreated(TotoEvent, type="postCreated"):
    title: str


class AddToDigest(TotoMessageHandler):
    """A handler whose result a test decides."""

    def __init__(self, result: Any = None) -> None:
        self._result = result

    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> Any:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


class AddEvent(TotoMessageHandler[PostCreated]):
    def __init__(self) -> None: ...

    async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...


def message(kind: str = "postCreated", **fields: Any) -> TotoMessage:
    return TotoMessage(type=kind, cid=CID, **fields)


CASES: dict[str, tuple[TotoMessageHandler[Any, Any], TotoMessage | bytes, int, str]] = {
    "an exception": (
        AddToDigest(ValueError("as the test says")),
        message(),
        3,
        "of type postCreated of blog-posts, attempts_exhausted in attempt 3 of AddToDigest, letter letter-1: ValueErr",
    ),
    "not retryable": (
        AddToDigest(NonRetryableError("never")),
        message(),
        1,
        "of type postCreated of blog-posts, non_retryable in attempt 1 of AddToDigest, letter letter-1: NonRetryable",
    ),
    "FAILED": (
        AddToDigest(ProcessingResponse(ProcessingStatus.FAILED, error="no room")),
        message(),
        3,
        "of type postCreated of blog-posts, attempts_exhausted in attempt 3 of AddToDigest, letter letter-1: "
        "the handler returned FAILED: no room",
    ),
    "a wrong result": (
        AddToDigest({"status": "success"}),
        message(),
        3,
        "attempts_exhausted in attempt 3 of AddToDigest, letter letter-1: AddToDigest returned a dict",
    ),
    "expired leases": (
        AddToDigest(),
        message(),
        4,
        "lease_expired in attempt 4 of AddToDigest, letter letter-1: every lease expired",
    ),
    "invalid data": (
        AddEvent(),
        message(data={"title": 7}),
        1,
        "of type postCreated of blog-posts, invalid in attempt 1 of AddEvent, letter letter-1: PostCreated: title",
    ),
    "no message": (AddToDigest(), b"not JSON", 1, "of blog-posts, undecodable in attempt 1, letter letter-1: "),
}


def router(handler: TotoMessageHandler[Any, Any]) -> MessageRouter:
    return MessageRouter([handler], retry=RETRY, timeout=60.0, logger=TotoLogger("blog"))


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("case", CASES)
async def test_dead_letter_of_a_pulled_message_is_one_error(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    handler, body, attempt, text = CASES[case]
    consumer = Consumer(Through(bus, SUBSCRIPTION), router(handler), max_concurrency=1, logger=TotoLogger("blog"))
    consumer.start()
    received = await bus.put(body, SUBSCRIPTION, attempt)
    await bus.until(lambda: bool(bus.dead))
    await consumer.stop(60.0)
    (record,) = lines(caplog)
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"Dead-lettered message {received.message_id} ")
    assert text in record.getMessage()
    assert vars(record)["cid"] == ("events" if isinstance(body, bytes) else CID)
    assert ("as the test says" in (record.exc_text or "")) == (case == "an exception")


async def test_message_that_cannot_be_dead_lettered_is_one_error_with_both_failures(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    handler, _, attempt, _ = CASES["an exception"]
    received = await bus.put(message(), SUBSCRIPTION, attempt)
    (received,) = await bus._receive(SUBSCRIPTION, 1, 1.0)
    bus.away = True
    consumer = Consumer(Through(bus, SUBSCRIPTION), router(handler), max_concurrency=1, logger=TotoLogger("blog"))
    await consumer._process(received)
    (record,) = lines(caplog)
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"Cannot dead-letter message {received.message_id} of type postCreated")
    assert "the broker is away; it is delivered again: ValueError at" in record.getMessage()
    assert "as the test says" in (record.exc_text or "")


async def test_lost_lease_is_a_warning_in_one_sentence(bus: MemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    await bus.put(message(), SUBSCRIPTION)
    (received,) = await bus._receive(SUBSCRIPTION, 1, 1.0)
    error = LeaseLost("The lease of message 1 was lost.")

    async def keep(*_: object) -> str | None:
        raise error

    outcome = Outcome(Action.DEAD_LETTER, DeadLetterReason("lease_expired"))
    assert await dead_letter(keep, received, outcome, TotoLogger("blog"), "memory") is error
    (record,) = lines(caplog)
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(": The lease of message 1 was lost; it is delivered again.")


async def test_dead_letter_of_a_pushed_message_is_one_error(bus: MemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    handler, _, _, _ = CASES["not retryable"]
    pushed: MessageBus = bus
    endpoint = PushEndpoint(pushed, router(handler), max_concurrency=1, url=None, logger=TotoLogger("blog"))
    (received,) = [await bus.put(encode_message(message()), SUBSCRIPTION)]
    await endpoint._handle([received])
    (record,) = lines(caplog)
    assert record.levelname == "ERROR"
    assert "non_retryable in attempt 1 of AddToDigest, letter letter-1: NonRetryableError at" in record.getMessage()
