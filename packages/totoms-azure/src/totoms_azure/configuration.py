"""Settings of the Azure backend, and Azure's clouds. Credentials are left to the SDK."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import pydantic
from pydantic import AliasChoices, Field, SecretStr, field_validator

from totoms.errors import ConfigurationError
from totoms.plugin import HyperscalerConfiguration

_AUTHORITY: Final = "AZURE_AUTHORITY_HOST"
_NAMESPACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9]")
_HOST: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#]*)?", re.IGNORECASE)
_ACCOUNT: Final = {"accountname", "blobendpoint", "usedevelopmentstorage"}


@dataclass(frozen=True, slots=True)
class Cloud:
    """The public cloud, or a separate one: that of the United States' government or of China.

    ``{tenant}`` stands for the id of a tenant. Hosts:
    https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure#guidance-for-developers
    and https://learn.microsoft.com/azure/china/resources-developer-guide. Issuers:
    https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud.

    Attributes:
        namespaces: What follows the name of a Service Bus namespace.
        issuer: Of Entra ID's tokens of version 1.
        second_issuer: Of those of version 2.
        keys: Where Entra ID publishes the keys of both.
        event_grid: The id of the application Microsoft.EventGrid, the same in every tenant of the cloud; empty if it
            is not published.
    """

    namespaces: str
    issuer: str
    second_issuer: str
    keys: str
    event_grid: str


def _cloud(namespaces: str, sts: str, login: str, event_grid: str) -> Cloud:
    return Cloud(
        namespaces,
        f"https://{sts}/{{tenant}}/",
        f"https://{login}/{{tenant}}/v2.0",
        f"https://{login}/{{tenant}}/discovery/v2.0/keys",
        event_grid,
    )


PUBLIC: Final = _cloud(
    ".servicebus.windows.net",
    "sts.windows.net",
    "login.microsoftonline.com",
    "4962773b-9cdb-44cf-a8bf-237846a00ab7",
)
"""For Event Grid's id here and for the government see
https://learn.microsoft.com/azure/event-grid/scripts/powershell-webhook-secure-delivery-microsoft-entra-app."""
US_GOVERNMENT: Final = _cloud(
    ".servicebus.usgovcloudapi.net",
    "sts.windows.net",
    "login.microsoftonline.us",
    "54316b56-3481-47f9-8f30-0300f5542a7b",
)
CHINA: Final = _cloud(
    ".servicebus.chinacloudapi.cn",
    "sts.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
    "",
)
_BY_AUTHORITY: Final = {
    "login.microsoftonline.us": US_GOVERNMENT,
    "login.chinacloudapi.cn": CHINA,
    "login.partner.microsoftonline.cn": CHINA,
}


def current_cloud() -> Cloud:
    """Return the cloud of ``AZURE_AUTHORITY_HOST``, which the SDK's credential reads as well; by default the public."""
    authority = os.environ.get(_AUTHORITY, "").removeprefix("https://").strip("/").lower()
    return _BY_AUTHORITY.get(authority, PUBLIC)


def _setting(name: str, *variables: str, default: Any = "") -> Any:
    return Field(default=default, validation_alias=AliasChoices(name, *variables))


