"""Spans: how one begins, ends and fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from totoms.context import current_cid
from totoms.errors import NotFound
from totoms.logging.describe import error_text
from totoms.logging.formats import format_error
from totoms.telemetry.guard import report, unfailing
from totoms.telemetry.trace_context import TRACEPARENT, creation_context, remote_parent

if TYPE_CHECKING:
    from totoms.messages.outgoing import Outgoing
    from totoms.messages.receiver import Received

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
NAME: Final = "totoms"
MOST_LINKS: Final = 128
"""The default limit of the SDK for the links of a span (OTEL_SPAN_LINK_COUNT_LIMIT)."""


class Spans:
    """Records spans.

    Args:
        tracer_provider: Makes the tracer.
        version: The version of totoms.
    """

    def __init__(self, tracer_provider: TracerProvider, version: str) -> None:
        self.tracer: Tracer = tracer_provider.get_tracer(NAME, version, SCHEMA_URL)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[Span]:
        """Record a CLIENT span around the body. `NotFound` is an answer: it does not mark the span as failed."""
        cid = current_cid.get()
        with self.begin(name, SpanKind.CLIENT, {**attributes, "totoms.cid": cid} if cid else attributes) as span:
            yield span

    def annotate_request(self, cid: str) -> None:
        """Set the correlation id on the server span of the current request."""
        annotate(trace.get_current_span(), {"totoms.cid": cid})

    @contextmanager
    def begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link] = (),
        parent: Context | None = None,
    ) -> Iterator[Span]:
        """Record a span around the body, and mark it as failed if the body raises.

        Args:
            name: Its name.
            kind: Its kind.
            attributes: Its attributes.
            links: Its links.
            parent: Where it belongs; by default to the current span, else to the caller of the current request.
        """
        span = self._start(name, kind, attributes, links, parent)
        token = attach(trace.set_span_in_context(span))  # `use_span` would ask the span, which may raise
        try:
            yield span
        except NotFound as error:
            annotate(span, {"error.type": type(error).__name__})
            raise
        except Exception as error:
            fail(span, error)
            raise
        finally:
            detach(token)
            end(span)

    def _start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link],
        parent: Context | None,
    ) -> Span:
        try:
            return self.tracer.start_span(name, remote_parent() if parent is None else parent, kind, attributes, links)
        except Exception as error:
            report(error)
            return trace.INVALID_SPAN


@unfailing
def annotate(span: Span, attributes: Mapping[str, Any]) -> None:
    """Set attributes on a span."""
    if span.is_recording():
        for name, value in attributes.items():
            span.set_attribute(name, value)


@unfailing
def end(span: Span) -> None:
    """End a span."""
    span.end()


@unfailing
def fail(span: Span, error: BaseException) -> None:
    """Record an exception, with its secrets masked, and mark the span as failed."""
    if not span.is_recording():
        return
    text = error_text(error)
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, text))
    span.add_event(
        "exception",
        {
            "exception.type": f"{type(error).__module__}.{type(error).__qualname__}",
            "exception.message": text,
            "exception.stacktrace": format_error(error),
        },
    )


def describe(span: Span, outgoing: Outgoing) -> None:
    """Set the attributes of a message that is published."""
    attributes = {
        "messaging.message.id": outgoing.message_id,
        "messaging.message.body.size": len(outgoing.body),
        "totoms.message.type": outgoing.message_type,
    }
    annotate(span, attributes)


@unfailing
def add_link(links: list[Link], span: Span) -> None:
    """Add a link to a span."""
    links.append(Link(span.get_span_context()))


def links_to(batch: Sequence[Received]) -> list[Link]:
    """Return links to the contexts in which messages were created."""
    contexts: list[SpanContext] = []
    for received in batch[:MOST_LINKS]:
        creation = creation_context(received.attributes.get(TRACEPARENT, ""))
        if creation is not None:
            contexts.append(creation)
    return [Link(context) for context in contexts]
