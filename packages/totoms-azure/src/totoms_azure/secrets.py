"""Secrets of Azure Key Vault."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, cast

from azure.core.exceptions import AzureError, DecodeError, HttpResponseError
from azure.core.pipeline.policies import RetryPolicy
from azure.keyvault.secrets import KeyVaultSecret, SecretClient, SecretProperties

from totoms.environment import TotoEnvironment
from totoms.errors import NotFound
from totoms.secrets import SecretsManager
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.errors import told_as, translate
from totoms_azure.secret_names import LONGEST, identifier_of

_VERSION: Final = re.compile(r"[0-9a-fA-F]{32}")
_BOUNDED: Final[dict[str, Any]] = {
    "retry_total": 2, "retry_backoff_factor": 0.2, "retry_backoff_max": 1, "connection_timeout": 2, "read_timeout": 3,
}  # fmt: skip
"""The core waits for ten seconds at the most."""
_LONGEST_PAUSE: Final = 2.0
_DISABLED: Final = "SecretDisabled"


class AzureSecretsManager(SecretsManager):
    """Reads Azure Key Vault. A `version` is its 32 hexadecimal digits.

    Raises:
        ConfigurationError: There is no address of a vault.
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
        with told_as("the secret", name):
            client = self._client()
        try:
            secret = client.get_secret(identifier, version)
        except (AzureError, OSError) as error:
            if _quotes(error):
                raise  # the core tells its kind, and nothing more
            if _code(error) == _DISABLED:
                raise self._unusable(name, version, "is disabled") from error
            told = translate(error, "the secret", name)
            raise self._missing(name, version) if isinstance(told, NotFound) else told from error
        self._check_dates(name, version, secret.properties)
        return _value(secret).encode()

    def _check_dates(self, name: str, version: str | None, properties: SecretProperties) -> None:
        # Key Vault gives them out all the same: to whom these dates matter is for its users to say.
        # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#date-time-controlled-operations
        now = datetime.now(UTC)
        if properties.not_before is not None and properties.not_before > now:
            raise self._unusable(name, version, f"is not valid before {properties.not_before.isoformat()}")
        if properties.expires_on is not None and properties.expires_on <= now:
            raise self._unusable(name, version, f"expired on {properties.expires_on.isoformat()}")

    def _client(self) -> SecretClient:
        def make() -> SecretClient:
            return SecretClient(self._vault, clients.credential(), retry_policy=_Retry(**_BOUNDED), **_BOUNDED)

        return clients.shared(("key vault", self._vault), make)

    def _missing(self, name: str, version: str | None) -> NotFound:
        which = "" if version is None else f", or it has no version {version!r}"
        return NotFound(f"No secret {name!r}: {self._vault} has no {identifier_of(name)!r}{which}.", resource=name)

    def _unusable(self, name: str, version: str | None, state: str) -> NotFound:
        which = "its latest version" if version is None else f"its version {version!r}"
        return NotFound(f"The secret {name!r} cannot be read: {which} {state}.", resource=name)


class _Retry(RetryPolicy[Any, Any]):
    """The SDK's own, but that it sleeps for as long as it is told to: a minute, when Key Vault says so."""

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
        """Tell whether to ask again; not when nobody waits for that any more."""
        return (self.get_retry_after(response) or 0) <= _LONGEST_PAUSE and bool(super().is_retry(settings, response))


def _value(secret: KeyVaultSecret) -> str:
    return secret.value or ""


def _quotes(error: Exception) -> bool:
    """Tell whether an error shows what was read: that of an answer which is no JSON holds all of it."""
    return isinstance(error, DecodeError) and error.status_code == 200


def _code(error: Exception) -> str:
    """Return Key Vault's inner code of a refusal: a disabled secret is as forbidden as one that is denied."""
    inner = getattr(error.error, "innererror", None) if isinstance(error, HttpResponseError) else None
    code = inner.get("code") if isinstance(inner, dict) else getattr(inner, "code", None)
    return code if isinstance(code, str) else ""
