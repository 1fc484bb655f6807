"""The outcome table: what a handler returns or raises, and how the message is settled."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.messages.kit import SUBSCRIPTION, Handler, make_router, succeed
from totoms import ConfigurationError, NonRetryableError, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.context import current_cid
from totoms.logging.describe import show_texts
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.messages.dead_letters import DeadLetterReason, place_of
from totoms.messages.message import encode_message
from totoms.messages.outcome import Action, Outcome
from totoms.messages.receiver import Received

SECRET = "canary-4711"


@pytest.fixture
def secret_value() -> Iterator[None]:
    """`SECRET` is the value of a secret."""
    remember_secret((__name__, "canary"), SECRET.encode())
    yield
    forget_secrets(__name__)


def delivery(message: TotoMessage | bytes | None = None, attempt: int = 1) -> Received:
    message = message if message is not None else TotoMessage(type="postCreated", cid="c-1", id="p-1")
    body = message if isinstance(message, bytes) else encode_message(message)
    return Received(body, "m-1", attempt, SUBSCRIPTION, {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})


def raising(error: BaseException) -> Handler:
    def process(_message: TotoMessage) -> Any:
        raise error

    return Handler(process)


def without_place(reason: DeadLetterReason) -> str:
    """Return the text of the exception, and check that the place of `raising` follows it."""
    text, place, rest = re.split(r" ?(\(at test_routing\.py:[0-9]+ in process\))$", reason.description)
    assert (bool(place), rest) == (True, "")
    return text


async def hang(_message: TotoMessage) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("status", [ProcessingStatus.SUCCESS, ProcessingStatus.IGNORED, "success", "ignored"])
async def test_success_and_ignored_settle_the_message(status: Any) -> None:
    outcome = await make_router(Handler(lambda _: ProcessingResponse(status))).handle(delivery())
    assert outcome.action is Action.ACK


@pytest.mark.parametrize(
    "handler",
    [
        Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED, error="no")),
        Handler(lambda _: None),
        Handler(lambda _: "success"),
        Handler(lambda _: ProcessingResponse("nonsense")),  # type: ignore[arg-type]
        raising(ValueError(SECRET)),
        raising(SystemExit(1)),
        raising(KeyboardInterrupt()),
        raising(MemoryError()),
        raising(RecursionError()),
        raising(asyncio.CancelledError()),
        raising(TimeoutError()),
        raising(StopIteration()),
        raising(BaseExceptionGroup(SECRET, [SystemExit()])),
    ],
)
@pytest.mark.usefixtures("secret_value")
async def test_every_other_answer_is_tried_again_and_the_log_says_why_without_secrets(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    router = make_router(handler)
    with caplog.at_level(logging.DEBUG):
        outcome = await router.handle(delivery())
    assert outcome.action is Action.RETRY
    assert router.counts.retried == 1
    assert SECRET not in caplog.text
    assert "m-1" in caplog.text


async def test_handler_that_hangs_is_cancelled_after_its_timeout() -> None:
    outcome = await make_router(Handler(hang), timeout=0.01).handle(delivery())
    assert outcome.action is Action.RETRY


async def test_last_attempt_is_dead_lettered_with_reason_attempts_and_error_class() -> None:
    outcome = await make_router(raising(ValueError("bad post"))).handle(delivery(attempt=3))
    assert outcome.action is Action.DEAD_LETTER
    assert outcome.reason is not None
    assert (outcome.reason.reason, outcome.reason.error_class) == ("attempts_exhausted", "ValueError")
    assert outcome.reason.attempts == 3
    assert without_place(outcome.reason) == "bad post"


async def test_non_retryable_error_is_dead_lettered_at_once() -> None:
    class PostIsGone(NonRetryableError):
        pass

    outcome = await make_router(raising(PostIsGone("it\nis gone"))).handle(delivery())
    assert outcome.action is Action.DEAD_LETTER
    assert outcome.reason is not None
    assert (outcome.reason.reason, outcome.reason.error_class) == ("non_retryable", "PostIsGone")
    assert without_place(outcome.reason) == "it is gone"


async def test_message_whose_consumers_died_on_every_attempt_is_dead_lettered_unhandled() -> None:
    handler = Handler(succeed)
    outcome = await make_router(handler).handle(delivery(attempt=4))
    assert outcome.action is Action.DEAD_LETTER
    assert outcome.reason is not None
    assert outcome.reason.reason == "lease_expired"
    assert handler.seen == []


async def test_unknown_type_is_ignored_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(Handler(succeed))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            outcome = await router.handle(delivery(TotoMessage(type="unheardOf")))
            assert outcome.action is Action.ACK
            assert outcome.ignored
    assert router.counts.ignored == 3
    assert caplog.text.count("unheardOf") == 1


def _deep(levels: int) -> bytes:
    return b'{"type":"postCreated","data":' + b"[" * levels + b"]" * levels + b"}"


UNDECODABLE = {
    "empty": b"",
    "not JSON": b"hello",
    "not UTF-8": b'{"type":"\xff\xfe"}',
    "an array": b"[1]",
    "a string": b'"postCreated"',
    "null": b"null",
    "NaN": b'{"type":"postCreated","data":NaN}',
    "NaN beside a long integer": b'{"type":"postCreated","data":[12345678901234567890,NaN]}',
    "integer of 5,000 digits": b'{"type":"postCreated","data":' + b"9" * 5000 + b"}",
    "depth 100,000": _deep(100_000),
    "depth 100,000 beside a long integer": _deep(100_000).replace(b"{", b'{"n":12345678901234567890,', 1),
    "lone surrogate beside a long integer": b'{"type":"postCreated","data":[12345678901234567890,"\\ud800"]}',
    "lone surrogate": b'{"type":"postCreated","data":"\\ud800"}',
    "NUL byte": b'{"type":"postCreated"\x00}',
}


@pytest.mark.parametrize("body", UNDECODABLE.values(), ids=UNDECODABLE.keys())
async def test_poison_is_dead_lettered_unhandled_and_the_next_message_is_fine(body: bytes) -> None:
    handler = Handler(succeed)
    router = make_router(handler)
    outcome = await router.handle(delivery(body))
    assert outcome.action is Action.DEAD_LETTER
    assert outcome.reason is not None
    assert outcome.reason.reason == "undecodable"
    assert handler.seen == []
    assert (await router.handle(delivery())).action is Action.ACK


FOREIGN = {
    "no type": b'{"cid":"c","id":"i","data":{}}',
    "empty type": b'{"type":""}',
    "type null": b'{"type":null}',
    "another cloud's envelope": b'{"message":{"data":"e30="},"subscription":"projects/p/subscriptions/s"}',
    "nothing": b"{}",
}


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN.keys())
async def test_object_without_a_type_is_ignored_counted_and_logged_once(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler(succeed)
    router = make_router(handler)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await router.handle(delivery(body)) == Outcome(Action.ACK, ignored=True)
    assert (handler.seen, router.counts.ignored, router.counts.dead_lettered) == ([], 3, 0)
    assert caplog.text.count("A JSON object without a message type came from blog-posts") == 1


async def test_type_in_the_attributes_is_used_if_the_broker_authenticates_them() -> None:
    handler = Handler(succeed)
    received = delivery(b'{"id":7,"data":{"n":1}}')
    received.attributes = {"messageType": "postCreated"}
    assert (await make_router(handler).handle(received)).action is Action.ACK
    (message,) = handler.seen
    assert (message.type, message.id, message.cid, message.data) == ("postCreated", "7", "", {"n": 1})
    received.attributes_vouched = False
    assert (await make_router(handler).handle(received)).ignored
    assert len(handler.seen) == 1


async def test_undecodable_envelope_is_dead_lettered_although_it_looks_like_a_message() -> None:
    handler = Handler(succeed)
    received = delivery(b'{"type":"postCreated"}')
    received.undecodable = "the push brings no message"
    outcome = await make_router(handler).handle(received)
    assert outcome.reason is not None
    assert (outcome.reason.reason, outcome.reason.description) == ("undecodable", "the push brings no message")
    assert handler.seen == []


async def test_handler_sees_message_delivery_and_correlation_id() -> None:
    cids: list[str] = []

    def process(_message: TotoMessage) -> ProcessingResponse:
        cids.append(current_cid.get())
        assert TotoMessage(type="next").cid == "c-1"
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    handler = Handler(process)
    await make_router(handler).handle(delivery(attempt=2))
    (message,) = handler.seen
    assert (message.cid, message.id, message.type) == ("c-1", "p-1", "postCreated")
    assert message.delivery is not None
    assert (message.delivery.message_id, message.delivery.attempt, message.delivery.redelivered) == ("m-1", 2, True)
    assert (message.delivery.topic, message.delivery.subscription) == ("posts", "blog-posts")
    assert cids == ["c-1"]


async def test_plain_function_handler_runs_in_a_worker_thread() -> None:
    import threading

    names: list[str] = []

    class Plain:
        def get_handled_message_type(self) -> str:
            return "postCreated"

        def process_message(self, message: TotoMessage) -> ProcessingResponse:
            names.append(threading.current_thread().name)
            assert current_cid.get() == message.cid
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    outcome = await make_router(Plain()).handle(delivery())
    assert outcome.action is Action.ACK
    assert names != [threading.main_thread().name]


async def test_cancellation_of_the_task_itself_is_not_taken_for_a_failure() -> None:
    started = asyncio.Event()

    async def process(_message: TotoMessage) -> Any:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(make_router(Handler(process)).handle(delivery()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("bad", ["", None, 7])
def test_handler_without_a_type_is_refused_by_name(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="Handler"):
        make_router(Handler(succeed, bad))


def test_second_handler_for_a_type_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="postCreated"):
        make_router(Handler(succeed), Handler(succeed))


@pytest.mark.usefixtures("secret_value")
async def test_reason_of_a_dead_letter_has_the_text_with_secrets_masked() -> None:
    outcome = await make_router(raising(NonRetryableError(f"{SECRET} is refused"))).handle(delivery())
    assert outcome.reason is not None
    assert without_place(outcome.reason) == "*** is refused"
    failed = Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED, error=f"{SECRET} is refused"))
    outcome = await make_router(failed, max_attempts=1).handle(delivery())
    assert outcome.reason is not None
    assert outcome.reason.description == "*** is refused"


async def test_reason_of_a_dead_letter_names_the_line_of_the_service_and_not_that_of_a_library() -> None:
    def parse(message: TotoMessage) -> None:
        json.loads("no JSON")

    outcome = await make_router(Handler(parse), max_attempts=1).handle(delivery())
    assert outcome.reason is not None
    line = parse.__code__.co_firstlineno + 1
    assert outcome.reason.description.endswith(f" (at test_routing.py:{line} in parse)")
    assert place_of(outcome.reason) == f"test_routing.py:{line}"


async def test_long_text_of_an_exception_leaves_room_for_the_place() -> None:
    outcome = await make_router(raising(ValueError("long text " * 500)), max_attempts=1).handle(delivery())
    assert outcome.reason is not None
    assert len(outcome.reason.description) == 1000
    assert place_of(outcome.reason).startswith("test_routing.py:")


async def test_handler_that_returns_failed_has_no_place() -> None:
    failed = Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED, error="no (at all)"))
    outcome = await make_router(failed, max_attempts=1).handle(delivery())
    assert outcome.reason is not None
    assert (outcome.reason.description, place_of(outcome.reason)) == ("no (at all)", "")


async def test_reason_of_a_dead_letter_has_no_text_where_the_declaration_says_class() -> None:
    show_texts(False)
    try:
        outcome = await make_router(raising(ValueError("of the handler")), max_attempts=1).handle(delivery())
    finally:
        show_texts(True)
    assert outcome.reason is not None
    assert (outcome.reason.error_class, without_place(outcome.reason)) == ("ValueError", "")


async def test_failure_of_a_handler_is_logged_with_class_text_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    await make_router(raising(ValueError("of the handler"))).handle(delivery())
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.exc_text is not None
    assert record.exc_text.startswith("Traceback (most recent call last):")
    assert record.exc_text.endswith("builtins.ValueError: of the handler")
    await make_router(Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED, error="no room"))).handle(
        delivery()
    )
    assert "the handler returned FAILED: no room" in caplog.text


async def test_long_type_that_a_stranger_chose_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "totoms")
    await make_router().handle(delivery(TotoMessage(type="x" * 200_000)))
    (line,) = [record.getMessage() for record in caplog.records if "No handler" in record.getMessage()]
    assert len(line) < 300
