"""The clouds of the United States' government and of China: accepted issuers, and the source of tokens."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from standins.azure.entra import SECRET as CLIENT_SECRET
from standins.azure.entra import TENANT as ENTRA_TENANT
from standins.azure.entra import EntraStandIn
from standins.azure.key_vault import KeyVaultStandIn
from standins.connect_proxy import ConnectProxy
from support.azure.push import AUDIENCE, SECRET, TENANT, AzurePushHarness, EventGrid
from support.http.app import KeyServer, rsa_key
from totoms import SecretsManager, TotoEnvironment
from totoms.auth import jwks
from totoms.errors import ConfigurationError, Forbidden, Unauthorized
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received
from totoms.testing import Pushed
from totoms_azure import AzureConfiguration, clients
from totoms_azure.configuration import CHINA, PUBLIC, US_GOVERNMENT, current_cloud
from totoms_azure.messages.push_verifier import PushVerifier

BODY = b'{"type":"postCreated","id":"post-1"}'
AUTHORITIES = {
    "login.microsoftonline.us": ("shop.vault.usgovcloudapi.net", US_GOVERNMENT),
    "login.chinacloudapi.cn": ("shop.vault.azure.cn", CHINA),
    "login.partner.microsoftonline.cn": ("blog.vault.azure.cn", CHINA),
    "login.microsoftonline.com": ("shop.vault.azure.net", PUBLIC),
}


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    monkeypatch.setattr(jwks, "FAILED_COOLDOWN", 0.0)
    server = KeyServer()
    server.keys["one"] = rsa_key()
    with server.running():
        yield server


@pytest.fixture
async def government(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AzurePushHarness]:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us")
    made = AzurePushHarness(EventGrid(key_server), key_server.keys["one"])
    yield made
    await made.close()


async def _pushed(harness: AzurePushHarness, **claims: Any) -> list[bytes]:
    token = harness.grid.token(**claims)
    pushed: Pushed = harness.grid.request(harness.grid.event(BODY), headers={"authorization": f"Bearer {token}"})
    bus = await harness.connect()
    accepted = await bus._accept_push(PushRequest(pushed.headers, pushed.body, harness.url, pushed.method))
    assert isinstance(accepted, list)
    return [one.body for one in accepted if isinstance(one, Received)]


FIRST = {"iss": f"https://sts.windows.net/{TENANT}/", "appid": US_GOVERNMENT.event_grid}
SECOND = {
    "iss": f"https://login.microsoftonline.us/{TENANT}/v2.0",
    "appid": None,
    "azp": US_GOVERNMENT.event_grid,
    "ver": "2.0",
}


@pytest.mark.parametrize("claims", [FIRST, SECOND], ids=["version 1", "version 2"])
async def test_token_of_the_governments_event_grid_is_taken_there(
    government: AzurePushHarness, claims: dict[str, Any]
) -> None:
    assert await _pushed(government, **claims) == [BODY]


@pytest.mark.parametrize(
    "changed",
    [
        {"appid": PUBLIC.event_grid},
        {"iss": f"https://sts.chinacloudapi.cn/{TENANT}/"},
        {**SECOND, "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0"},
    ],
    ids=["the public cloud's application", "China's issuer", "the public cloud's issuer"],
)
async def test_token_of_another_cloud_is_refused_in_the_governments(
    government: AzurePushHarness, changed: dict[str, Any]
) -> None:
    with pytest.raises((Unauthorized, Forbidden)):
        await _pushed(government, **{**FIRST, **changed})
    assert await _pushed(government, **FIRST) == [BODY]


@pytest.mark.parametrize("claims", [FIRST, SECOND], ids=["version 1", "version 2"])
async def test_token_of_the_governments_event_grid_is_refused_in_the_public_cloud(
    government: AzurePushHarness, monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any]
) -> None:
    monkeypatch.delenv("AZURE_AUTHORITY_HOST")
    with pytest.raises((Unauthorized, Forbidden)):
        await _pushed(government, **claims)


def test_tokens_cannot_be_verified_in_china_but_a_secret_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.chinacloudapi.cn")

    with pytest.raises(ConfigurationError, match="AZURE_PUSH_SECRET"):
        PushVerifier(AzureConfiguration(push_audience=AUDIENCE, push_tenant=TENANT))
    assert PushVerifier(AzureConfiguration(push_secret=SECRET)).accepts


@pytest.mark.parametrize("authority", AUTHORITIES)
async def test_secret_is_read_with_a_token_of_the_clouds_own_authority(
    monkeypatch: pytest.MonkeyPatch, authority: str
) -> None:
    host, cloud = AUTHORITIES[authority]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with EntraStandIn(context=context) as entra, KeyVaultStandIn(entra, host=host) as vault:
        vault.authority.issue_cert(authority).configure_cert(context)
        vault.set("a-secret", "a value")
        with ConnectProxy({authority: entra.port, host: vault.port}) as proxy:
            for name, value in {
                "AZURE_AUTHORITY_HOST": f"https://{authority}",
                "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
                "AZURE_TENANT_ID": ENTRA_TENANT,
                "AZURE_CLIENT_ID": "an application",
                "AZURE_CLIENT_SECRET": CLIENT_SECRET,
                "REQUESTS_CA_BUNDLE": vault.ca_file,
                "HTTPS_PROXY": proxy.url,
            }.items():
                monkeypatch.setenv(name, value)
            clients.CLIENTS.close()
            try:
                manager = SecretsManager(TotoEnvironment("azure", AzureConfiguration(key_vault_url=vault.url)))
                assert await manager.get_secret_async("a-secret") == "a value"
            finally:
                clients.CLIENTS.close()
        assert current_cloud() is cloud
        assert set(proxy.asked) == {f"{authority}:443", f"{host}:443"}
        assert entra.asked == [f"https://{host.partition('.')[2]}"]
