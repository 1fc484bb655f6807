"""TotoControllerConfig: a service's own settings and the secrets every service needs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from totoms.auth.signing_keys import PREVIOUS
from totoms.auth.tokens import hmac_key
from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, ConfigurationError, NotFound
from totoms.logging.logger import TotoLogger
from totoms.secrets.manager import SecretsManager
from totoms.secrets.trimming import strip_ends

JWT_KEY_SECRET: Final = "jwt-signing-key"
AUDIENCE_SECRET: Final = "toto-expected-audience"
MONGO_HOST_SECRET: Final = "mongo-host"
REGISTRY_SECRET: Final = "toto-registry-endpoint"


class _Loaded:
    """An attribute that `load` sets, None before. Its value is in the attribute of the same name with an underscore.

    A subclass may override it with a property or a value, as in 1.5.0; a property can read the underscored attribute.
    """

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = f"_{name}"
        setattr(owner, self._name, None)

    def __get__(self, config: Any, owner: type[Any] | None = None) -> str | None:
        value: str | None = getattr(owner if config is None else config, self._name)
        return value

    def __set__(self, config: Any, value: str | None) -> None:
        setattr(config, self._name, value)


class TotoControllerConfig:
    """Subclass it for settings of your own; override :meth:`load` to read secrets at start.

    Attributes:
        environment: Where the service runs.
        secrets_manager: ``self.secrets_manager.get_secret("name")``, or ``await ….get_secret_async("name")``.
        logger: The service's logger.
    """

    jwt_key = _Loaded()
    """The signing key of the service's own tokens."""
    jwt_key_previous = _Loaded()
    """The signing key before, while it is being rotated: tokens that it signed are accepted."""
    jwt_expected_audience = _Loaded()
    """The audience that Google's tokens must have."""
    mongo_host = _Loaded()
    """The host of the Mongo database."""
    mongo_user = _Loaded()
    """The user of the Mongo database."""
    mongo_pwd = _Loaded()
    """The password of the Mongo database."""
    _is_loaded = False
    _declared_buckets: frozenset[str] | None = None
    _jwt_key_read: str | None = None
    """What `load` read. Another key is the service's own, and is not read again."""

    def __init__(self, environment: TotoEnvironment) -> None:
        self.environment = environment
        self.secrets_manager = SecretsManager(environment)
        self.logger = TotoLogger.get_instance()

    async def load(self) -> TotoControllerConfig:
        """Read the secrets every service needs. An override calls ``await super().load()`` and returns `self`.

        It sets ``self._is_loaded``, and reads nothing if that is true already.

        Raises:
            NotFound: A Mongo secret that :meth:`get_mongo_secret_names` names does not exist.
            BackendError: The secrets store denied access or is unavailable. The error names the secret.
        """
        if self._is_loaded:
            return self
        (self._jwt_key, self._jwt_key_previous), self._jwt_expected_audience = await _all(
            self._read_signing_keys(self.secrets_manager.get_secret_async),
            self._optional(self.secrets_manager.get_identifier_async(AUDIENCE_SECRET)),
        )
        self._jwt_key_read = self._jwt_key
        names = self.get_mongo_secret_names()
        if names:
            self._mongo_host, self._mongo_user, self._mongo_pwd = await _all(
                self.secrets_manager.get_identifier_async(MONGO_HOST_SECRET),
                self.secrets_manager.get_identifier_async(_named(names, "user_secret_name", "mongo_user")),
                self._read(_named(names, "pwd_secret_name", "mongo_pswd")),
            )
        self._is_loaded = True
        return self

    async def close(self) -> None:
        """Close what :meth:`load` opened, such as a pool of connections. By default nothing.

        Called once, in every process, when the service has drained: no request and no handler is running any more, and
        messages can still be published. It may take 10 s, and may be a ``def``, which runs in a thread. It is not
        called if :meth:`load` raised.
        """

    def _warn_of_undeclared(self, bucket_name: str) -> None:
        """Log once that `bucket_name` is missing from the declared `Resources`, if there are any."""
        if self._declared_buckets is not None and bucket_name not in self._declared_buckets:
            self._declared_buckets |= {bucket_name}
            self.logger.log(
                None,
                f"The bucket {bucket_name!r} is not declared: add Bucket({bucket_name!r}) to Resources.",
                "WARNING",
            )

    async def _read_signing_keys(self, get: Callable[[str], Awaitable[str]]) -> tuple[str | None, str | None]:
        """Return the signing key and the previous one."""

        async def read(name: str) -> str:
            return strip_ends(await get(name), f"the secret {name!r}")

        async def previous() -> str | None:
            try:
                return await self._optional(read(PREVIOUS))
            except AccessDenied:  # permissions made before there was such a secret
                return None

        key, previous_key = await _all(self._optional(read(JWT_KEY_SECRET)), previous())
        return key, previous_key

    def _signing_keys_reader(self) -> Callable[[], Awaitable[tuple[str | None, str | None]]] | None:
        """Return a function that reads the signing keys from the store again; None if the service set its own key."""
        overridden = not isinstance(inspect.getattr_static(type(self), "jwt_key"), _Loaded)
        if overridden or self.jwt_key is None or self.jwt_key != self._jwt_key_read:
            return None

        async def read() -> tuple[str | None, str | None]:
            keys = await self._read_signing_keys(self.secrets_manager._get_anew)
            if keys[0] is not None:
                hmac_key(keys[0])  # a key that is too weak is not taken over
            self._jwt_key, self._jwt_key_previous = keys
            return keys

        return read

    async def _optional(self, reading: Awaitable[str]) -> str | None:
        # A service may not need it: the authenticator decides which verifiers there are.
        try:
            return await reading
        except NotFound:
            return None

    async def _read(self, name: str) -> str:
        return strip_ends(await self.secrets_manager.get_secret_async(name), f"the secret {name!r}")

    @property
    def toto_registry_endpoint(self) -> str:
        """The address of the Toto registry."""
        return self.secrets_manager.get_identifier(REGISTRY_SECRET)

    def get_mongo_secret_names(self) -> dict[str, str] | None:
        """Return the names of the Mongo secrets under ``user_secret_name`` and ``pwd_secret_name``, or None."""
        return None

    def is_path_excluded(self, path: str) -> bool:
        """Return whether a route needs no token. By default all routes need one.

        Called once for each route, when the service starts. An override may take the method as a second argument:
        ``def is_path_excluded(self, path: str, method: str = "GET") -> bool``. It must be a plain function that returns
        True or False; otherwise the service does not start.

        Args:
            path: The route's template with the base path, such as ``/blog/posts/{id}``.
        """
        return False


def _named(names: dict[str, str], *keys: str) -> str:
    for key in keys:
        if names.get(key):
            return names[key]
    raise ConfigurationError(f"get_mongo_secret_names() must return {' or '.join(map(repr, keys))}.")


async def _all(*readings: Awaitable[Any]) -> list[Any]:
    """Return all results. Of several errors raise the first, so that a start always names the same."""
    results = await asyncio.gather(*readings, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
