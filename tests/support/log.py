"""A log that no service of another test has named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from totoms.logging.formats import DEFAULT_LEVEL_FIELD, identity


@contextmanager
def unnamed_log() -> Iterator[None]:
    """Forget the names and versions of services in this process for a while."""
    service, versions, level_field = identity.service, dict(identity.versions), identity.level_field
    identity.versions.clear()
    identity.describe("", "", DEFAULT_LEVEL_FIELD)
    try:
        yield
    finally:
        identity.versions.clear()
        identity.versions.update(versions)
        identity.describe(service, versions.get(service, ""), level_field)
