"""Settings: where on Azure a service runs. Credentials are the SDK's own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from azure.servicebus import TransportType

from totoms import CloudStorage, MessageBus, SecretsManager, TotoEnvironment
from totoms.errors import ConfigurationError
from totoms_azure import AzureConfiguration, clients
from totoms_azure.messages import clients as bus_clients

FOREIGN = ("boto", "google", "grpc", "totoms_aws", "totoms_gcp", "totoms.local")
CANARY = "the-canary-that-nobody-may-read-anywhere"
STRING = f"DefaultEndpointsProtocol=https;AccountName=account;AccountKey={CANARY};EndpointSuffix=core.windows.net"
USES = {
    "SecretsManager()": ("Key Vault", ("key_vault_url", "AZURE_KEY_VAULT_URL")),
    "CloudStorage('a-bucket')": (
        "Blob Storage",
        (
            "storage_account_url",
            "AZURE_STORAGE_ACCOUNT_URL",
            "storage_connection_string",
            "AZURE_STORAGE_CONNECTION_STRING",
        ),
    ),
    "MessageBus()": (
        "Service Bus",
        (
            "servicebus_namespace",
            "AZURE_SERVICEBUS_NAMESPACE",
            "servicebus_connection_string",
            "AZURE_SERVICEBUS_CONNECTION_STRING",
        ),
    ),
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_") or name == "ENVIRONMENT"]:
        monkeypatch.delenv(name)


def test_region_and_environment_are_given_as_in_1_5() -> None:
    made = AzureConfiguration("westeurope", "prod")

    assert (made.region, made.environment) == ("westeurope", "prod")
    assert made == AzureConfiguration(region="westeurope", environment="prod")
    assert AzureConfiguration("westeurope").environment == "dev"
    with pytest.raises(ValueError, match="argument"):
        AzureConfiguration("westeurope", "prod", "more")


def test_variables_are_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "AZURE_REGION": "westeurope",
        "ENVIRONMENT": "prod",
        "AZURE_KEY_VAULT_URL": "https://vault.vault.azure.net/",
        "AZURE_STORAGE_ACCOUNT_URL": "https://account.blob.core.windows.net",
        "AZURE_STORAGE_CONNECTION_STRING": STRING,
        "AZURE_SERVICEBUS_NAMESPACE": "a-namespace",
        "AZURE_SERVICEBUS_CONNECTION_STRING": f"Endpoint=sb://x/;SharedAccessKey={CANARY}",
        "AZURE_PUSH_SECRET": CANARY,
        "AZURE_PUSH_AUDIENCE": "api://me",
        "AZURE_TENANT_ID": "a-tenant",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    found = TotoEnvironment("azure").hyperscaler_configuration

    assert isinstance(found, AzureConfiguration)
    assert (found.region, found.environment) == ("westeurope", "prod")
    assert found.key_vault_url == "https://vault.vault.azure.net"
    assert found.storage_account_url == given["AZURE_STORAGE_ACCOUNT_URL"]
    assert found.storage_connection_string.get_secret_value() == STRING
    assert found.servicebus_namespace == "a-namespace.servicebus.windows.net"
    assert found.push_secret.get_secret_value() == CANARY
    assert (found.push_audience, found.push_tenant) == ("api://me", "a-tenant")
    assert AzureConfiguration(region="northeurope").region == "northeurope"
    monkeypatch.setenv("AZURE_PUSH_TENANT_ID", "of-the-pushes")
    assert AzureConfiguration().push_tenant == "of-the-pushes"


@pytest.mark.parametrize("use", USES)
def test_setting_that_is_missing_is_reported_by_its_name_and_its_variables(use: str) -> None:
    environment = TotoEnvironment("azure", AzureConfiguration("westeurope", "prod"))
    makes: dict[str, Any] = {
        "SecretsManager()": lambda: SecretsManager(environment),
        "CloudStorage('a-bucket')": lambda: CloudStorage("a-bucket", environment=environment),
        "MessageBus()": lambda: MessageBus(environment),
    }

    with pytest.raises(ConfigurationError) as caught:
        makes[use]()

    what, names = USES[use]
    assert what in str(caught.value)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["key_vault_url", "storage_account_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://vault.vault.azure.net",
        "vault",
        "vault.vault.azure.net",
        "ftp://x",
        "https://",
        "https://a b",
        "https://user:password@x",
        "https://x/?sv=1&sig=canary",
        "https://x#y",
    ],
)
def test_invalid_or_unencrypted_address_is_refused(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"AZURE_{name.upper()}") as caught:
        AzureConfiguration(**{name: url})
    assert "canary" not in repr(caught.value)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("a-namespace", "a-namespace.servicebus.windows.net"),
        ("a-namespace.servicebus.windows.net", "a-namespace.servicebus.windows.net"),
        ("a-namespace.servicebus.chinacloudapi.cn", "a-namespace.servicebus.chinacloudapi.cn"),
    ],
)
def test_namespace_is_a_name_or_a_host(given: str, host: str) -> None:
    assert AzureConfiguration(servicebus_namespace=given).servicebus_namespace == host


@pytest.mark.parametrize(
    "given", ["sb://a-namespace.servicebus.windows.net", "short", "1namespace", "a namespace", "a-namespace/", "ü" * 9]
)
def test_what_is_not_a_namespace_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="AZURE_SERVICEBUS_NAMESPACE"):
        AzureConfiguration(servicebus_namespace=given)


def test_nothing_secret_is_in_a_repr() -> None:
    made = AzureConfiguration(
        storage_connection_string=STRING, servicebus_connection_string=f"SharedAccessKey={CANARY}", push_secret=CANARY
    )

    for told in (repr(made), str(made), repr(TotoEnvironment("azure", made)), repr(made.model_dump())):
        assert CANARY not in told


@pytest.mark.parametrize(
    "settings",
    [
        {"push_secret": "canary"},
        {"storage_connection_string": ["canary"]},
        {"servicebus_connection_string": 7, "region": "canary"},
        {"key_vault_url": "http://canary:canary@x"},
        {"region": ["canary"], "push_secret": CANARY},
    ],
)
def test_error_about_a_setting_does_not_quote_it(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureConfiguration(**settings)

    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "string",
    [STRING, STRING + ";", "UseDevelopmentStorage=true", "BlobEndpoint=https://x/;SharedAccessSignature=sv=1&sig=x%3D"],
)
def test_connection_string_is_taken_as_it_is(string: str) -> None:
    assert AzureConfiguration(storage_connection_string=string).storage_connection_string.get_secret_value() == string


@pytest.mark.parametrize("string", [CANARY, f"AccountKey={CANARY}", f"AccountName=a;{CANARY};x=", "=", "AccountName="])
def test_invalid_connection_string_is_reported_without_quoting_it(string: str) -> None:
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
        AzureConfiguration(storage_connection_string=string)

    assert CANARY not in str(caught.value)


def run(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )


def modules(source: str) -> set[str]:
    done = run(
        source + "; import sys; print(*sys.modules)",
        HYPERSCALER="azure",
        AZURE_KEY_VAULT_URL="https://vault.vault.azure.net",
        AZURE_SERVICEBUS_NAMESPACE="a-namespace",
        AZURE_STORAGE_ACCOUNT_URL="https://account.blob.core.windows.net",
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "source", ["import totoms", "import totoms_azure", "import totoms; totoms.TotoEnvironment('azure')"]
)
def test_importing_and_settings_alone_load_no_sdk(source: str) -> None:
    loaded = modules(source)

    assert not [name for name in loaded if name.startswith(("azure", "msal", "requests", *FOREIGN))]


@pytest.mark.parametrize("made", USES)
def test_service_on_azure_loads_nothing_of_other_clouds(made: str) -> None:
    loaded = modules(f"import totoms; totoms.{made}")

    assert "azure.core" in loaded
    assert not [name for name in loaded if name.startswith(FOREIGN)]


def test_service_with_an_invalid_setting_ends_with_one_line() -> None:
    source = "import totoms; totoms.TotoEnvironment.from_variables()"
    done = run(source, HYPERSCALER="azure", AZURE_KEY_VAULT_URL="http://vault")

    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "AZURE_KEY_VAULT_URL" in done.stderr


def test_one_client_serves_all_threads() -> None:
    assert clients.credential() is clients.credential()


def test_child_that_was_forked_makes_clients_of_its_own() -> None:
    mine = clients.credential()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writing, b"own" if clients.credential() is not mine else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reading, 100)
    os.close(reading)
    os.close(writing)
    clients.CLIENTS.close()

    assert answer == b"own"


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("", "a-namespace.servicebus.windows.net"),
        ("https://login.microsoftonline.com/", "a-namespace.servicebus.windows.net"),
        ("https://login.microsoftonline.us", "a-namespace.servicebus.usgovcloudapi.net"),
        ("login.microsoftonline.us", "a-namespace.servicebus.usgovcloudapi.net"),
        ("https://login.chinacloudapi.cn/", "a-namespace.servicebus.chinacloudapi.cn"),
        ("login.partner.microsoftonline.cn", "a-namespace.servicebus.chinacloudapi.cn"),
    ],
)
def test_namespace_is_completed_for_the_cloud_of_the_authority(
    monkeypatch: pytest.MonkeyPatch, authority: str, host: str
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority)
    assert AzureConfiguration(servicebus_namespace="a-namespace").servicebus_namespace == host
    whole = "a-namespace.servicebus.cloudapi.de"
    assert AzureConfiguration(servicebus_namespace=whole).servicebus_namespace == whole


def test_websockets_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_clients.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("AZURE_SERVICEBUS_TRANSPORT", "websockets")
    options = bus_clients._transport(AzureConfiguration(servicebus_namespace="a-namespace"))
    assert options["transport_type"] == TransportType.AmqpOverWebsocket
    assert options["http_proxy"] == {
        "proxy_hostname": "http://proxy.example",
        "proxy_port": 3128,
        "username": "me",
        "password": "p@ss",
    }
    monkeypatch.setenv("NO_PROXY", "a-namespace.servicebus.windows.net")
    assert "http_proxy" not in bus_clients._transport(AzureConfiguration(servicebus_namespace="a-namespace"))
    assert bus_clients._transport(AzureConfiguration(servicebus_transport="amqp")) == {}


def test_websockets_without_aiohttp_are_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_clients.importlib.util, "find_spec", lambda _name: None)
    settings = AzureConfiguration(servicebus_namespace="a-namespace", servicebus_transport="websockets")
    with pytest.raises(ConfigurationError, match="pip install 'aiohttp<4'"):
        bus_clients._transport(settings)


def test_unknown_transport_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="AZURE_SERVICEBUS_TRANSPORT"):
        AzureConfiguration(servicebus_transport="carrier pigeons")
