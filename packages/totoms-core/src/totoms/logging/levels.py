"""Levels of loggers: ``LOG_LEVEL`` and ``LOG_LEVELS``, and quiet SDKs."""

from __future__ import annotations

import logging
import os
from typing import Final

from totoms.errors import ConfigurationError

LEVEL_VARIABLE: Final = "LOG_LEVEL"
LEVELS_VARIABLE: Final = "LOG_LEVELS"
QUIET: Final = (
    "boto3",
    "botocore",
    "s3transfer",
    "urllib3",
    "google",
    "grpc",
    "azure",
    "uamqp",
    "msal",
    "httpx",
    "httpcore",
)
"""Loggers of SDKs, which stay at WARNING: at DEBUG they log whole requests and answers, with secrets and messages."""
_QUIET_SERVER: Final = "uvicorn"
"""Its lines at start say what totoms says; started by itself, it sets its own levels."""
_NAMES: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def level_from_variable() -> int | None:
    """Return the level that ``LOG_LEVEL`` names, or None if it is not set.

    Raises:
        ConfigurationError: It is not the name of a level.
    """
    given = os.environ.get(LEVEL_VARIABLE, "").strip()
    return _level(given, LEVEL_VARIABLE) if given else None


def levels_from_variable() -> dict[str, int]:
    """Return the levels in ``LOG_LEVELS`` by logger, such as ``botocore=DEBUG,azure.identity=INFO``.

    Raises:
        ConfigurationError: It has another form.
    """
    levels: dict[str, int] = {}
    for part in os.environ.get(LEVELS_VARIABLE, "").split(","):
        name, separator, level = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if not name or not separator:
            raise ConfigurationError(f"{LEVELS_VARIABLE} must have the form 'botocore=DEBUG,azure.identity=INFO'.")
        levels[name] = _level(level, LEVELS_VARIABLE)
    return levels


def _level(name: str, variable: str) -> int:
    upper = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(name.upper(), name.upper())
    if upper not in _NAMES:
        raise ConfigurationError(f"{variable} must name a level: {', '.join(_NAMES)}.")
    return int(getattr(logging, upper))


def set_levels(levels: dict[str, int]) -> list[str]:
    """Set the levels of loggers, and those of SDKs that have none to WARNING.

    Args:
        levels: The levels by logger.

    Returns:
        The loggers of SDKs that now log more than warnings, which may include secrets.
    """
    for name in (*QUIET, _QUIET_SERVER):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    return [name for name, level in levels.items() if level < logging.WARNING and name.partition(".")[0] in QUIET]
