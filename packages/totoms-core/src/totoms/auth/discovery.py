"""Find an issuer's keys by OpenID Connect Discovery (https://openid.net/specs/openid-connect-discovery-1_0.html)."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

import orjson

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_PATH: Final = "/.well-known/openid-configuration"
_NETWORKS: Final = ("is_private", "is_link_local", "is_loopback", "is_unspecified", "is_multicast", "is_reserved")


def configuration_url(issuer: str) -> str:
    """Return the address of an issuer's configuration (section 4: without the slash at the end)."""
    return issuer.removesuffix("/") + _PATH


def keys_uri(document: bytes, issuer: str) -> str:
    """Return the address of the keys that an issuer's configuration names.

    Args:
        document: The configuration, as fetched from `configuration_url`.
        issuer: The issuer.

    Raises:
        ValueError: It is not a configuration of this issuer (section 4.3), or its ``jwks_uri`` is not an https address
            or leads into a network that the issuer itself is not in.
    """
    try:
        parsed = orjson.loads(document)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("issuer") != issuer:
        raise ValueError("the OpenID configuration is not of this issuer")
    uri = parsed.get("jwks_uri")
    if not isinstance(uri, str):
        raise ValueError("the OpenID configuration has no jwks_uri")
    found, own = urlsplit(uri), urlsplit(issuer)
    if found.hostname != own.hostname and (found.hostname in LOOPBACK or _is_inner(found.hostname or "")):
        raise ValueError("the jwks_uri of the OpenID configuration leads to an inner address")
    if found.scheme != "https" and not (found.scheme == own.scheme == "http" and own.hostname in LOOPBACK):
        raise ValueError("the jwks_uri of the OpenID configuration is not https")
    return uri


def _is_inner(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(getattr(address, network) for network in _NETWORKS)
