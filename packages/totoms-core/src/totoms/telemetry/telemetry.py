"""Spans and metrics of messages, files and secrets.

Names and attributes are those of the semantic conventions 1.44, which FastAPI's own spans follow too
(https://opentelemetry.io/docs/specs/semconv/messaging/). What they do not name begins with ``totoms``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from totoms.context import current_cid
from totoms.logging.describe import printable
from totoms.telemetry.guard import unfailing
from totoms.telemetry.metrics import Instruments
from totoms.telemetry.spans import (
    MOST_LINKS,
    NAME,
    SCHEMA_URL,
    Spans,
    add_link,
    annotate,
    describe,
    end,
    fail,
    links_to,
)
from totoms.telemetry.trace_context import TRACEPARENT, context_of, creation_context, current_span_context

if TYPE_CHECKING:
    from totoms.errors import BackendError
    from totoms.messages.outcome import Outcome
    from totoms.messages.outgoing import Outgoing
    from totoms.messages.receiver import Received

_handled: ContextVar[Handled | None] = ContextVar("totoms_handled", default=None)


class Handled:
    """The message that is being handled, as far as it is known.

    Attributes:
        message_type: Its type if a handler takes it, else "other": strangers choose types, so they cannot be labels.
        failure: The class of the error that its handler raised; "" for none.
    """

    __slots__ = ("failure", "message_type")

    def __init__(self) -> None:
        self.message_type = "other"
        self.failure = ""


class Telemetry(Spans):
    """Records spans and metrics with the providers of OpenTelemetry.

    Args:
        tracer_provider: Makes the tracer.
        meter_provider: Makes the instruments.
        version: The version of totoms.
    """

    def __init__(self, tracer_provider: TracerProvider, meter_provider: MeterProvider, version: str) -> None:
        super().__init__(tracer_provider, version)
        self.instruments = Instruments(meter_provider.get_meter(NAME, version, SCHEMA_URL))
        opted = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
        self._old_names = "messaging/dup" in [one.strip() for one in opted]

    # --- publishing ---

    async def publish(
        self,
        system: str,
        destination: str,
        encoders: Sequence[Callable[[], Outgoing]],
        send: Callable[[Sequence[Outgoing]], Awaitable[Sequence[BackendError | None]]],
    ) -> tuple[list[Outgoing], Sequence[BackendError | None]]:
        """Publish messages with a PRODUCER span for each, whose context the message carries.

        A single message has one span. In a batch, each message has a span for its creation, and the span for sending
        links to them.

        Args:
            system: The messaging system, for the attribute.
            destination: The logical name of the topic, or the name of the queue.
            encoders: Each encodes a message, with the current span's context in its attributes.
            send: Sends them.

        Raises:
            TotoError: Of an encoder or of `send`.
        """
        attributes = self._attributes(system, destination, "publish", "send")
        if len(encoders) == 1:
            with self.begin(f"publish {destination}", SpanKind.PRODUCER, attributes) as span:
                batch = [encoders[0]()]
                describe(span, batch[0])
                return batch, await self._send(system, destination, batch, send, span)
        batch, links = [], list[Link]()
        for encode in encoders:
            created = self._attributes(system, destination, "create", "create")
            with self.begin(f"create {destination}", SpanKind.PRODUCER, created) as span:
                batch.append(encode())
                describe(span, batch[-1])
                add_link(links, span)
        if not batch:
            return batch, ()
        attributes["messaging.batch.message_count"] = len(batch)
        with self.begin(f"publish {destination}", SpanKind.CLIENT, attributes, links[:MOST_LINKS]) as span:
            return batch, await self._send(system, destination, batch, send, span)

    async def _send(
        self,
        system: str,
        destination: str,
        batch: Sequence[Outgoing],
        send: Callable[[Sequence[Outgoing]], Awaitable[Sequence[BackendError | None]]],
        span: Span,
    ) -> Sequence[BackendError | None]:
        begun = time.perf_counter()
        failure = "cancelled"
        results: Sequence[BackendError | None] = ()
        try:
            results = await send(batch)
            failed = next((result for result in results if result is not None), None)
            if failed is not None:
                fail(span, failed)
            failure = type(failed).__name__ if failed is not None else ""
            return results
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            seconds = time.perf_counter() - begun
            self.instruments.published(system, destination, batch, results, seconds, failure)

    # --- receiving ---

    @unfailing
    def received(self, system: str, batch: Sequence[Received], begun: int) -> None:
        """Record a span for a call that received messages; one that received none is not worth a span.

        Args:
            system: The messaging system.
            batch: The messages, of one subscription.
            begun: When the call began, in nanoseconds since the epoch.
        """
        subscription = batch[0].subscription
        topic = subscription.logical_name
        attributes = self._attributes(system, topic, "receive", "receive", subscription.name)
        attributes["messaging.batch.message_count"] = len(batch)
        # Outside of any trace: the call was not made for one of these messages.
        span = self.tracer.start_span(
            f"receive {topic}",
            Context(),
            SpanKind.CLIENT,
            attributes,
            links=links_to(batch),
            start_time=begun,
        )
        end(span)
        seconds = (time.time_ns() - begun) / 1e9
        self.instruments.operation(system, topic, "receive", "receive", seconds, "")
        self.instruments.consumed(system, topic, subscription.name, len(batch))

    async def handle(
        self, system: str, received: Received, process: Callable[[Received], Awaitable[Outcome]]
    ) -> Outcome:
        """Handle a message in a CONSUMER span.

        It links to the context in which the message was created. Inside a request that pushed the message it is a child
        of the request's span, else a child of that context.

        Args:
            system: The messaging system.
            received: The delivery.
            process: Handles it.
        """
        subscription = received.subscription
        topic = subscription.logical_name
        attributes = self._attributes(system, topic, "process", "process", subscription.name)
        attributes["messaging.message.id"] = received.message_id
        attributes["messaging.message.body.size"] = len(received.body)
        attributes["totoms.message.attempt"] = received.attempt
        creation = creation_context(received.attributes.get(TRACEPARENT, ""))
        parent = None
        if not current_span_context().is_valid:
            parent = context_of(creation)
        links = [Link(creation)] if creation is not None else []
        handled = Handled()
        token = _handled.set(handled)
        begun = time.perf_counter()
        self.instruments.in_flight(topic, 1)
        outcome: Outcome | None = None
        try:
            with self.begin(f"process {topic}", SpanKind.CONSUMER, attributes, links, parent) as span:
                outcome = await process(received)
                action = "ignored" if outcome.ignored else outcome.action.value
                annotate(span, {"totoms.message.outcome": action})
                return outcome
        finally:
            _handled.reset(token)
            self.instruments.in_flight(topic, -1)
            self.instruments.processed(
                system, received, handled.message_type, outcome, time.perf_counter() - begun, handled.failure
            )

    def handles(self, message_type: str, cid: str, handler: str) -> None:
        """Note on the current span the type and the correlation id of the message, and the name of its handler."""
        handled = _handled.get()
        if handled is not None:
            handled.message_type = message_type
        attributes = {
            "totoms.message.type": message_type,
            "messaging.message.conversation_id": cid,
            "totoms.cid": cid,
            "code.function.name": handler,
        }
        annotate(trace.get_current_span(), attributes)

    @unfailing
    def failed(self, text: str, error: BaseException | None = None) -> None:
        """Mark the current span as failed.

        Args:
            text: What failed.
            error: The exception, if there is one.
        """
        span = trace.get_current_span()
        name = type(error).__name__ if error is not None else "FAILED"
        handled = _handled.get()
        if handled is not None:
            handled.failure = name
        if error is not None:
            fail(span, error)
        elif span.is_recording():
            span.set_attribute("error.type", name)
            span.set_status(Status(StatusCode.ERROR, printable(text)))

    @contextmanager
    def settling(self, system: str, operation: str, batch: Sequence[Received]) -> Iterator[None]:
        """Record a span around the settlement of messages, with links to their creation.

        Args:
            system: The messaging system.
            operation: ``ack``, ``nack``, ``dead_letter`` or ``extend``.
            batch: The messages, of one subscription.
        """
        subscription = batch[0].subscription
        topic = subscription.logical_name
        attributes = self._attributes(system, topic, operation, "settle", subscription.name)
        if len(batch) > 1:
            attributes["messaging.batch.message_count"] = len(batch)
        else:
            attributes["messaging.message.id"] = batch[0].message_id
        parent = context_of(creation_context(batch[0].attributes.get(TRACEPARENT, "")) if len(batch) == 1 else None)
        begun = time.perf_counter()
        failure = ""
        try:
            with self.begin(f"{operation} {topic}", SpanKind.CLIENT, attributes, links_to(batch), parent):
                yield
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            seconds = time.perf_counter() - begun
            self.instruments.operation(system, topic, operation, "settle", seconds, failure)

    def _attributes(
        self, system: str, destination: str, operation: str, kind: str, subscription: str = ""
    ) -> dict[str, Any]:
        attributes = {
            "messaging.system": system,
            "messaging.destination.name": destination,
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
        }
        if subscription:
            attributes["messaging.destination.subscription.name"] = subscription
        if self._old_names:
            attributes["messaging.operation"] = operation
        cid = current_cid.get()
        if cid:
            attributes["totoms.cid"] = cid
        return attributes
