"""A secrets store that the test controls: values, rotations, faults, delays, and a clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import totoms.plugins.loader  # noqa: F401 - tells the interfaces where to find the implementations
from totoms.errors import NotFound
from totoms.secrets.manager import SecretsManager

DEADLINE = 120.0


class Store(SecretsManager):
    """Reads from a dict. `stores` makes a subclass for each test, so that none shares its cache with another."""

    values: dict[str, bytes]
    failure: BaseException | None
    fetches: list[tuple[str, str | None]]
    open: threading.Event
    """While it is cleared, the store does not answer."""
    now: float

    def _fetch(self, name: str, version: str | None) -> bytes:
        cls = type(self)
        cls.fetches.append((name, version))
        assert cls.open.wait(DEADLINE)
        if cls.failure is not None:
            raise cls.failure
        key = name if version is None else f"{name}@{version}"
        if key not in cls.values:
            raise NotFound(f"No secret {name!r}.", resource=name)
        return cls.values[key]

    @staticmethod
    def _clock() -> float:
        raise NotImplementedError


@pytest.fixture
def store() -> Iterator[type[Store]]:
    """A class of its own, thus a store of its own. ``store()`` is a secrets manager on it."""

    class OwnStore(Store):
        values: dict[str, bytes] = {}  # noqa: RUF012 - the test writes to it
        failure = None
        fetches: list[tuple[str, str | None]] = []  # noqa: RUF012
        open = threading.Event()
        now = 1000.0

        @staticmethod
        def _clock() -> float:
            return OwnStore.now

    OwnStore.open.set()
    yield OwnStore
    OwnStore.open.set()  # releases fetches that still wait
