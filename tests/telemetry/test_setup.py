"""Telemetry is off by default, and is set up by the standard variables alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from standins.otlp import Collector, collector

SERVICE = Path(__file__).parents[1] / "support" / "services" / "traced.py"
REMOVED = ("OTEL_", "OPENTELEMETRY_")


def run(root: str, program: str = "", **variables: str) -> tuple[dict[str, Any], str]:
    """Run the service in a process of its own; return what it saw, and its log."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED)}
    done = subprocess.run(
        [sys.executable, str(SERVICE), program],
        env={**kept, "TOTOMS_LOCAL_ROOT": root, "HYPERSCALER": "local", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (seen,) = (line for line in done.stdout.splitlines() if line.startswith('{"active"'))
    return json.loads(seen), done.stdout


def exporting(collected: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint}


def test_without_a_provider_no_code_of_telemetry_runs(local_root: str) -> None:
    seen, _ = run(local_root, "profile")
    assert seen["active"] is False
    assert seen["called"] == []


def test_one_trace_goes_from_the_request_to_the_file_and_to_a_collector(local_root: str) -> None:
    with collector() as collected:
        seen, _ = run(local_root, **exporting(collected))
        assert seen["active"] is True
    spans = {span.name: span for span in collected.spans}
    server, sent = spans["POST /traced/orders"], spans["publish orders"]
    handled, written = spans["process orders"], spans["storage upload"]
    assert {span.trace_id for span in (server, sent, handled, written)} == {server.trace_id}
    assert sent.parent_span_id == server.span_id
    assert handled.parent_span_id == sent.span_id
    assert written.parent_span_id == handled.span_id
    cids = {attribute.value.string_value for attribute in server.attributes if attribute.key == "totoms.cid"}
    assert cids == {seen["cid"]}
    assert {"messaging.process.duration", "http.server.request.duration"} <= collected.metrics


def test_resource_names_the_service_and_its_version(local_root: str) -> None:
    with collector() as collected:
        run(local_root, **exporting(collected))
    named = {attribute.key: attribute.value.string_value for attribute in collected.resources[0].attributes}
    assert (named["service.name"], named["service.version"]) == ("traced", "1.2.3")


def test_variables_go_before_the_declaration(local_root: str) -> None:
    with collector() as collected:
        run(local_root, OTEL_SERVICE_NAME="renamed", **exporting(collected))
    named = {attribute.key: attribute.value.string_value for attribute in collected.resources[0].attributes}
    assert named["service.name"] == "renamed"


def test_sdk_can_be_disabled(local_root: str) -> None:
    with collector() as collected:
        seen, _ = run(local_root, OTEL_SDK_DISABLED="true", **exporting(collected))
    assert seen["active"] is False
    assert not collected.spans


def test_provider_of_the_service_is_kept(local_root: str) -> None:
    seen, _ = run(local_root, "own")
    assert seen["active"] is True
    assert "publish orders" in seen["own"]


@pytest.mark.parametrize("variable", ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"])
def test_unknown_exporter_is_logged_and_the_service_runs(local_root: str, variable: str) -> None:
    _, log = run(local_root, **{variable: "nonsense"})
    assert f"{variable}: no installed package exports" in log


def test_collector_that_is_away_does_not_stop_the_service(local_root: str) -> None:
    seen, _ = run(local_root, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert seen["status"] == 200


def test_missing_sdk_is_logged_and_the_service_runs(local_root: str) -> None:
    seen, log = run(local_root, "without_sdk", OTEL_TRACES_EXPORTER="otlp")
    assert seen["active"] is False
    assert "install totoms[otel]" in log


def test_metrics_are_served_to_prometheus_on_a_port_of_their_own(local_root: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    seen, _ = run(local_root, "scrape", OTEL_METRICS_EXPORTER="prometheus", OTEL_EXPORTER_PROMETHEUS_PORT=port)
    assert "totoms_messages_handled_total{" in seen["scraped"]
    assert "http_server_request_duration_seconds_count{" in seen["scraped"]
