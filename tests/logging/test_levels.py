"""``LOG_LEVEL`` and ``LOG_LEVELS``: which loggers write what."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from totoms import ConfigurationError, TotoLogger
from totoms.logging.levels import QUIET
from totoms.logging.setup import configure_logging, flush_logging

_NAMES = ("", "totoms", "blog", "azure.identity", "uvicorn", *QUIET)


@pytest.fixture(autouse=True)
def bare_logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _NAMES]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING if logger is logging.getLogger() else logging.NOTSET)
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def configure() -> None:
    logging.getLogger().handlers.clear()  # pytest's
    configure_logging(json=True)


def written(capsys: pytest.CaptureFixture[str]) -> str:
    TotoLogger("blog").log("cid", "of totoms", "DEBUG")
    for name in ("blog", "botocore.hooks", "azure.identity"):
        logging.getLogger(name).info("info of %s", name)
        logging.getLogger(name).debug("debug of %s", name)
        logging.getLogger(name).warning("warning of %s", name)
    flush_logging()
    return capsys.readouterr().out


def test_services_log_at_info_and_sdks_at_warning(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    text = written(capsys)
    assert "info of blog" in text
    assert "debug of blog" not in text
    assert "of totoms" not in text
    assert "info of botocore.hooks" not in text
    assert "warning of botocore.hooks" in text


def test_log_level_governs_totoms_and_the_service_but_no_sdk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    configure()
    text = written(capsys)
    assert "of totoms" in text
    assert "debug of blog" in text
    assert "debug of botocore.hooks" not in text
    assert "info of azure.identity" not in text


def test_log_levels_names_an_sdk_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVELS", "botocore=DEBUG, azure.identity=INFO,blog=ERROR,")
    configure()
    text = written(capsys)
    assert "debug of botocore.hooks" in text
    assert "info of azure.identity" in text
    assert "warning of blog" not in text
    assert "LOG_LEVELS: botocore logs requests and answers of the SDK" in text
    assert "LOG_LEVELS: azure.identity" in text
    assert "LOG_LEVELS: blog" not in text


def test_levels_that_a_program_has_set_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    logging.getLogger().setLevel(logging.ERROR)
    configure_logging()  # pytest has a handler on the root logger
    assert logging.getLogger("botocore").level == logging.DEBUG
    assert logging.getLogger().level == logging.ERROR
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    configure_logging()
    assert logging.getLogger("totoms").level == logging.DEBUG
    assert logging.getLogger().level == logging.ERROR


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LOG_LEVEL", "loud", "LOG_LEVEL must name a level: DEBUG, INFO, WARNING, ERROR, CRITICAL."),
        ("LOG_LEVELS", "botocore", "LOG_LEVELS must have the form 'botocore=DEBUG,azure.identity=INFO'."),
        ("LOG_LEVELS", "botocore=loud", "LOG_LEVELS must name a level: DEBUG, INFO, WARNING, ERROR, CRITICAL."),
    ],
)
def test_wrong_levels_end_the_start(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        configure_logging()
    assert caught.value.message == message
