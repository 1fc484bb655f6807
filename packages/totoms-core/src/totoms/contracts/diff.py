"""Compare two contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from totoms.contracts.changes import Change
from totoms.contracts.documents import ASYNCAPI, MARK, OPENAPI, VERSION
from totoms.contracts.event_changes import event_changes
from totoms.contracts.http_changes import http_changes
from totoms.errors import ConfigurationError


def changes_between(old: Path, new: Path) -> list[Change]:
    """Return the changes between two contracts, breaking changes first.

    Args:
        old: The folder of the old contract.
        new: The folder of the new contract.

    Raises:
        ConfigurationError: A document is missing, is not one of totoms, or was written by another version of it.
    """
    found = [
        *http_changes(_read(old / OPENAPI), _read(new / OPENAPI)),
        *event_changes(_read(old / ASYNCAPI), _read(new / ASYNCAPI)),
    ]
    return sorted(dict.fromkeys(found), key=lambda one: not one.breaks)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"python -m totoms contract service:configuration -o {path.parent}"
        raise ConfigurationError(f"There is no {path}. Write it with: {hint}") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}.") from None
    if not isinstance(document, dict) or MARK not in document:
        raise ConfigurationError(f"{path} is not a contract that totoms wrote: it has no {MARK}.")
    if document[MARK] != VERSION:
        raise ConfigurationError(
            f"{path} has version {document[MARK]!r} of the format, which this totoms does not read: write it again."
        )
    return document
