"""What a process has one of: the credential, and the SDK's clients for files, secrets and administration.

Each is made when it is first needed, off the event loop; all threads share it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from azure.core.credentials import AccessToken

from totoms.threads import run_in_thread
from totoms_azure.credentials import Credential

RETRY: Final[dict[str, Any]] = {"retry_total": 4, "retry_backoff_factor": 0.2, "retry_backoff_max": 4}
"""For what asks over HTTP: the SDK's own retry, which by itself goes on for minutes."""

# At INFO these write a dozen lines for each request. urllib3 writes addresses at DEBUG, and a connection string may put
# its signature into them. Who wants to read them sets the level of each by its name.
for _name, _level in {
    "azure": logging.WARNING,
    "msal": logging.WARNING,
    "urllib3.connectionpool": logging.INFO,
}.items():
    if (_talking := logging.getLogger(_name)).level == logging.NOTSET:
        _talking.setLevel(_level)

_Client = TypeVar("_Client")
_clients: dict[Hashable, Any] = {}
_lock = threading.RLock()


def shared(key: Hashable, make: Callable[[], _Client]) -> _Client:
    """Return the client that goes by `key`, made once. It may block: call it in a thread.

    Args:
        key: A tuple: what it is, and all that it is made of.
        make: Makes it. It has a method ``close``.
    """
    found = _clients.get(key)
    if found is None:
        with _lock:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = make()
    return cast(_Client, found)


def credential() -> Credential:
    """Return the credential of this process. It may block: call it in a thread."""
    return shared("credential", Credential)


class AsyncCredential:
    """The same credential for the SDK's clients that run on the loop: it gets tokens in a thread."""

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token; the arguments are those of the SDK's protocol `AsyncTokenCredential`."""
        return await run_in_thread(lambda: credential().get_token(*scopes, **options))

    async def close(self) -> None:
        """Do nothing: others go on using it."""

    async def __aenter__(self) -> AsyncCredential:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Do nothing."""


def close_clients() -> None:
    """Close the connections of all clients. The next call makes new ones."""
    with _lock:
        closing = list(_clients.values())
        _clients.clear()
    for one in closing:
        one.close()


def _forget() -> None:
    # A forked child shares its parent's sockets, and must not use them.
    global _lock
    _clients.clear()
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget)
