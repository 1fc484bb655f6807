"""`UserContext`: the caller that a verified token names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson


class NeverFromARequest:
    """Makes pydantic, and so FastAPI, accept only an instance: a request cannot supply one."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        written = handler(source) if issubclass(cls, UserContext) else core_schema.any_schema()
        return core_schema.chain_schema([core_schema.is_instance_schema(cls), written])


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


_NO_CLAIMS = Claims({})


@dataclass(init=False)
class UserContext(NeverFromARequest):
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
        issuer: ``toto``, ``https://accounts.google.com`` or the `OIDCIssuer.issuer` whose entry accepted the token; ""
            without a token.
        subject: The issuer's identifier of the caller (the claim ``sub``); None without one.
        scopes: The scopes of the token: of the service's own tokens, and of an issuer with `OIDCIssuer.scopes_claim`.
        roles: The roles of the token: of the service's own tokens, and of an issuer with `OIDCIssuer.roles_claim`.
        claims: All claims of the token, read-only.
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
        # The fields are those of totoms 1.5.0: what a delegate returns of its caller stays the same JSON.
        self.email = email
        self.auth_provider = auth_provider
        self.issuer = issuer
        self.subject = subject
        self.scopes = frozenset(scopes)
        self.roles = frozenset(roles)
        self.claims: Mapping[str, Any] = _NO_CLAIMS if claims is None else Claims(claims)

    @property
    def authenticated(self) -> bool:
        """Whether a token named the caller."""
        return self.email is not None or self.subject is not None

    def copied(self) -> UserContext:
        """Return a copy, which a delegate may change without changing what is cached."""
        return copy.copy(self)
