"""TotoControllerConfig: a service's own settings and the secrets every service needs."""

from __future__ import annotations

import asyncio
from typing import Final

from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, NotFound
from totoms.logging import TotoLogger
from totoms.secrets import SecretsManager

JWT_KEY_SECRET: Final = "jwt-signing-key"
AUDIENCE_SECRET: Final = "toto-expected-audience"
MONGO_HOST_SECRET: Final = "mongo-host"
REGISTRY_SECRET: Final = "toto-registry-endpoint"


class TotoControllerConfig:
    """Subclass it for settings of your own; override :meth:`load` to read secrets at start.

    Attributes:
        environment: Where the service runs.
        secrets_manager: ``self.secrets_manager.get_secret("name")``, or ``await ….get_secret_async("name")``.
        logger: The service's logger.
    """

    def __init__(self, environment: TotoEnvironment) -> None:
        self.environment = environment
        self.secrets_manager = SecretsManager(environment)
        self.logger = TotoLogger.get_instance()
        self.jwt_key: str | None = None
        self.jwt_expected_audience: str | None = None
        self.mongo_host: str | None = None
        self.mongo_user: str | None = None
        self.mongo_pwd: str | None = None

    async def load(self) -> TotoControllerConfig:
        """Read the secrets every service needs. An override calls ``await super().load()`` and returns `self`.

        Raises:
            NotFound: A Mongo secret that :meth:`get_mongo_secret_names` asks for does not exist.
            BackendError: The secrets store denied or is away. The error names the secret.
        """
        self.jwt_key, self.jwt_expected_audience = await asyncio.gather(
            self._optional(JWT_KEY_SECRET), self._optional(AUDIENCE_SECRET)
        )
        names = self.get_mongo_secret_names()
        if names:
            self.mongo_host, self.mongo_user, self.mongo_pwd = await asyncio.gather(
                self.secrets_manager.get_secret_async(MONGO_HOST_SECRET),
                self.secrets_manager.get_secret_async(_named(names, "user_secret_name", "mongo_user")),
                self.secrets_manager.get_secret_async(_named(names, "pwd_secret_name", "mongo_pswd")),
            )
        return self

    async def _optional(self, name: str) -> str | None:
        # Which verifiers a service needs is decided where they are built; only there is one missing too many.
        try:
            return await self.secrets_manager.get_secret_async(name)
        except NotFound:
            return None

    @property
    def toto_registry_endpoint(self) -> str:
        """The address of the Toto registry, read when it is first used."""
        return self.secrets_manager.get_secret(REGISTRY_SECRET)

    def get_mongo_secret_names(self) -> dict[str, str] | None:
        """Name the secrets of the Mongo credentials, ``user_secret_name`` and ``pwd_secret_name``, or None."""
        return None

    def is_path_excluded(self, path: str) -> bool:
        """Tell whether `path` (with the base path) is served to callers without a token. By default none is."""
        return False


def _named(names: dict[str, str], *keys: str) -> str:
    for key in keys:
        if names.get(key):
            return names[key]
    raise ConfigurationError(f"get_mongo_secret_names() must give {' or '.join(map(repr, keys))}.")
