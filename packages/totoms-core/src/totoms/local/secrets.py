"""Secrets of the local backend: environment variables, and a ``.env`` file for what they leave out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, cast

from totoms.errors import AccessDenied, BackendError, CorruptData, NotFound, Unsupported
from totoms.local.configuration import LocalConfiguration
from totoms.secrets import SecretsManager

DOTENV: Final = ".env"
"""Looked for in the working directory."""
JWT_KEY_SECRET: Final = "jwt-signing-key"


class LocalSecretsManager(SecretsManager):
    """Finds a secret in the environment variables, else in ``.env``.

    In both it is looked for under its exact name, then in upper case with an underscore for what is no letter or
    digit: ``api-key`` as ``API_KEY``, so ``api.key`` as well. Nothing is remembered, as reading costs nothing. There
    are no versions. The key that signs tokens is made when it is set nowhere.
    """

    cache_seconds: ClassVar[float] = 0.0

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        """Return what the secret holds, or the logical name where it is set nowhere."""
        try:
            return self.get_secret(secret)
        except NotFound:
            return logical_name

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        """Return what the secret holds, or the logical name where it is set nowhere."""
        try:
            return await self.get_secret_async(secret)
        except NotFound:
            return logical_name

    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise Unsupported(f"The local secrets manager has no versions, of {name!r} neither.", resource=name)
        value = _find(name, os.environ)
        if value is None:
            value = _find(name, _dotenv(name))
        if value is not None:
            return value.encode(errors="surrogateescape")  # the bytes that a variable holds, whatever they are
        if name == JWT_KEY_SECRET:
            from totoms.local.keys import signing_key  # only here: it brings what the bus keeps

            return signing_key(cast(LocalConfiguration, self.environment.hyperscaler_configuration).root).encode()
        hint = f"set the environment variable {_variable(name)}, or write it to {DOTENV}"
        raise NotFound(f"No secret {name!r}: {hint}.", resource=name)


def _variable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _find(name: str, variables: Mapping[str, str | None]) -> str | None:
    exact = variables.get(name)
    return exact if exact is not None else variables.get(_variable(name))


def _dotenv(name: str) -> Mapping[str, str | None]:
    from dotenv import dotenv_values  # read only when the environment does not have the secret

    failure: BackendError
    try:
        # utf-8-sig: editors on Windows begin a file with a byte order mark. A "$" in a secret is a dollar.
        return dotenv_values(Path.cwd() / DOTENV, interpolate=False, encoding="utf-8-sig")
    except OSError as error:
        failure = AccessDenied(f"{DOTENV}, asked for {name!r}, cannot be read: {error.strerror}.", resource=name)
    except UnicodeDecodeError:
        failure = CorruptData(f"{DOTENV}, asked for {name!r}, is not UTF-8.", resource=name)
    raise failure  # here, so that it does not carry the file's content along
