"""One ministack for each worker; settings, and what stands between, of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import aws_kit
from aws_errors import FaultyAWS
from totoms_aws.configuration import AWSConfiguration


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AWSConfiguration]:
    """Settings for a ministack."""
    with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
        yield configuration


@pytest.fixture
def faults() -> Iterator[FaultyAWS]:
    """What stands before the ministack of `faulty_aws`."""
    with FaultyAWS(aws_kit.server()) as made:
        yield made


@pytest.fixture
def faulty_aws(monkeypatch: pytest.MonkeyPatch, faults: FaultyAWS) -> Iterator[AWSConfiguration]:
    """Settings for a ministack behind `faults`."""
    with aws_kit.settings(monkeypatch, faults.address) as configuration:
        yield configuration
