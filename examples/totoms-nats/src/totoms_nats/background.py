"""For what is called from threads: one event loop in a thread of its own, with one connection for each server.

Storage and secrets are plain functions that the core runs in threads. All of a process's go through here.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from totoms_nats.configuration import NatsConfiguration
from totoms_nats.connection import Connection

_Result = TypeVar("_Result")
_CLOSE_PATIENCE: Final = 2.0


class Background:
    """The loop, its thread and its connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: dict[str, Connection] = {}

    def connection(self, settings: NatsConfiguration) -> Connection:
        """Return the connection with these settings. It is made when it is first used."""
        secrets = [secret.get_secret_value() if secret else "" for secret in (settings.password, settings.token)]
        to = repr([settings.url, settings.user, *secrets, settings.tls_ca, settings.tls_cert, settings.tls_key])
        with self._lock:
            return self._connections.setdefault(to, Connection(settings))

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Have `work` done on the loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="totoms-nats", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Have `work` done on the loop, and wait for its result. Connections bound how long that takes."""
        return self.start(work).result()

    def close(self) -> None:
        """Close the connections and end the thread. What comes after begins anew."""
        with self._lock:
            loop, self._loop = self._loop, None
            connections, self._connections = list(self._connections.values()), {}
        if loop is not None:
            closing = asyncio.run_coroutine_threadsafe(_close(connections), loop)
            try:
                closing.result(_CLOSE_PATIENCE)
            finally:
                loop.call_soon_threadsafe(loop.stop)

    def forget(self) -> None:
        """Begin anew in a forked child, where neither the thread nor the connections are."""
        self.__init__()  # type: ignore[misc]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _close(connections: list[Connection]) -> None:
    await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)


background: Final = Background()
"""Of this process."""
atexit.register(background.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=background.forget)
