"""Secrets in a key-value bucket: ``nats kv put secrets digest-key ...``. A version is a revision of the key."""

from __future__ import annotations

from typing import Final

from totoms.environment import TotoEnvironment
from totoms.errors import NotFound
from totoms.secrets import SecretsManager
from totoms_nats.background import background
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.names import Names, key

_OPERATION: Final = "KV-Operation"
"""The header of what is left of a key that was deleted."""


class NatsSecretsManager(SecretsManager):
    """Reads the bucket ``secrets``, with the installation's prefix before it.

    A name is the key, where it may be one; what a key may not hold is written as its bytes: ``a b`` as ``a=20b``. How
    many versions there are is the bucket's history, which its operator chose.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        settings: NatsConfiguration = self.environment.hyperscaler_configuration
        self._settings = settings
        self._bucket = Names(settings.prefix).secrets

    def _fetch(self, name: str, version: str | None) -> bytes:
        return background.run(self._read(name, version))

    async def _read(self, name: str, version: str | None) -> bytes:
        call, stream = background.connection(self._settings).call, f"KV_{self._bucket}"
        subject, revision = f"$KV.{self._bucket}.{key(name)}", 0
        missing = f"No secret {name!r}" + ("" if version is None else f" with the version {version!r}")
        missing += f" in the bucket {self._bucket}"
        if version is not None:
            if not (version.isascii() and version.isdecimal()) or not 0 < int(version) < 2**63:
                raise NotFound(f"{missing}: versions are the numbers of revisions.", resource=name)
            revision = int(version)
        # Asked directly, the key stands in the subject, so that an operator can allow some keys and deny others.
        direct = bool((await call(lambda js: js.stream_info(stream), missing, name)).config.allow_direct)
        message = await call(
            lambda js: (
                js.get_msg(stream, seq=revision, direct=direct)
                if revision
                else js.get_msg(stream, subject=subject, direct=direct)
            ),
            missing, name,
        )  # fmt: skip
        if message.subject != subject or _OPERATION in (message.headers or {}):
            raise NotFound(f"{missing}.", resource=name)
        return message.data or b""
