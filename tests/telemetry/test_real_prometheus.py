"""The alert rules and the dashboard of docs/operations with a real Prometheus, which scrapes a running service."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from standins.ports import free_port
from support.emulators import kept, require
from support.telemetry.measured_service import measured_service
from support.telemetry.scrapes import eventually

pytestmark = pytest.mark.slow

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
RULES = OPERATIONS / "alert-rules.yml"
PAGE = (OPERATIONS / "alerts.md").read_text()
REMEDY = "apt-get install prometheus"
Query = Callable[..., Any]


def expressions_of_rules() -> list[str]:
    """The expressions of the alert rules."""
    text = RULES.read_text()
    found = re.findall(r"^        expr: (?:\|\n((?:          .*\n)+)|(.+)\n)", text, re.MULTILINE)
    assert len(found) == text.count("- alert: ")
    return [several or one for several, one in found]


def expressions_of_dashboard() -> list[str]:
    """The expressions of the dashboard, with the values that Grafana puts in for its variables."""
    dashboard = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert found
    return [one.replace("$__rate_interval", "1m").replace("$job", ".+") for one in found]


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics in an expression."""
    bare = re.sub(r"\{.*?\}", "", expression)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\(.*?\)", "", bare, flags=re.DOTALL)
    return set(re.findall(r"\b(?:up|(?:totoms|messaging|http)_\w+)\b", bare))


def labels_in(expression: str) -> set[str]:
    """The names of the labels in an expression."""
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\"", expression)
    grouped = ",".join(re.findall(r"\bby\s*\((.*?)\)", expression, flags=re.DOTALL))
    return {*matched, *(name.strip() for name in grouped.split(",") if name.strip())}


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Ask a Prometheus that scrapes a service in which everything has happened, by the configuration of alerts.md."""
    program, folder, port = require("prometheus", remedy=REMEDY), tmp_path_factory.mktemp("prometheus"), free_port()
    (configuration,) = re.findall(r"^```yaml\n(# prometheus\.yml\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "alert-rules.yml").write_text(RULES.read_text())
    with measured_service(folder) as metrics_port:
        configuration = configuration.replace("9464", str(metrics_port))
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{configuration}"
        )
        checker = require("promtool", remedy=REMEDY)
        subprocess.run([checker, "check", "config", str(folder / "prometheus.yml")], check=True)
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with kept([*command, f"--web.listen-address=127.0.0.1:{port}"]), httpx.Client(trust_env=False) as client:

            def ask(path: str, **parameters: str) -> Any:
                try:
                    answer = client.get(f"http://127.0.0.1:{port}/api/v1/{path}", params=parameters).json()
                except (httpx.TransportError, ValueError):  # it is starting
                    return None
                assert answer["status"] == "success", (parameters, answer)
                return answer["data"]

            def scraped() -> bool:
                found = ask("query", query="count(totoms_subscription_oldest_age_seconds)")
                return bool(found and found["result"])

            eventually(scraped, True)
            yield ask


def test_every_metric_and_label_of_rules_and_dashboard_exists(query: Query) -> None:
    labels = set(query("labels")) | {"error_type"}
    for expression in [*expressions_of_rules(), *expressions_of_dashboard()]:
        names = metrics_in(expression)
        assert names, expression
        for name in names:
            assert query("query", query=f"count({name})")["result"], f"{name} does not exist: {expression}"
        assert labels_in(expression) <= labels, expression


def test_prometheus_evaluates_every_rule_and_every_panel(query: Query) -> None:
    for expression in expressions_of_dashboard():
        query("query", query=expression)
    eventually(lambda: {rule["health"] for rule in query("rules")["groups"][0]["rules"]}, {"ok"})


def test_alerts_about_what_happened_are_raised(query: Query) -> None:
    def raised() -> set[str]:
        return {alert["labels"]["alertname"] for alert in query("alerts")["alerts"] if alert["state"] == "firing"}

    expected = {"TotomsDeadLetters", "TotomsAcksGivenUp"}
    eventually(lambda: raised() & expected, expected)


def test_every_rule_is_explained_and_the_other_way_round() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert explained == re.findall(r"- alert: (\w+)", RULES.read_text())
