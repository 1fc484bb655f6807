"""Secrets of Azure Key Vault."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, cast

from azure.core.exceptions import AzureError, DecodeError, HttpResponseError
from azure.core.pipeline.policies import RetryPolicy
from azure.keyvault.secrets import SecretClient, SecretProperties

from totoms.errors import NotFound
from totoms.plugin import SecretsManager, TotoEnvironment
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.errors import mapped_errors, translate

LONGEST: Final = 127
"""Characters of an identifier
(https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#objects-identifiers)."""
_ESCAPED: Final = re.compile(rb"[^a-z0-9_-]|-(?=[^a-z0-9]|x[0-9a-f]{2})")
_VERSION: Final = re.compile(r"[0-9a-fA-F]{32}")
_OPTIONS: Final[dict[str, Any]] = {
    "retry_total": 2,
    "retry_backoff_factor": 0.2,
    "retry_backoff_max": 1,
    "connection_timeout": 2,
    "read_timeout": 3,
}
"""The core waits for at most ten seconds."""
_LONGEST_PAUSE: Final = 2.0
_DISABLED: Final = "SecretDisabled"


def identifier_of(name: str) -> str:
    """Return the identifier of a secret in Key Vault, which has letters, digits and dashes, and ignores case.

    Lower-case letters, digits and single dashes stay. An underscore becomes two dashes. Everything else becomes its
    UTF-8 bytes, each as ``-x`` and two digits, capitals as well; and so does a dash that would be ambiguous: one before
    what becomes dashes itself, or before ``x`` and two digits. So two names never have the same identifier.
    """
    return _ESCAPED.sub(lambda found: b"-x%02x" % found[0][0], name.encode()).replace(b"_", b"--").decode()


class AzureSecretsManager(SecretsManager):
    """Reads Azure Key Vault. A `version` is its 32 hexadecimal digits.

    Raises:
        ConfigurationError: No vault is configured.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        settings = cast(AzureConfiguration, self.environment.hyperscaler_configuration)
        settings.require("Key Vault", "key_vault_url")
        self._vault = settings.key_vault_url

    def _fetch(self, name: str, version: str | None) -> bytes:
        identifier = identifier_of(name)
        if len(identifier) > LONGEST or not (version is None or _VERSION.fullmatch(version)):
            raise self._missing(name, version)
        with mapped_errors("the secret", name):
            client = self._client()
        try:
            secret = client.get_secret(identifier, version)
        except (AzureError, OSError) as error:
            if _quotes_secret(error):
                raise  # the core reports its class, and nothing more
            if _inner_code(error) == _DISABLED:
                raise self._unusable(name, version, "is disabled") from error
            mapped = translate(error, "the secret", name)
            raise self._missing(name, version) if isinstance(mapped, NotFound) else mapped from error
        self._check_dates(name, version, secret.properties)
        return (secret.value or "").encode()

    def _check_dates(self, name: str, version: str | None, properties: SecretProperties) -> None:
        # Key Vault returns the secret outside these dates, too, and leaves the check to its users.
        # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#date-time-controlled-operations
        now = datetime.now(UTC)
        if properties.not_before is not None and properties.not_before > now:
            raise self._unusable(name, version, f"is not valid before {properties.not_before.isoformat()}")
        if properties.expires_on is not None and properties.expires_on <= now:
            raise self._unusable(name, version, f"expired on {properties.expires_on.isoformat()}")

    def _client(self) -> SecretClient:
        def make() -> SecretClient:
            return SecretClient(self._vault, clients.credential(), retry_policy=_Retry(**_OPTIONS), **_OPTIONS)

        return clients.CLIENTS.get(("key vault", self._vault), make)

    def _missing(self, name: str, version: str | None) -> NotFound:
        which = "" if version is None else f", or it has no version {version!r}"
        return NotFound(f"No secret {name!r}: {self._vault} has no {identifier_of(name)!r}{which}.", resource=name)

    def _unusable(self, name: str, version: str | None, state: str) -> NotFound:
        which = "its latest version" if version is None else f"its version {version!r}"
        return NotFound(f"The secret {name!r} cannot be read: {which} {state}.", resource=name)


class _Retry(RetryPolicy[Any, Any]):
    """The SDK's retry, which would sleep as long as Key Vault says: up to a minute."""

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
        """Return whether to try again: not where the pause is longer than the caller waits."""
        return (self.get_retry_after(response) or 0) <= _LONGEST_PAUSE and bool(super().is_retry(settings, response))


def _quotes_secret(error: Exception) -> bool:
    """Return whether an error contains the secret: the one about an answer that is not JSON contains the answer."""
    return isinstance(error, DecodeError) and error.status_code == 200


def _inner_code(error: Exception) -> str:
    """Return Key Vault's inner error code, which distinguishes a disabled secret from a denied one."""
    inner = getattr(error.error, "innererror", None) if isinstance(error, HttpResponseError) else None
    code = inner.get("code") if isinstance(inner, dict) else getattr(inner, "code", None)
    return code if isinstance(code, str) else ""
