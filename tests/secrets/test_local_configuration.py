"""Settings of the local backend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import totoms.plugins.loader
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, TotoError
from totoms.local.configuration import LocalConfiguration


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOTOMS_LOCAL_ROOT")
    monkeypatch.chdir(tmp_path)
    configuration = LocalConfiguration()
    assert configuration.root == tmp_path / ".totoms"
    assert configuration.environment == "dev"
    assert configuration.default_host == "127.0.0.1"
    assert os.listdir(tmp_path) == []


def test_the_root_stays_where_it_was_when_the_working_directory_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOTOMS_LOCAL_ROOT", "data")
    configuration = LocalConfiguration()
    monkeypatch.chdir("/")
    assert configuration.root == tmp_path / "data"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVIRONMENT", "test")
    assert LocalConfiguration().environment == "test"
    configuration = LocalConfiguration(root=tmp_path, environment="staging")
    assert (configuration.root, configuration.environment) == (tmp_path, "staging")


@pytest.mark.parametrize("name", ["prod", "PROD", " prod ", "production"])
def test_production_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("ENVIRONMENT", name)
    for make in (LocalConfiguration, lambda: TotoEnvironment("local"), TotoEnvironment.from_variables):
        with pytest.raises(ConfigurationError, match="local backend is for development, and ENVIRONMENT is prod"):
            make()
    with pytest.raises(ConfigurationError):
        LocalConfiguration(environment=name)


@pytest.mark.parametrize(
    "bad", [{"root": 5}, {"root": None}, {"root": "a\0b"}, {"environment": 5}, {"environment": []}]
)
def test_a_bad_value_is_an_error_that_names_the_field(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"LocalConfiguration.{next(iter(bad))}:") as caught:
        LocalConfiguration(**bad)
    assert isinstance(caught.value, TotoError)


def test_the_plugin_gives_all_four() -> None:
    backend = totoms.plugins.loader.load("local")
    assert backend.configuration is LocalConfiguration
    for capability in (backend.secrets_manager, backend.cloud_storage, backend.message_bus):
        assert capability is not None
        assert capability.__module__.startswith("totoms.local.")
