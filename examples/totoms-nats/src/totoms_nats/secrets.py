"""Secrets in a key-value bucket: ``nats kv put secrets digest-key ...``. A version is a revision of the key."""

from __future__ import annotations

from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from totoms.errors import NotFound
from totoms.plugin import SecretsManager, TotoEnvironment
from totoms_nats.clients import Connection, thread_connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.naming import Names, key

_OPERATION: Final = "KV-Operation"
"""A header of the message that marks a key as deleted."""


class NatsSecretsManager(SecretsManager):
    """Reads the bucket ``secrets``, whose name begins with the installation's prefix.

    The name of a secret is its key; characters that a key may not contain are written as their bytes: ``a b`` as
    ``a=20b``. How many versions are kept is the bucket's history, which its operator chose.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        settings: NatsConfiguration = self.environment.hyperscaler_configuration
        self._settings = settings
        self._bucket = Names(settings.prefix).secrets

    def _fetch(self, name: str, version: str | None) -> bytes:
        client = thread_connection(self._settings)
        return client.run(self._read(client.connection, name, version))

    async def _read(self, connection: Connection, name: str, version: str | None) -> bytes:
        stream, subject, revision = f"KV_{self._bucket}", f"$KV.{self._bucket}.{key(name)}", 0
        missing = f"No secret {name!r}" + ("" if version is None else f" with the version {version!r}")
        missing += f" in the bucket {self._bucket}"
        if version is not None:
            if not (version.isascii() and version.isdecimal()) or not 0 < int(version) < 2**63:
                raise NotFound(f"{missing}: versions are the numbers of revisions.", resource=name)
            revision = int(version)
        info = await connection.call(lambda js: js.stream_info(stream), missing, name)
        # A direct request has the key in its subject, so that an operator can allow some keys and deny others.
        direct = bool(info.config.allow_direct)

        async def get(js: JetStreamContext) -> RawStreamMsg:
            if revision:
                return await js.get_msg(stream, seq=revision, direct=direct)
            return await js.get_msg(stream, subject=subject, direct=direct)

        message = await connection.call(get, missing, name)
        if message.subject != subject or _OPERATION in (message.headers or {}):
            raise NotFound(f"{missing}.", resource=name)
        return message.data or b""
