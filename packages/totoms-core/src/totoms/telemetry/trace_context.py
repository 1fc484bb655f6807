"""The W3C trace context of a message (https://www.w3.org/TR/trace-context/), to and from OpenTelemetry."""

from __future__ import annotations

from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags

from totoms.context import incoming_traceparent, is_traceparent

TRACEPARENT: Final = "traceparent"
"""The attribute of a message."""


def creation_context(value: str) -> SpanContext | None:
    """Return the context in which a message was created, by its `traceparent`; None if that is not well formed."""
    if not is_traceparent(value):
        return None
    _, trace_id, span_id, flags = value.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def context_of(span: SpanContext | None) -> Context:
    """Return a context whose current span is `span`, for its children; an empty one for None."""
    return Context() if span is None else trace.set_span_in_context(trace.NonRecordingSpan(span), Context())


def remote_parent() -> Context | None:
    """Return the context of the caller of the current request, where no span of this process is current; else None.

    So a trace goes on where FastAPI's own spans are turned off.
    """
    if current_span_context().is_valid:
        return None
    caller = creation_context(incoming_traceparent())
    return None if caller is None else context_of(caller)


def current_span_context() -> SpanContext:
    """Return the context of the current span; an invalid one if there is none."""
    try:
        return trace.get_current_span().get_span_context()
    except Exception:  # a span of another library; not logged, because every log line reads the ids
        return trace.INVALID_SPAN_CONTEXT


def span_ids() -> tuple[str, str]:
    """Return the ids of the current span in hexadecimal, or "" for each if there is none."""
    context = current_span_context()
    if not context.is_valid:
        return "", ""
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def traceparent() -> str:
    """Return the `traceparent` of the current span, or "" if there is none."""
    context = current_span_context()
    if not context.is_valid:
        return ""
    ids = f"{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}"
    return f"00-{ids}-{int(context.trace_flags):02x}"
