"""Which ``Host`` headers a service on a laptop answers to.

A web page that the developer visits can have its own name resolve to 127.0.0.1 (DNS rebinding) and then read what the
service answers. Such a page needs a public name. So names with a dot are refused; addresses, ``localhost`` and bare
names (of a container network, of a test) are not.
"""

from __future__ import annotations

import re
from typing import Final

_LOCAL: Final = re.compile(
    rb"(?:[A-Za-z0-9_-]+|(?:[A-Za-z0-9_-]+\.)*localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
)


def is_local_host(host: bytes | None) -> bool:
    """Tell whether `host`, a Host header, names an address or this machine. HTTP/1.0 may leave it out."""
    return host is None or _LOCAL.fullmatch(host) is not None
