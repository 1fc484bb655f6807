"""Attributes as headers. A value that a header cannot hold is percent-encoded, and ``*`` is appended to its name.

HTTP does the same for parameters (RFC 8187). A program without totoms reads the usual values as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

_PLAIN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NAME: Final = re.compile(r"[!#$%&'+\-.^_`|~0-9A-Za-z]+")
_SERVERS: Final = "nats-"
DEAD_LETTER_PREFIX: Final = "totoms-"
"""The names of a dead letter's own headers begin with this."""


def to_headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return attributes as headers, without those whose name no header can have."""
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
    """Return headers as attributes, without the server's own."""
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
