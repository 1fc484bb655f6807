"""Settings of the Azure backend. Credentials are the SDK's own affair and settings."""

from __future__ import annotations

import re
from typing import Any, Final

import pydantic
from pydantic import AliasChoices, Field, SecretStr, field_validator

from totoms.errors import ConfigurationError
from totoms.hyperscaler import HyperscalerConfiguration

_NAMESPACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9]")
_HOST: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#]*)?", re.IGNORECASE)
_ACCOUNT: Final = {"accountname", "blobendpoint", "usedevelopmentstorage"}
_PUBLIC_CLOUD: Final = ".servicebus.windows.net"


class AzureConfiguration(HyperscalerConfiguration):
    """Where on Azure the service runs: ``AzureConfiguration("westeurope", "prod", ...)``. Constructing it does no I/O.

    Credentials are those that `DefaultAzureCredential` finds: a managed identity, a workload identity, the variables
    ``AZURE_TENANT_ID``, ``AZURE_CLIENT_ID`` and ``AZURE_CLIENT_SECRET``, or the developer's own
    (https://learn.microsoft.com/python/api/azure-identity/azure.identity.defaultazurecredential). A connection string
    takes their place for its service; emulators have nothing else.

    Each service's setting is needed when that is used: then a missing one is a `ConfigurationError` that names it.

    Attributes:
        region: ``AZURE_REGION``: where the service runs. Addresses on Azure are whole, so nothing is derived from it.
        environment: ``ENVIRONMENT``, by default ``dev``.
        key_vault_url: ``AZURE_KEY_VAULT_URL``: ``https://my-vault.vault.azure.net``.
        storage_account_url: ``AZURE_STORAGE_ACCOUNT_URL``: ``https://myaccount.blob.core.windows.net``.
        storage_connection_string: ``AZURE_STORAGE_CONNECTION_STRING``, in place of that.
        servicebus_namespace: ``AZURE_SERVICEBUS_NAMESPACE``: ``my-namespace``, or its whole host name.
        servicebus_connection_string: ``AZURE_SERVICEBUS_CONNECTION_STRING``, in place of that.
        push_secret: ``AZURE_PUSH_SECRET``: what Event Grid sends in the header ``X-Totoms-Push-Secret``; at least 32
            characters.
        push_audience: ``AZURE_PUSH_AUDIENCE``: the audience of the Entra ID tokens with which Event Grid pushes.
            Without it and a secret nothing that is pushed is accepted.
        push_tenant: ``AZURE_PUSH_TENANT_ID``, else ``AZURE_TENANT_ID``: the id of the tenant that issues them.

    Raises:
        ConfigurationError: A setting is nothing that could be one.
    """

    region: str = Field(default="", validation_alias=AliasChoices("region", "AZURE_REGION"))
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
    key_vault_url: str = Field(default="", validation_alias=AliasChoices("key_vault_url", "AZURE_KEY_VAULT_URL"))
    storage_account_url: str = Field(
        default="", validation_alias=AliasChoices("storage_account_url", "AZURE_STORAGE_ACCOUNT_URL")
    )
    storage_connection_string: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("storage_connection_string", "AZURE_STORAGE_CONNECTION_STRING"),
    )
    servicebus_namespace: str = Field(
        default="", validation_alias=AliasChoices("servicebus_namespace", "AZURE_SERVICEBUS_NAMESPACE")
    )
    servicebus_connection_string: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("servicebus_connection_string", "AZURE_SERVICEBUS_CONNECTION_STRING"),
    )
    push_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("push_secret", "AZURE_PUSH_SECRET")
    )
    push_audience: str = Field(default="", validation_alias=AliasChoices("push_audience", "AZURE_PUSH_AUDIENCE"))
    push_tenant: str = Field(
        default="", validation_alias=AliasChoices("push_tenant", "AZURE_PUSH_TENANT_ID", "AZURE_TENANT_ID")
    )

    def __init__(self, *given: str, **settings: Any) -> None:
        # In order, as they have been since there is such a class.
        settings = {**dict(zip(("region", "environment")[: len(given)], given, strict=True)), **settings}
        try:
            super().__init__(**settings)
        except pydantic.ValidationError as error:
            # Without that one behind it: it holds the values.
            raise ConfigurationError(_told(error)) from None

    @field_validator("key_vault_url", "storage_account_url", mode="after")
    @classmethod
    def _is_address(cls, value: str) -> str:
        # Over http a credential would be in the open; the SDK refuses to send one, with an error that names no setting.
        # A signature in the address would be seen wherever that is: it belongs into a connection string.
        if value and not _ADDRESS.fullmatch(value):
            raise ValueError("must be an address that begins with https://, without a user and a query")
        return value.rstrip("/")

    @field_validator("storage_connection_string", mode="after")
    @classmethod
    def _is_connection_string(cls, value: SecretStr) -> SecretStr:
        parts = [part.partition("=") for part in value.get_secret_value().rstrip(";").split(";")]
        given = {name.lower() for name, _, setting in parts if setting}
        if value.get_secret_value() and not (all(equals for _, equals, _ in parts) and given & _ACCOUNT):
            raise ValueError("must be the connection string of a storage account")
        return value

    @field_validator("servicebus_namespace", mode="after")
    @classmethod
    def _is_namespace(cls, value: str) -> str:
        if not value or _HOST.fullmatch(value):
            return value
        if not _NAMESPACE.fullmatch(value):
            raise ValueError("must be the name of a namespace, or its host name")
        return value + _PUBLIC_CLOUD

    @field_validator("push_secret", mode="after")
    @classmethod
    def _is_no_password(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    def require(self, what: str, *names: str) -> None:
        """See that one of these settings is there.

        Args:
            what: What needs it: "Key Vault".
            names: Names of fields.

        Raises:
            ConfigurationError: None is; names the field and its environment variable.
        """
        if not any(_text(getattr(self, name)) for name in names):
            told = " or ".join(f"{name} ({_variable(name)})" for name in names)
            raise ConfigurationError(f"AzureConfiguration: {what} needs {told}.")


def _told(error: pydantic.ValidationError) -> str:
    names = {alias: name for name in AzureConfiguration.model_fields for alias in (name, *_variables(name))}
    found = {}
    for one in error.errors(include_input=False, include_url=False):
        name = names.get(str(one["loc"][0]), "") if one["loc"] else ""
        found[f"{name} ({_variable(name)})" if name else "a setting"] = one.get("ctx", {}).get("error", one["msg"])
    return "AzureConfiguration: " + "; ".join(f"{name}: {reason}" for name, reason in found.items()) + "."


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _variable(name: str) -> str:
    return _variables(name)[0]


def _variables(name: str) -> list[str]:
    alias = AzureConfiguration.model_fields[name].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices[1:]]
