"""Attributes as headers. A value that a header cannot hold as it stands is percent-encoded, and its name gets a ``*``.

That is how HTTP does it for parameters (RFC 8187); a program without totoms reads the usual ones as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

_PLAIN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NAME: Final = re.compile(r"[!#$%&'+\-.^_`|~0-9A-Za-z]+")
_SERVERS: Final = "nats-"
OURS: Final = "totoms-"
"""With what the names of a dead letter's own headers begin, in lower case."""


def to_headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return attributes as headers; one whose name no header can have is left out."""
    headers = {}
    for name, value in attributes.items():
        if not _NAME.fullmatch(name) or name.lower().startswith(_SERVERS):
            continue
        if _PLAIN.fullmatch(value):
            headers[name] = value
        else:
            headers[name + "*"] = quote(value, safe="", errors="surrogatepass")
    return headers


def from_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the attributes that headers are, without the server's own."""
    attributes = {}
    for header, value in (headers or {}).items():
        name = str(header)
        if name.lower().startswith(_SERVERS):
            continue
        if name.endswith("*"):
            attributes[name[:-1]] = unquote(value, errors="surrogatepass")
        else:
            attributes[name] = value
    return attributes