class AzureConfiguration(HyperscalerConfiguration):
    """The service's resources on Azure: ``AzureConfiguration("westeurope", "prod", ...)``. Constructing it does no I/O.

    Credentials are those that `DefaultAzureCredential` finds: a managed identity, a workload identity, the variables
    ``AZURE_TENANT_ID``, ``AZURE_CLIENT_ID`` and ``AZURE_CLIENT_SECRET``, or the developer's own
    (https://learn.microsoft.com/python/api/azure-identity/azure.identity.defaultazurecredential). A connection string
    takes their place for its service; emulators have nothing else.

    A setting is needed when its service is used: if it is missing then, a `ConfigurationError` names it.

    Attributes:
        region: ``AZURE_REGION``: where the service runs. Addresses on Azure are complete, so nothing is derived of it.
        environment: ``ENVIRONMENT``, by default ``dev``.
        key_vault_url: ``AZURE_KEY_VAULT_URL``: ``https://my-vault.vault.azure.net``.
        storage_account_url: ``AZURE_STORAGE_ACCOUNT_URL``: ``https://myaccount.blob.core.windows.net``.
        storage_connection_string: ``AZURE_STORAGE_CONNECTION_STRING``, in place of that.
        servicebus_namespace: ``AZURE_SERVICEBUS_NAMESPACE``: ``my-namespace``, or its whole host name.
        servicebus_connection_string: ``AZURE_SERVICEBUS_CONNECTION_STRING``, in place of that.
        servicebus_transport: ``AZURE_SERVICEBUS_TRANSPORT``: ``amqp`` (port 5671), by default, or ``websockets`` (port
            443), for networks that let nothing else out; it needs ``aiohttp`` 3, and uses the proxy of ``HTTPS_PROXY``
            (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-faq#what-ports-do-i-need-to-open-on-the-firewall).
        push_secret: ``AZURE_PUSH_SECRET``: what Event Grid sends in the header ``X-Totoms-Push-Secret``; at least 32
            characters.
        push_audience: ``AZURE_PUSH_AUDIENCE``: the audience of the Entra ID tokens with which Event Grid pushes.
            Without it and a secret no push is accepted.
        push_tenant: ``AZURE_PUSH_TENANT_ID``, else ``AZURE_TENANT_ID``: the id of the tenant that issues them.

    Raises:
        ConfigurationError: A setting has an impossible value.
    """

    # Container insights fills its column LogLevel from it:
    # https://learn.microsoft.com/azure/azure-monitor/containers/container-insights-logs-schema
    log_level_field: ClassVar[str] = "level"

    region: str = _setting("region", "AZURE_REGION")
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
    key_vault_url: str = _setting("key_vault_url", "AZURE_KEY_VAULT_URL")
    storage_account_url: str = _setting("storage_account_url", "AZURE_STORAGE_ACCOUNT_URL")
    storage_connection_string: SecretStr = _setting(
        "storage_connection_string", "AZURE_STORAGE_CONNECTION_STRING", default=SecretStr("")
    )
    servicebus_namespace: str = _setting("servicebus_namespace", "AZURE_SERVICEBUS_NAMESPACE")
    servicebus_connection_string: SecretStr = _setting(
        "servicebus_connection_string", "AZURE_SERVICEBUS_CONNECTION_STRING", default=SecretStr("")
    )
    servicebus_transport: Literal["amqp", "websockets"] = _setting(
        "servicebus_transport", "AZURE_SERVICEBUS_TRANSPORT", default="amqp"
    )
    push_secret: SecretStr = _setting("push_secret", "AZURE_PUSH_SECRET", default=SecretStr(""))
    push_audience: str = _setting("push_audience", "AZURE_PUSH_AUDIENCE")
    push_tenant: str = _setting("push_tenant", "AZURE_PUSH_TENANT_ID", "AZURE_TENANT_ID")

    def __init__(self, *given: str, **settings: Any) -> None:
        # 1.5.0 took these by position.
        settings = {**dict(zip(("region", "environment")[: len(given)], given, strict=True)), **settings}
        try:
            super().__init__(**settings)
        except pydantic.ValidationError as error:
            # pydantic's error contains the values, so it is not chained.
            raise ConfigurationError(_explain(error)) from None

    @field_validator("key_vault_url", "storage_account_url", mode="after")
    @classmethod
    def _is_address(cls, value: str) -> str:
        # Over http the SDK refuses to send a credential, with an error that names no setting. A signature belongs into
        # a connection string: an address is not treated as a secret.
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
        return value + current_cloud().namespaces

    @field_validator("push_secret", mode="after")
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    def require(self, service: str, *names: str) -> None:
        """Check that one of these settings is set.

        Args:
            service: What needs it: "Key Vault".
            names: Names of fields.

        Raises:
            ConfigurationError: None is; names the fields and their environment variables.
        """
        if not any(_text(getattr(self, name)) for name in names):
            needed = " or ".join(f"{name} ({_variables(name)[0]})" for name in names)
            raise ConfigurationError(f"AzureConfiguration: {service} needs {needed}.")


def _explain(error: pydantic.ValidationError) -> str:
    names = {alias: name for name in AzureConfiguration.model_fields for alias in (name, *_variables(name))}
    reasons = {}
    for one in error.errors(include_input=False, include_url=False):
        name = names.get(str(one["loc"][0]), "") if one["loc"] else ""
        reasons[f"{name} ({_variables(name)[0]})" if name else "a setting"] = one.get("ctx", {}).get(
            "error", one["msg"]
        )
    return "AzureConfiguration: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) + "."


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _variables(name: str) -> list[str]:
    alias = AzureConfiguration.model_fields[name].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices[1:]]
