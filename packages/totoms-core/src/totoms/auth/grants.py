"""Read scopes and roles from the claims of a verified token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def scopes_in(claims: Mapping[str, Any], claim: str | None) -> frozenset[str]:
    """Return the scopes in a claim: a string, split at spaces (RFC 8693 section 4.2), or a list of strings.

    Args:
        claims: The claims.
        claim: The name of the claim, else a path of names with dots; None for no scopes.
    """
    value = _find(claims, claim)
    return frozenset(value.split()) if isinstance(value, str) else _strings(value)


def roles_in(claims: Mapping[str, Any], claim: str | None) -> frozenset[str]:
    """Return the roles in a claim: a list of strings, or a string, which is one role.

    Args:
        claims: The claims.
        claim: The name of the claim, else a path of names with dots; None for no roles.
    """
    value = _find(claims, claim)
    return _strings([value] if isinstance(value, str) else value)


def _find(claims: Mapping[str, Any], claim: str | None) -> Any:
    if claim is None or claim in claims:
        return None if claim is None else claims[claim]
    found: Any = claims
    for name in claim.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _strings(value: Any) -> frozenset[str]:
    return frozenset(one for one in value if isinstance(one, str) and one) if isinstance(value, list) else frozenset()
