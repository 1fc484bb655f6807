"""`UserContext`: the caller that a verified token names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class NeverFromARequest:
    """Makes pydantic, and so FastAPI, accept only an instance: a request cannot supply one."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        written = handler(source) if issubclass(cls, UserContext) else core_schema.any_schema()
        return core_schema.chain_schema([core_schema.is_instance_schema(cls), written])


@dataclass
class UserContext(NeverFromARequest):
    """The caller of a request.

    Attributes:
        email: The user; None only on a public route, for a caller without a token.
        auth_provider: Who issued the token: ``toto``, ``google`` or the address of another issuer; "" without a token.
    """

    email: str | None
    auth_provider: str = ""
