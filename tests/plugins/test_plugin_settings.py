"""Settings of a hyperscaler: read from environment variables, refused by the name of the field and never the value."""

from __future__ import annotations

import pytest

from support.plugins import GOOD, Install
from totoms.environment import TotoEnvironment, current_environment, set_default_environment
from totoms.errors import ConfigurationError, PluginLoadError
from totoms.plugins import loader as plugins
from totoms.plugins.configuration import HyperscalerConfiguration

SETTINGS = """
from typing import Literal
import pydantic
from pydantic import AliasChoices, Field, SecretStr
from totoms.plugins.configuration import HyperscalerConfiguration

class SkylineConfiguration(HyperscalerConfiguration):
    region: str = Field(validation_alias=AliasChoices("region", "SKYLINE_REGION"))
    stage: Literal["dev", "prod"] = Field("dev", validation_alias=AliasChoices("stage", "SKYLINE_STAGE"))
    skyline_retries: int = 3
    key: str = Field("", validation_alias=AliasChoices("key", "SKYLINE_KEY"))
    zones: list[str] = Field([], validation_alias=AliasChoices("zones", "SKYLINE_ZONES"))

    @pydantic.field_validator("key")
    @classmethod
    def check(cls, value):
        if value == "canary-secret":
            raise ValueError(f"{value} is not a key")
        return value

@hookimpl
def totoms_configuration():
    return SkylineConfiguration
"""


def problem(name: str, configuration: object = None, kind: type[Exception] = ConfigurationError) -> str:
    with pytest.raises(kind) as caught:
        TotoEnvironment(name, configuration)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_settings_are_read_from_environment_variables(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_REGION", "north")

    environment = TotoEnvironment(install(SETTINGS))

    assert environment.hyperscaler_configuration.region == "north"
    assert environment.hyperscaler_configuration.stage == "dev"


def test_missing_setting_names_the_field_and_the_variable(install: Install) -> None:
    text = problem(install(SETTINGS, distribution="totoms-skyline", version="3.2.1"))

    assert "region: Field required (environment variable SKYLINE_REGION)" in text
    assert "totoms-skyline 3.2.1" in text


def test_wrong_setting_names_the_field_and_never_the_value(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_REGION", "canary-region")
    monkeypatch.setenv("SKYLINE_STAGE", "canary-stage")
    monkeypatch.setenv("SKYLINE_RETRIES", "canary-number")
    monkeypatch.setenv("SKYLINE_KEY", "canary-secret")

    text = problem(install(SETTINGS))

    assert "stage: Input should be 'dev' or 'prod' (environment variable SKYLINE_STAGE)" in text
    assert "skyline_retries: Input should be a valid integer" in text
    assert "(environment variable SKYLINE_RETRIES)" in text
    assert "key: not valid (environment variable SKYLINE_KEY)" in text
    assert "canary" not in text


def test_setting_that_is_not_json_names_the_field_and_never_the_value(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_REGION", "north")
    monkeypatch.setenv("SKYLINE_ZONES", "canary-zone")

    text = problem(install(SETTINGS))

    assert "zones" in text
    assert "canary" not in text


def test_settings_given_by_the_service_are_taken(install: Install) -> None:
    name = install(SETTINGS)
    model = plugins.load(name).configuration
    assert model is not None

    environment = TotoEnvironment(name, model(region="south"))  # type: ignore[call-arg]

    assert environment.hyperscaler_configuration.region == "south"


def test_settings_of_another_plugin_are_refused_naming_both(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_REGION", "north")
    first = install(SETTINGS.replace("Skyline", "Stratus"))
    second = install(SETTINGS, distribution="totoms-skyline")
    others = TotoEnvironment(first).hyperscaler_configuration

    text = problem(second, others)

    assert "StratusConfiguration" in text
    assert "SkylineConfiguration" in text
    assert "totoms-skyline" in text


def test_settings_that_are_no_settings_are_refused_without_their_content(install: Install) -> None:
    text = problem(install(SETTINGS), {"region": "canary"})

    assert "dict" in text
    assert "canary" not in text


def test_settings_model_that_fails_is_a_fault_of_the_plugin(install: Install) -> None:
    name = install(
        SETTINGS
        + """
class Failing(HyperscalerConfiguration):
    def __init__(self):
        raise OSError("canary-secret")

@hookimpl(specname="totoms_configuration", tryfirst=True)
def failing():
    return Failing
"""
    )

    text = problem(name, kind=PluginLoadError)

    assert "OSError" in text
    assert "canary" not in text


def test_plugin_without_settings_needs_none(install: Install) -> None:
    environment = TotoEnvironment(install(GOOD))

    assert type(environment.hyperscaler_configuration) is HyperscalerConfiguration


def test_environment_in_capitals_is_the_same(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    name = install(GOOD)
    monkeypatch.setenv("HYPERSCALER", name.upper())
    set_default_environment(None)

    assert current_environment().hyperscaler == name
