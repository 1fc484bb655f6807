"""The port of the console."""

from __future__ import annotations

import socket
from typing import Final

from totoms.errors import ConfigurationError
from totoms.http.server.server import bind

DEFAULT_PORT: Final = 8090
_TRIED: Final = 20


def listen(port: int | None, preferred: int = DEFAULT_PORT) -> socket.socket:
    """Return a listening socket on 127.0.0.1.

    Args:
        port: The port; None for the first free one from `preferred` on.
        preferred: Where to begin to look.

    Raises:
        ConfigurationError: The port is in use.
    """
    if port is not None:
        return bind("127.0.0.1", port)
    for number in range(preferred, min(preferred + _TRIED, 65536)):
        try:
            return bind("127.0.0.1", number)
        except ConfigurationError:
            continue
    return bind("127.0.0.1", 0)


def free_port() -> int:
    """Return a port that is free now."""
    with listen(None) as listener:
        number: int = listener.getsockname()[1]
        return number
