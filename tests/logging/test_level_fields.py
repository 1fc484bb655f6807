"""How the log store of each hyperscaler calls the level."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from support.log import unnamed_log
from totoms import TotoEnvironment, TotoMicroservice, TotoMicroserviceConfiguration
from totoms.local.configuration import LocalConfiguration
from totoms.logging.formats import JSONFormatter
from totoms_aws.configuration import AWSConfiguration
from totoms_azure.configuration import AzureConfiguration
from totoms_gcp.configuration import GCPConfiguration


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        (LocalConfiguration, "severity"),
        (GCPConfiguration, "severity"),
        (AWSConfiguration, "level"),
        (AzureConfiguration, "level"),
    ],
)
def test_level_is_called_as_the_log_store_of_the_hyperscaler_calls_it(configuration: Any, name: str) -> None:
    assert configuration.log_level_field == name


async def test_service_writes_its_lines_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalConfiguration, "log_level_field", "level")
    with unnamed_log():
        await create_and_log()


async def create_and_log() -> None:
    formatter = JSONFormatter()
    configuration = TotoMicroserviceConfiguration(
        service_name="levels", version="3.1", environment=TotoEnvironment("local")
    )
    service = await TotoMicroservice.create(configuration)
    try:
        line = json.loads(formatter.format(logging.makeLogRecord({"levelno": logging.WARNING, "msg": "text"})))
        assert (line["level"], line["service"], line["version"]) == ("WARNING", "levels", "3.1")
        assert "severity" not in line
    finally:
        await service.stop()
