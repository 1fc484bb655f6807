"""Spans: how one begins, ends and fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from totoms.context import current_cid
from totoms.errors import NotFound
from totoms.logging.describe import error_text
from totoms.logging.formats import format_error
from totoms.telemetry.trace_context import remote_parent

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
NAME: Final = "totoms"


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
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("totoms.cid", cid)

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
        if parent is None:
            parent = remote_parent()
        with self.tracer.start_as_current_span(
            name, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except NotFound as error:
                span.set_attribute("error.type", type(error).__name__)
                raise
            except Exception as error:
                fail(span, error)
                raise


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
