"""Read what a service exports, as Prometheus would."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.processes import DEADLINE

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int, path: str = "/metrics", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.get(f"http://127.0.0.1:{port}{path}", headers=headers)


def status(port: int) -> int | None:
    """Return the status of a scrape; None if nothing listens, or the connection is closed without an answer."""
    try:
        return scrape(port).status_code
    except httpx.TransportError:
        return None


def samples(port: int) -> Samples:
    """Every sample, by its name and labels."""
    answer = scrape(port)
    assert answer.status_code == 200, answer.text
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(port: int, name: str, **labels: str) -> float | None:
    """Return a sample's value; None if it does not exist, or nothing listens."""
    try:
        return samples(port).get((name, frozenset(labels.items())))
    except httpx.TransportError:
        return None


def eventually(look: Callable[[], Any], expected: Any) -> None:
    """Look again and again until it is as expected."""
    ends = time.monotonic() + DEADLINE
    while (seen := look()) != expected:
        assert time.monotonic() < ends, f"{seen!r} instead of {expected!r}"
        time.sleep(0.02)
