"""Secrets of the local backend: environment variables first, then a ``.env`` file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, cast

from totoms.errors import AccessDenied, BackendError, CorruptData, NotFound, Unsupported
from totoms.local.configuration import LocalConfiguration
from totoms.secrets.manager import SecretsManager

DOTENV: Final = ".env"
"""Looked for in the working directory."""
JWT_KEY_SECRET: Final = "jwt-signing-key"


class LocalSecretsManager(SecretsManager):
    """Reads a secret from the environment variables, or else from ``.env``.

    Both are searched for its exact name, then for its name in upper case with an underscore in place of each character
    that is not a letter or digit: ``api-key`` and ``api.key`` are both ``API_KEY``. Nothing is cached, and there are no
    versions. The key that signs tokens is created if neither has it.
    """

    cache_seconds: ClassVar[float] = 0.0

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        """Return the value of the secret, or the logical name if there is no such secret."""
        try:
            return super().topic_identifier(secret, logical_name)
        except NotFound:
            return logical_name

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        """Return the value of the secret, or the logical name if there is no such secret."""
        try:
            return await super().topic_identifier_async(secret, logical_name)
        except NotFound:
            return logical_name

    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise Unsupported(
                f"The local secrets manager has no versions, so it cannot return one of {name!r}.", resource=name
            )
        value = _find(name, os.environ)
        if value is None:
            value = _find(name, _dotenv(name))
        if value is not None:
            return value.encode(errors="surrogateescape")  # a variable may hold any bytes
        if name == JWT_KEY_SECRET:
            from totoms.local.keys import signing_key  # loaded only when needed: it needs POSIX

            return signing_key(cast(LocalConfiguration, self.environment.hyperscaler_configuration).root).encode()
        hint = f"set the environment variable {_variable(name)}, or write it to {DOTENV}"
        raise NotFound(f"No secret {name!r}: {hint}.", resource=name)


def _variable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _find(name: str, variables: Mapping[str, str | None]) -> str | None:
    exact = variables.get(name)
    return exact if exact is not None else variables.get(_variable(name))


def _dotenv(name: str) -> Mapping[str, str | None]:
    from dotenv import dotenv_values  # loaded only when the environment does not have the secret

    failure: BackendError
    try:
        # utf-8-sig: editors on Windows write a byte order mark. No interpolation: a "$" in a secret is literal.
        return dotenv_values(Path.cwd() / DOTENV, interpolate=False, encoding="utf-8-sig")
    except OSError as error:
        failure = AccessDenied(f"Cannot read {name!r} from {DOTENV}: {error.strerror}.", resource=name)
    except UnicodeDecodeError:
        failure = CorruptData(f"Cannot read {name!r} from {DOTENV}: the file is not UTF-8.", resource=name)
    raise failure  # outside of `except`: a UnicodeDecodeError as context would carry the file's content
