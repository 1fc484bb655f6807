"""Share SDK clients in a process: create each when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

from totoms.forks import in_forked_child
from totoms.logging.logger import TotoLogger

_Client = TypeVar("_Client")


class ClientRegistry:
    """The clients of one backend, shared by all threads and services of the process.

    A forked child creates clients of its own, because it must not use its parent's sockets.
    """

    def __init__(self) -> None:
        self._begin()
        _registries.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._clients: dict[Hashable, tuple[Any, Callable[[Any], None]]] = {}

    def get(
        self, key: Hashable, make: Callable[[], _Client], close: Callable[[_Client], None] | None = None
    ) -> _Client:
        """Return the client of `key`, created if it does not exist. It may block: call it in a thread.

        Args:
            key: The kind of client and all its settings.
            make: Creates the client. If it raises, the next call tries again.
            close: Closes the client; by default its method ``close``.
        """
        found = self._clients.get(key)
        if found is None:
            with self._lock:
                found = self._clients.get(key)
                if found is None:
                    found = self._clients[key] = make(), close or _close
        return cast(_Client, found[0])

    def find(self, key: Hashable) -> Any:
        """Return the client of `key`, or None if it was not created yet. It does not block."""
        found = self._clients.get(key)
        return None if found is None else found[0]

    def close(self) -> None:
        """Close all clients. The next `get` creates new ones. It may block.

        A client that does not close is logged, and the others are closed.
        """
        with self._lock:
            closing, self._clients = list(self._clients.values()), {}
        for client, close in closing:
            try:
                close(client)
            except Exception as error:
                what = f"{type(client).__name__} did not close: {type(error).__name__}: {error}"
                TotoLogger.get_instance().log("shutdown", what, "WARNING")


_registries: Final[WeakSet[ClientRegistry]] = WeakSet()


def close_clients() -> None:
    """Close all clients of this process. It may block."""
    for registry in list(_registries):
        registry.close()


def _close(client: Any) -> None:
    client.close()


def _forget() -> None:
    for registry in list(_registries):
        registry._begin()


in_forked_child(_forget)
