"""Turn telemetry on when a service starts: with the providers that are set, or as the OTEL_* variables say.

The variables are those of the specification (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
Most are read by the SDK itself; here are only those that choose exporters. There are no settings of our own.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any, Final

import totoms.context as context
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.telemetry import state

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_TRACES: Final = "OTEL_TRACES_EXPORTER"
_METRICS: Final = "OTEL_METRICS_EXPORTER"
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_FLUSH_MILLISECONDS: Final = 5000
_PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def configure(service_name: str, service_version: str, logger: TotoLogger) -> None:
    """Set up exporters if variables ask for them, and turn telemetry on if a provider is configured.

    Providers that the process set already are kept. It may be called again: for a provider that was set meanwhile.

    Args:
        service_name: The name of the service, for the resource; ``OTEL_SERVICE_NAME`` overrides it.
        service_version: Its version.
        logger: Gets a warning if telemetry cannot be set up. The service starts without it.
    """
    if state.active is not None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    traces = _wanted(_TRACES, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    metrics = _wanted(_METRICS, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    if traces or metrics:
        try:
            _set_providers(traces, metrics, service_name, service_version, logger)
        except ImportError as error:
            logger.log("init", f"Traces and metrics are off: install totoms[otel] ({error}).", "WARNING")
        except Exception as error:  # a wrong variable must not stop the service
            logger.log("init", f"Traces and metrics are off: {describe_error(error)}", "ERROR")
    try:
        _activate()
    except Exception as error:  # of a provider
        logger.log("init", f"Traces and metrics are off: {describe_error(error)}", "ERROR")


def flush() -> None:
    """Export what is recorded. It blocks; exporters are asked to end within five seconds, but may take longer."""
    from opentelemetry import metrics, trace

    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:
            force_flush(_FLUSH_MILLISECONDS)


def _activate() -> None:
    """Turn telemetry on if a provider is set, of the SDK or of another library."""
    from opentelemetry import metrics, trace

    tracer_provider, meter_provider = trace.get_tracer_provider(), metrics.get_meter_provider()
    if not (_is_configured(tracer_provider) or _is_configured(meter_provider)):
        return
    from totoms.telemetry.telemetry import Telemetry
    from totoms.telemetry.trace_context import span_ids, traceparent

    state.active = Telemetry(tracer_provider, meter_provider, version("totoms"))
    context.span_ids_of_tracer, context.traceparent_of_tracer = span_ids, traceparent


def _is_configured(provider: object) -> bool:
    # The API has no question for this; its own providers do nothing.
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _wanted(variable: str, endpoint: str) -> list[str]:
    """Return the names of exporters that a variable asks for. With an endpoint alone it is "otlp", the default."""
    named = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    if not named and (os.environ.get(_ENDPOINT) or os.environ.get(endpoint)):
        named = ["otlp"]
    return [name for name in named if name != "none"]


def _set_providers(
    traces: list[str], metrics: list[str], service_name: str, service_version: str, logger: TotoLogger
) -> None:
    from opentelemetry import metrics as metrics_api
    from opentelemetry import trace
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the declaration.
    declared = {"service.name": service_name, "service.version": service_version}
    resource = Resource.create(declared).merge(OTELResourceDetector().detect())
    if traces and not _is_configured(trace.get_tracer_provider()):
        trace.set_tracer_provider(_tracer_provider(traces, resource))
    if metrics and not _is_configured(metrics_api.get_meter_provider()):
        metrics_api.set_meter_provider(_meter_provider(metrics, resource, logger))


def _tracer_provider(names: list[str], resource: Resource) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter("traces", name)))
    return provider


def _meter_provider(names: list[str], resource: Resource, logger: TotoLogger) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    readers: list[Any] = []
    for name in names:
        if name == "prometheus":
            from totoms.telemetry.prometheus import open_listener

            readers.append(open_listener(logger).reader)
        else:
            readers.append(PeriodicExportingMetricReader(_exporter("metrics", name)))
    return MeterProvider(readers, resource)


def _exporter(signal: str, name: str) -> Any:
    """Return the exporter that a variable names. The specification's names are entry points of the exporters' packages.

    Raises:
        ValueError: No installed package has it.
    """
    if name == "otlp":
        protocol = os.environ.get(
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL",
            os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        )
        name = _PROTOCOLS.get(protocol, protocol)
    found = next(iter(entry_points(group=f"opentelemetry_{signal}_exporter", name=name)), None)
    if found is None:
        raise ValueError(f"OTEL_{signal.upper()}_EXPORTER: no installed package exports {signal} to {name!r}.")
    return found.load()()
