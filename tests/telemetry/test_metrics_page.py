"""docs/operations/metrics.md lists what a running service exports, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.telemetry.measured_service import measured_service
from support.telemetry.scrapes import scrape

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"


class Exported(NamedTuple):
    """A metric."""

    type: str
    labels: frozenset[str]


def documented() -> dict[str, Exported]:
    """The table of the page."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", (OPERATIONS / "metrics.md").read_text(), re.MULTILINE)
    return {name: Exported(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a service exports in which everything has happened."""
    with measured_service(tmp_path_factory.mktemp("measured")) as port:
        return scrape(port).text


@pytest.fixture
def exported(text: str) -> dict[str, Exported]:
    """The metrics by name."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Exported(family.type, labels)
    del found["target_info"]
    return found


def test_every_metric_is_in_the_table_and_the_other_way_round(exported: dict[str, Exported]) -> None:
    assert exported.keys() == documented().keys()


def test_types_and_labels_are_those_of_the_table(exported: dict[str, Exported]) -> None:
    for name, metric in documented().items():
        assert exported[name].type == metric.type, name
        # There only once something has failed.
        assert exported[name].labels | {"error_type"} == metric.labels | {"error_type"}, name


def test_callers_and_senders_add_no_label(text: str) -> None:
    for sent in ("HACK", "somewhere", "nonsense", "me@example.com", "issuer.example"):
        assert sent not in text
    assert not re.search("[0-9a-f]{32}", text), "a message id or a correlation id"


@pytest.mark.parametrize("page", sorted(path.name for path in OPERATIONS.glob("*.md")))
def test_alerts_and_metrics_that_a_page_names_exist(page: str) -> None:
    text = (OPERATIONS / page).read_text()
    alerts = set(re.findall(r"- alert: (\w+)", (OPERATIONS / "alert-rules.yml").read_text()))
    assert set(re.findall(r"\bTotoms[A-Z]\w+", text)) <= alerts
    named = set(re.findall(r"`((?:totoms|messaging|http)_\w+_(?:total|seconds|bytes))`", text))
    assert named <= documented().keys()
