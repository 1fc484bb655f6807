"""`UserContext`: the caller that a verified token names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson


class NeverFromARequest:
    """Makes pydantic, and so FastAPI, accept only an instance: a request cannot supply one."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.chain_schema([core_schema.is_instance_schema(cls), handler(source)])


class Claims(Mapping[str, Any]):
    """The claims of a token. They cannot be changed: each access returns new lists and dictionaries.

    Args:
        claims: The claims, which JSON can represent.
    """

    __slots__ = ("_json",)

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._json = orjson.dumps(dict(claims))

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"<{len(self)} claims>"  # without the values: they are personal data

    def _read(self) -> dict[str, Any]:
        claims: dict[str, Any] = orjson.loads(self._json)
        return claims


def labels(issuers: Iterable[str], scopes: Iterable[str], roles: Iterable[str]) -> frozenset[str]:
    """Return names of all three kinds as one set, so that `Requires` is decided by one comparison of sets."""
    kinds = ("issuer", issuers), ("scope", scopes), ("role", roles)
    return frozenset(f"{kind} {name}" for kind, names in kinds for name in names)


class Facts(NamedTuple):
    """What a token says; see `UserContext`. `labels` has its issuer, scopes and roles."""

    issuer: str
    subject: str | None
    scopes: frozenset[str]
    roles: frozenset[str]
    claims: Claims
    labels: frozenset[str]


_NOTHING = Facts("", None, frozenset(), frozenset(), Claims({}), frozenset())


class _Verified(NeverFromARequest):
    """What a token says in addition to the fields of totoms 1.5.0: read-only, and not in the instance's dictionary.

    So `vars` of a caller, and the JSON of a delegate that returns its caller, stay as they were.
    """

    __slots__ = ("_facts",)
    _facts: Facts


@dataclass(init=False)
class UserContext(_Verified):
    """The caller of a request.

    Args:
        email: See below.
        auth_provider: See below.
        issuer: See below.
        subject: See below.
        scopes: See below.
        roles: See below.
        claims: See below.

    Attributes:
        email: The user. None for a caller without a token, on a public route, and for a machine whose access token
            names no user; `subject` is set then.
        auth_provider: Who issued the token: ``toto``, ``google`` or the address of another issuer; "" without a token.
    """

    email: str | None
    auth_provider: str = ""

    def __init__(
        self,
        email: str | None,
        auth_provider: str = "",
        *,
        issuer: str = "",
        subject: str | None = None,
        scopes: Iterable[str] = (),
        roles: Iterable[str] = (),
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        self.email = email
        self.auth_provider = auth_provider
        if issuer or subject or scopes or roles or claims:
            scopes, roles = frozenset(scopes), frozenset(roles)
            held = labels([issuer], scopes, roles)
            self._facts = Facts(issuer, subject, scopes, roles, Claims(claims or {}), held)
        else:
            self._facts = _NOTHING

    @property
    def issuer(self) -> str:
        """``toto``, ``https://accounts.google.com``, or the `OIDCIssuer.issuer` of the token; "" without one."""
        return self._facts.issuer

    @property
    def subject(self) -> str | None:
        """The issuer's identifier of the caller (the claim ``sub``); None without one."""
        return self._facts.subject

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the service's own tokens, and of those of an issuer with `OIDCIssuer.scopes_claim`."""
        return self._facts.scopes

    @property
    def roles(self) -> frozenset[str]:
        """The roles of the service's own tokens, and of those of an issuer with `OIDCIssuer.roles_claim`."""
        return self._facts.roles

    @property
    def claims(self) -> Mapping[str, Any]:
        """All claims of the token."""
        return self._facts.claims

    @property
    def authenticated(self) -> bool:
        """Whether a token named the caller."""
        return self.email is not None or self.subject is not None

    def copied(self) -> UserContext:
        """Return a copy, which a delegate may change without changing what is cached."""
        made = object.__new__(UserContext)
        made.email, made.auth_provider, made._facts = self.email, self.auth_provider, self._facts
        return made
