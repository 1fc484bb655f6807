"""Record spans in memory, with the real SDK of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.trace import format_span_id

import totoms.context as context
from totoms.telemetry import state
from totoms.telemetry.telemetry import Telemetry
from totoms.telemetry.trace_context import span_ids, traceparent


class RecordedSpans:
    """The spans that ended.

    Args:
        exporter: The SDK's exporter into memory.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def all(self) -> list[Any]:
        """Return the spans, in the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    def only(self, name: str, trace_id: str) -> Any:
        """Return the only span of this name in a trace; fail if there are more, or none."""
        found = [one for one in self.all() if one.name == name and f"{one.context.trace_id:032x}" == trace_id]
        names = [one.name for one in self.all()]
        assert len(found) == 1, f"{len(found)} spans {name!r} in the trace; all spans: {names}"
        return found[0]

    def id(self, span: Any) -> str:
        """Return the id of a span in hexadecimal."""
        return format_span_id(span.context.span_id)

    def parent(self, span: Any) -> str:
        """Return the id of a span's parent in hexadecimal; "" if it has none."""
        return "" if span.parent is None else format_span_id(span.parent.span_id)

    @staticmethod
    def format(span_id: int) -> str:
        """Return the id of a span in hexadecimal."""
        return format_span_id(span_id)


@contextmanager
def recorded_spans(meter_provider: MeterProvider | None = None) -> Iterator[RecordedSpans]:
    """Turn telemetry on for the body, with a provider that records in memory. Needs ``totoms[otel]``.

    Args:
        meter_provider: Makes the instruments; by default they record nothing.
    """
    pytest.importorskip("opentelemetry.sdk", reason="install totoms[otel] to check traces")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = state.active, context.span_ids_of_tracer, context.traceparent_of_tracer
    state.active = Telemetry(provider, meter_provider or NoOpMeterProvider(), "0")
    context.span_ids_of_tracer, context.traceparent_of_tracer = span_ids, traceparent
    try:
        yield RecordedSpans(exporter)
    finally:
        state.active, context.span_ids_of_tracer, context.traceparent_of_tracer = before
