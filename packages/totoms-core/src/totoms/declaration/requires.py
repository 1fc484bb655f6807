"""What an endpoint requires of its callers."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import Field

from totoms.declaration.base import Declaration

if TYPE_CHECKING:
    from totoms.auth.user import UserContext


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
        return bool(self.compiled()(user._facts.labels))

    def compiled(self) -> Callable[[frozenset[str]], object]:
        """Return `allows` as a function of a caller's labels; its result is true or false as an `if` sees it.

        It is called for every request, so where it can be, it is a method of a set, without a frame of Python.
        """
        ways = self._ways()
        if len(ways) == 1:
            return ways[0].issubset
        if all(len(way) == 1 for way in ways):
            return frozenset[str]().union(*ways).intersection
        return lambda held: any(map(held.issuperset, ways))

    def _ways(self) -> list[frozenset[str]]:
        """Return the sets of labels of which a caller must have all of at least one."""
        from totoms.auth.user import labels

        issuers: list[tuple[str, ...]] = [(issuer,) for issuer in self.issuers] or [()]
        ways = [labels(issuer, self.scopes, self.roles) for issuer in issuers]
        if not self.any_of:
            return ways
        return [way | other for way in ways for alternative in self.any_of for other in alternative._ways()]

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
