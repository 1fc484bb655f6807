"""What a service shows of itself with OpenTelemetry, configured by the ``OTEL_*`` variables."""
