"""The spans of messages, files and secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from support.messages.kit import SUBSCRIPTION, Handler, make_router, succeed
from totoms import MessageDestination, NonRetryableError, TotoMessage
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, NotFound, Unavailable
from totoms.local.configuration import LocalConfiguration
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.messages.bus import MessageBus
from totoms.messages.message import encode_message
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received
from totoms.storage.storage import CloudStorage
from totoms.telemetry.trace_context import creation_context
from totoms.testing.spans import RecordedSpans, recorded_spans

POSTS = MessageDestination(topic="posts")
TRACE, CREATOR = "a" * 32, "b" * 16
SECRET = "canary-4711"


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    with recorded_spans() as recorded:
        yield recorded


class Bus(MessageBus):
    """Keeps what is published; fails with `error`, if there is one."""

    capabilities = frozenset()

    def __init__(self, error: BackendError | None = None) -> None:
        super().__init__(TotoEnvironment("local"), {"posts": "t"})
        self.sent: list[Outgoing] = []
        self.error = error

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        self.sent += batch
        return [self.error] * len(batch)


def delivery(traceparent: str = f"00-{TRACE}-{CREATOR}-01", message_type: str = "postCreated") -> Received:
    body = encode_message(TotoMessage(type=message_type, cid="c-1"))
    return Received(body, "m-1", 1, SUBSCRIPTION, {"traceparent": traceparent})


async def test_message_carries_the_context_of_its_producer_span(spans: RecordedSpans) -> None:
    bus = Bus()
    await bus.publish_message(POSTS, TotoMessage(type="postCreated"))
    (span,) = spans.all()
    (outgoing,) = bus.sent
    assert (span.name, span.kind) == ("publish posts", SpanKind.PRODUCER)
    carried = creation_context(outgoing.attributes["traceparent"])
    assert carried is not None
    assert (carried.trace_id, carried.span_id) == (span.context.trace_id, span.context.span_id)
    assert span.attributes["messaging.system"] == "local"
    assert span.attributes["messaging.message.id"] == outgoing.message_id
    assert span.attributes["messaging.message.body.size"] == len(outgoing.body)
    assert span.attributes["totoms.message.type"] == "postCreated"


async def test_each_message_of_a_batch_has_its_own_span_and_the_call_links_to_them(spans: RecordedSpans) -> None:
    bus = Bus()
    await bus.publish_messages(POSTS, [TotoMessage(type="postCreated") for _ in range(3)])
    *created, sent = spans.all()
    assert [span.name for span in created] == ["create posts"] * 3
    assert {span.kind for span in created} == {SpanKind.PRODUCER}
    assert (sent.name, sent.kind) == ("publish posts", SpanKind.CLIENT)
    assert sent.attributes["messaging.batch.message_count"] == 3
    ids = [span.context.span_id for span in created]
    assert [link.context.span_id for link in sent.links] == ids
    carried = [creation_context(outgoing.attributes["traceparent"]) for outgoing in bus.sent]
    assert [context.span_id for context in carried if context is not None] == ids


async def test_empty_batch_has_no_span(spans: RecordedSpans) -> None:
    assert await Bus().publish_messages(POSTS, []) == []
    assert spans.all() == []


async def test_failed_publish_marks_its_span(spans: RecordedSpans) -> None:
    with pytest.raises(Unavailable):
        await Bus(Unavailable("The broker is away.")).publish_message(POSTS, TotoMessage(type="postCreated"))
    (span,) = spans.all()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "Unavailable"


async def test_pulled_message_continues_the_trace_of_its_producer(spans: RecordedSpans) -> None:
    await make_router(Handler(succeed)).handle(delivery())
    (span,) = spans.all()
    assert (span.name, span.kind) == (f"process {SUBSCRIPTION.logical_name}", SpanKind.CONSUMER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert spans.parent(span) == CREATOR
    assert [spans.format(link.context.span_id) for link in span.links] == [CREATOR]
    assert span.attributes["messaging.message.conversation_id"] == "c-1"
    assert span.attributes["totoms.message.outcome"] == "ack"


async def test_pushed_message_is_a_child_of_its_request_and_links_to_its_producer(spans: RecordedSpans) -> None:
    request = trace.SpanContext(int("c" * 32, 16), int("d" * 16, 16), is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(request)):
        await make_router(Handler(succeed)).handle(delivery())
    (span,) = spans.all()
    assert spans.parent(span) == "d" * 16
    assert [spans.format(link.context.span_id) for link in span.links] == [CREATOR]


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{CREATOR}-01"])
async def test_message_without_a_valid_traceparent_begins_a_trace(spans: RecordedSpans, traceparent: str) -> None:
    await make_router(Handler(succeed)).handle(delivery(traceparent))
    (span,) = spans.all()
    assert span.parent is None
    assert not span.links


@pytest.mark.parametrize("error", [RuntimeError(f"password {SECRET}"), NonRetryableError(f"password {SECRET}")])
async def test_failed_handler_marks_its_span_and_secrets_are_masked(spans: RecordedSpans, error: Exception) -> None:
    def fail(_message: TotoMessage) -> None:
        raise error

    remember_secret((__name__, "canary"), SECRET.encode())
    try:
        await make_router(Handler(fail)).handle(delivery())
    finally:
        forget_secrets(__name__)
    (span,) = spans.all()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == type(error).__name__
    (event,) = span.events
    assert event.name == "exception"
    assert "in fail" in event.attributes["exception.stacktrace"]
    assert SECRET not in span.to_json()


async def test_old_name_of_the_operation_is_added_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, messaging/dup")
    with recorded_spans() as spans:
        await Bus().publish_message(POSTS, TotoMessage(type="postCreated"))
    (span,) = spans.all()
    assert span.attributes["messaging.operation"] == span.attributes["messaging.operation.name"] == "publish"


async def test_trace_of_the_caller_goes_on_without_a_server_span(spans: RecordedSpans) -> None:
    from totoms import context

    context.remember_traceparent(f"00-{TRACE}-{CREATOR}-01")
    try:
        await Bus().publish_message(POSTS, TotoMessage(type="postCreated"))
    finally:
        context.remember_traceparent(None)
    assert spans.parent(spans.only("publish posts", TRACE)) == CREATOR


def test_files_have_spans_that_name_the_bucket_and_not_the_key(spans: RecordedSpans, tmp_path: Path) -> None:
    environment = TotoEnvironment("local", LocalConfiguration(root=tmp_path))
    storage = CloudStorage("files", environment=environment)
    key = f"{new_cid()}.txt"
    storage.upload_bytes(b"x", key)
    storage.get_file_bytes(key)
    assert storage.exists("missing") is False
    storage.delete_file(key)
    names = [span.name for span in spans.all()]
    assert names == ["storage upload", "storage open", "storage download", "storage stat", "storage delete"]
    assert {span.attributes["totoms.storage.bucket"] for span in spans.all()} == {"files"}
    assert key not in "".join(span.to_json() for span in spans.all())


def test_missing_file_is_an_answer_and_not_a_failure(spans: RecordedSpans, tmp_path: Path) -> None:
    storage = CloudStorage("files", environment=TotoEnvironment("local", LocalConfiguration(root=tmp_path)))
    with pytest.raises(NotFound):
        storage.stat("missing")
    (span,) = spans.all()
    assert span.attributes["error.type"] == "NotFound"
    assert span.status.status_code is StatusCode.UNSET
