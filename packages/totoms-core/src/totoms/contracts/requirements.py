"""Compare what two declarations require of a caller."""

from __future__ import annotations

from itertools import product
from typing import Any

_Alternative = tuple[frozenset[str], frozenset[str], frozenset[str] | None]
"""Scopes and roles, all of which are needed, and the issuers, of which one is; None for any issuer."""


def allows_as_before(old: dict[str, Any] | None, new: dict[str, Any] | None) -> bool:
    """Return whether every caller who met the old requirements meets the new ones.

    Args:
        old: As in the manifest: ``scopes``, ``roles``, ``issuers`` and ``any_of``; None for no requirements.
        new: The same.
    """
    return all(any(_implies(one, other) for other in _alternatives(new)) for one in _alternatives(old))


def _alternatives(requires: dict[str, Any] | None) -> list[_Alternative]:
    if not requires:
        return [(frozenset(), frozenset(), None)]
    issuers = requires.get("issuers")
    own: _Alternative = (
        frozenset(requires.get("scopes", ())),
        frozenset(requires.get("roles", ())),
        frozenset(issuers) if issuers else None,
    )
    if not requires.get("any_of"):
        return [own]
    inner = [one for part in requires["any_of"] for one in _alternatives(part)]
    return [_both(one, other) for one, other in product([own], inner)]


def _both(one: _Alternative, other: _Alternative) -> _Alternative:
    issuers = other[2] if one[2] is None else one[2] if other[2] is None else one[2] & other[2]
    return one[0] | other[0], one[1] | other[1], issuers


def _implies(one: _Alternative, other: _Alternative) -> bool:
    """Return whether every caller that meets `one` also meets `other`."""
    issued = other[2] is None or (one[2] is not None and one[2] <= other[2])
    return other[0] <= one[0] and other[1] <= one[1] and issued
