"""What an endpoint requires of its callers."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import Field

from totoms.declaration.base import Declaration

if TYPE_CHECKING:
    from totoms.auth.user import Facts, UserContext


def _names(value: Any) -> Any:
    # pydantic would refuse a string as a set, but not say what to write instead.
    if isinstance(value, str):
        raise ValueError(f"must be a set of names: {{{value!r}}}")
    return value


Names = Annotated[
    Set[Annotated[str, Field(min_length=1)]], pydantic.BeforeValidator(_names), pydantic.AfterValidator(frozenset)
]


class Requires(Declaration):
    """What a caller must have to call an endpoint; a caller without it gets 403.

    ::

        Requires(scopes={"posts:write"})
        Requires(issuers={"https://id.example.com"}, any_of=[Requires(roles={"admin"}), Requires(roles={"editor"})])

    Attributes:
        scopes: The scopes, all of them.
        roles: The roles, all of them.
        issuers: The values of `UserContext.issuer`, of which the caller has one: "toto" for the service's own tokens,
            "https://accounts.google.com" for Google, else `OIDCIssuer.issuer`.
        any_of: Alternatives: the caller must meet at least one, in addition to the other fields.
    """

    scopes: Names = frozenset()
    roles: Names = frozenset()
    issuers: Names = frozenset()
    any_of: list[Requires] = Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def _not_empty(self) -> Requires:
        if not (self.scopes or self.roles or self.issuers or self.any_of):
            raise ValueError("requires nothing: name scopes, roles, issuers or any_of")
        return self

    def allows(self, user: UserContext) -> bool:
        """Return whether `user` has what is required."""
        return self.compiled()(user._facts)

    def compiled(self) -> Callable[[Facts], bool]:
        """Return `allows` as a function of a caller's facts that looks up no field, for every request."""
        scopes, roles, issuers = frozenset(self.scopes), frozenset(self.roles), frozenset(self.issuers)
        alternatives = [one.compiled() for one in self.any_of]

        def allows(facts: Facts) -> bool:
            if not (scopes <= facts.scopes and roles <= facts.roles) or (issuers and facts.issuer not in issuers):
                return False
            for alternative in alternatives:
                if alternative(facts):
                    return True
            return not alternatives

        return allows

    def missing(self, user: UserContext) -> str:
        """Return what `user` lacks, for the log."""
        parts = []
        for kind, wanted, had in (("scopes", self.scopes, user.scopes), ("roles", self.roles, user.roles)):
            if wanted - had:
                parts.append(f"{kind} {', '.join(sorted(wanted - had))}")
        if self.issuers and user.issuer not in self.issuers:
            parts.append(f"a token of {' or '.join(sorted(self.issuers))}")
        if self.any_of and not any(one.allows(user) for one in self.any_of):
            parts.append(f"({') or ('.join(one.missing(user) for one in self.any_of)})")
        return " and ".join(parts)
