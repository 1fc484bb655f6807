"""A provider of OpenTelemetry that raises loses no message, and fails no call of a backend."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from messages.test_consumer import POST, consuming, settled
from support.messages.kit import SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from telemetry.test_spans import POSTS, SECRET, Bus, delivery
from totoms import (
    NonRetryableError,
    ProcessingResponse,
    ProcessingStatus,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    lifecycle,
)
from totoms.context import current_traceparent
from totoms.logging.formats import JSONFormatter
from totoms.logging.handler import BatchHandler
from totoms.logging.logger import TotoLogger
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.messages.outcome import Action
from totoms.telemetry import guard, setup, state
from totoms.telemetry.telemetry import Telemetry
from totoms.testing.spans import recorded_spans


class Broken(Exception):
    pass


def fail(*_: Any, **__: Any) -> Any:
    raise Broken("the provider is broken")


class FailingSampler(Sampler):
    should_sample = fail

    def get_description(self) -> str:
        return "fails"


class FailsAtStart(SpanProcessor):
    on_start = fail


class FailsAtEnd(SpanProcessor):
    on_end = fail


class FailingSpan(trace.NonRecordingSpan):
    """Fails in each method that totoms calls."""

    is_recording = set_attribute = set_status = add_event = end = get_span_context = fail


class FailingTracer:
    def start_span(self, *_: Any, **__: Any) -> Any:
        return FailingSpan(trace.INVALID_SPAN_CONTEXT)


def _provider(kind: str) -> Any:
    if kind == "spans":
        return SimpleNamespace(get_tracer=lambda *_: FailingTracer())
    provider = TracerProvider(FailingSampler() if kind == "sampler" else ALWAYS_ON, shutdown_on_exit=False)
    if kind != "sampler":
        provider.add_span_processor(FailsAtStart() if kind == "start" else FailsAtEnd())
    return provider


class FailingInstrument:
    add = record = set = fail


class FailingMeters:
    def get_meter(self, *_: Any) -> Any:
        made = FailingInstrument()
        names = ("counter", "histogram", "up_down_counter", "gauge", "observable_gauge")
        return SimpleNamespace(**{f"create_{name}": lambda *_, **__: made for name in names})


@pytest.fixture(params=["sampler", "start", "end", "spans"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(guard, "_next", 0.0)
    meters: Any = FailingMeters()
    with recorded_spans():
        state.active = Telemetry(_provider(request.param), meters, "0")
        yield


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.mark.usefixtures("failing")
async def test_messages_are_received_handled_and_acked(bus: MemoryBus) -> None:
    first = await bus.put(POST, SUBSCRIPTION)
    async with consuming(bus, make_router(Handler(succeed))):
        await bus.until(lambda: settled(bus, "ack") == [first.message_id])
        second = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [first.message_id, second.message_id])


@pytest.mark.usefixtures("failing")
async def test_messages_are_dead_lettered_once(bus: MemoryBus) -> None:
    def refuse(_message: TotoMessage) -> ProcessingResponse:
        raise NonRetryableError("never")

    first = await bus.put(POST, SUBSCRIPTION)
    async with consuming(bus, make_router(Handler(refuse))):
        await bus.until(lambda: settled(bus, "dead_letter") == [first.message_id])


@pytest.mark.usefixtures("failing")
async def test_outcome_of_a_handler_is_kept() -> None:
    def give_up(_message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.FAILED, "no")

    router = make_router(Handler(succeed), Handler(give_up, "postHidden"))
    assert (await router.handle(delivery())).action is Action.ACK
    assert (await router.handle(delivery(message_type="postHidden"))).action is Action.RETRY


@pytest.mark.usefixtures("failing")
async def test_messages_are_published_once() -> None:
    bus = Bus()
    await bus.publish_message(POSTS, TotoMessage(type="postCreated"))
    await bus.publish_messages(POSTS, [TotoMessage(type="postCreated"), TotoMessage(type="postHidden")])
    assert len(bus.sent) == 3


@pytest.mark.usefixtures("failing")
def test_calls_of_backends_continue() -> None:
    assert state.active is not None
    with state.span("storage stat", {}):
        state.active.annotate_request("c-1")
        state.count_key_fetch("host", failed=False)
        state.active.instruments.service.verified("accepted")
        state.active.instruments.service.committed(1, 1)


async def test_failure_of_the_provider_is_logged_once_a_minute(
    failing: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus()
    await bus.publish_messages(POSTS, [TotoMessage(type="postCreated")] * 5)
    lines = [record.getMessage() for record in caplog.records if "could not be recorded" in record.getMessage()]
    assert len(lines) == 1
    assert "Broken" in lines[0]


async def test_text_that_a_handler_returned_with_a_failure_is_masked_on_the_span() -> None:
    def give_up(_message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.FAILED, error=f"cannot log in with {SECRET}")

    remember_secret((__name__, "canary"), SECRET.encode())
    try:
        with recorded_spans() as spans:
            await make_router(Handler(give_up)).handle(delivery())
    finally:
        forget_secrets(__name__)
    (span,) = spans.all()
    assert span.status.description is not None
    assert SECRET not in span.status.description
    assert "cannot log in" in span.status.description


@pytest.mark.usefixtures("local_root")
@pytest.mark.parametrize("how", ["hangs", "raises"])
async def test_service_stops_although_the_last_export_fails(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "totoms")
    released = threading.Event()
    monkeypatch.setattr(setup, "flush", released.wait if how == "hangs" else fail)
    monkeypatch.setattr(lifecycle, "_FLUSH_PATIENCE", 0.05 if how == "hangs" else 60.0)
    with recorded_spans():
        service = await TotoMicroservice.init(TotoMicroserviceConfiguration(service_name="blog"))
        try:
            await service.stop()
        finally:
            released.set()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "The last spans and metrics may be missing" in text
    assert "blog has stopped" in text


def test_service_starts_although_the_provider_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: SimpleNamespace(get_tracer=fail))
    setup.configure("blog", "1", TotoLogger("blog"))
    assert state.active is None
    assert "Traces and metrics are off: Broken" in caplog.text


@contextmanager
def kept_current(span: Any) -> Iterator[None]:
    token = attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        detach(token)


def test_span_that_raises_loses_no_line_of_the_log() -> None:
    stream = io.StringIO()
    handler = BatchHandler(stream)
    handler.setFormatter(JSONFormatter())
    span: Any = FailingSpan(trace.INVALID_SPAN_CONTEXT)
    logging.getLogger("totoms").addHandler(handler)
    try:
        with recorded_spans(), kept_current(span):
            TotoLogger("blog").warning("kept")
            assert current_traceparent() == ""
    finally:
        logging.getLogger("totoms").removeHandler(handler)
    handler.flush()
    assert "kept" in stream.getvalue()
