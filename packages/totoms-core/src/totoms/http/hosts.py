"""The ``Host`` headers that a service on a laptop accepts.

A web page can make its own name resolve to 127.0.0.1 (DNS rebinding) and then read the service's responses. It needs a
public name for that, so names with a dot are refused; addresses, ``localhost`` and bare names (of a container network
or a test) are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

_LOCAL: Final = re.compile(
    rb"(?:[A-Za-z0-9_-]+|(?:[A-Za-z0-9_-]+\.)*localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
)
_known: Final[set[bytes | None]] = {None}
_MAX_KNOWN: Final = 100


def is_local_host(host: bytes | None) -> bool:
    """Return whether `host`, the value of a Host header, is an address or a local name. HTTP/1.0 has None."""
    if host in _known:
        return True
    if host is None or _LOCAL.fullmatch(host) is None:
        return False
    if len(_known) < _MAX_KNOWN:
        _known.add(host)
    return True


def has_local_host(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request or WebSocket has a local ``Host`` header, and only one (RFC 9112, section 3.2).

    Args:
        scope: The ASGI scope.
        headers: The last value of each header in `scope`.
    """
    if len(headers) != len(scope["headers"]) and sum(name == b"host" for name, _ in scope["headers"]) > 1:
        return False
    return is_local_host(headers.get(b"host"))
