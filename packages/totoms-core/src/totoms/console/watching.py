"""Record the spans, messages and log lines of this process's service."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from totoms.logging.formats import JSONFormatter
from totoms.logging.masking import mask
from totoms.telemetry import state
from totoms.telemetry.guard import unfailing
from totoms.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from totoms.errors import BackendError
    from totoms.messages.outcome import Outcome
    from totoms.messages.outgoing import Outgoing
    from totoms.messages.receiver import Received

Sink = Callable[[dict[str, Any]], None]
"""Takes an event; see `Recorder.record`. It must not block and must not raise."""
_OWN_FIELDS: Final = {"severity", "message", "timestamp", "cid", "trace_id", "span_id", "service", "version", "logger"}
_MOST_BODY_BYTES: Final = 64 * 1024
_MOST_ATTRIBUTES: Final = 40


def provide_tracing(service_name: str) -> None:
    """Set a tracer provider that exports nothing, unless variables ask for exporters. Call it before the start."""
    asked = any(os.environ.get(name) for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    asked = asked or bool(os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
    if not asked and type(trace.get_tracer_provider()).__module__.startswith("opentelemetry.trace"):
        trace.set_tracer_provider(TracerProvider(resource=Resource({"service.name": service_name})))


def watch(service_name: str, sink: Sink) -> list[str]:
    """Start to send the service's events to a sink. Return notes on what cannot be recorded."""
    notes: list[str] = []
    provider = trace.get_tracer_provider()
    add: Any = getattr(provider, "add_span_processor", None)
    if add is None:
        notes.append(f"Messages and traces are not shown: {type(provider).__name__} is not a provider of the SDK.")
    else:
        add(_Spans(service_name, sink))
        state.active = _Watched(service_name, sink, provider)
    logging.getLogger().addHandler(_Lines(sink))
    return notes


class _Watched(Telemetry):
    """Telemetry that also sends the bodies of messages to the sink."""

    def __init__(self, service: str, sink: Sink, provider: Any) -> None:
        super().__init__(provider, metrics.get_meter_provider(), version("totoms"))
        self._service = service
        self._sink = sink

    async def publish(
        self,
        system: str,
        destination: str,
        encoders: Sequence[Callable[[], Outgoing]],
        send: Callable[[Sequence[Outgoing]], Awaitable[Sequence[BackendError | None]]],
    ) -> tuple[list[Outgoing], Sequence[BackendError | None]]:
        async def told(batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
            results = await send(batch)
            for outgoing, result in zip(batch, results, strict=False):
                text = "" if result is None else mask(result.message)
                self._tell(outgoing.message_id, outgoing.body, destination, outgoing.message_type, text)
            return results

        return await super().publish(system, destination, encoders, told)

    @unfailing
    def _tell(self, message_id: str, body: bytes, topic: str, kind: str, error: str) -> None:
        span = trace.get_current_span().get_span_context()
        text = _text(body)
        self._sink(
            {
                "kind": "message",
                "value": {
                    "id": message_id,
                    "type": kind,
                    "topic": topic,
                    "cid": _cid(text),
                    "trace": f"{span.trace_id:032x}" if span.is_valid else "",
                    "publisher": self._service,
                    "at": time.time(),
                    "body": text,
                    "size": len(body),
                    "error": error,
                },
            }
        )

    async def handle(
        self, system: str, received: Received, process: Callable[[Received], Awaitable[Outcome]]
    ) -> Outcome:
        begun = time.perf_counter()
        outcome: Outcome | None = None
        span: trace.Span = trace.INVALID_SPAN
        error = ""

        async def told(one: Received) -> Outcome:
            nonlocal span
            span = trace.get_current_span()
            return await process(one)

        try:
            outcome = await super().handle(system, received, told)
            return outcome
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._tell_handled(received, outcome, span, time.perf_counter() - begun, error)

    @unfailing
    def _tell_handled(
        self, received: Received, outcome: Outcome | None, span: trace.Span, seconds: float, error: str
    ) -> None:
        attributes: Any = getattr(span, "attributes", None) or {}
        status: Any = getattr(span, "status", None)
        text = _text(received.body)
        action = "" if outcome is None else "ignored" if outcome.ignored else outcome.action.value
        failure = mask(str(status.description)) if status is not None and status.description else error
        if outcome is not None and outcome.reason is not None and not failure:
            failure = outcome.reason.description
        context = span.get_span_context()
        self._sink(
            {
                "kind": "handled",
                "value": {
                    "id": received.message_id,
                    "message": {
                        "type": str(attributes.get("totoms.message.type", "")),
                        "topic": received.subscription.logical_name,
                        "cid": _cid(text),
                        "trace": f"{context.trace_id:032x}" if context.is_valid else "",
                        "at": time.time(),
                        "body": text,
                        "size": len(received.body),
                    },
                    "handling": {
                        "service": self._service,
                        "handler": str(attributes.get("code.function.name", "")),
                        "attempt": received.attempt,
                        "outcome": action,
                        "seconds": seconds,
                        "at": time.time(),
                        "error": failure,
                    },
                },
            }
        )


def _text(body: bytes) -> str:
    return mask(body[:_MOST_BODY_BYTES].decode("utf-8", "backslashreplace"))


def _cid(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    cid = found.get("cid") if isinstance(found, dict) else ""
    return cid if isinstance(cid, str) else ""


class _Spans(SpanProcessor):
    """Sends each span to the sink when it ends."""

    def __init__(self, service: str, sink: Sink) -> None:
        self._service = service
        self._sink = sink

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or span.start_time is None or span.end_time is None:
            return
        given = list((span.attributes or {}).items())[:_MOST_ATTRIBUTES]
        self._sink(
            {
                "kind": "span",
                "value": {
                    "id": f"{context.span_id:016x}",
                    "parent": f"{span.parent.span_id:016x}" if span.parent is not None else "",
                    "trace": f"{context.trace_id:032x}",
                    "name": mask(span.name),
                    "service": self._service,
                    "kind": SpanKind(span.kind).name.lower(),
                    "begun": span.start_time / 1e9,
                    "seconds": (span.end_time - span.start_time) / 1e9,
                    "error": mask(span.status.description or "failed") if not span.status.is_ok else "",
                    "attributes": {name: mask(str(value)) for name, value in given},
                },
            }
        )


class _Lines(logging.Handler):
    """Sends each log line to the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._format = JSONFormatter(level_field="severity")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = json.loads(self._format.format(record))
        except Exception:
            self.handleError(record)
            return
        exception = str(line.pop("exception", ""))
        fields = {name: str(value) for name, value in line.items() if name not in _OWN_FIELDS}
        self._sink(
            {
                "kind": "log",
                "value": {
                    "at": record.created,
                    "level": line["severity"],
                    "service": str(line.get("service", "")),
                    "cid": str(line.get("cid", "")),
                    "text": line["message"],
                    "exception": exception,
                    "fields": fields,
                },
            }
        )
