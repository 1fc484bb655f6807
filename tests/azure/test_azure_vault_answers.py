"""Invalid answers from Key Vault or a proxy before it, and what an operator does with the SDK."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.keyvault.secrets import SecretClient

from support.azure.secrets import AzureSecretsHarness, secrets_of_a_test
from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms_azure import clients, secrets
from totoms_azure.secrets import identifier_of

CANARY = "the-canary-sings"


@pytest.fixture
def harness() -> Iterator[AzureSecretsHarness]:
    with secrets_of_a_test() as made:
        made.vault.set("a-secret", CANARY)
        yield made


def answering(harness: AzureSecretsHarness, status: int, body: str, **headers: str) -> None:
    """Have the vault answer every request with a token like this."""
    usual = harness.vault.answer

    def answer(request: BaseHTTPRequestHandler, method: str, content: bytes) -> Any:
        given = usual(request, method, content)
        return given if given[0] != 200 else (status, headers, body.encode())

    harness.vault.answer = answer  # type: ignore[method-assign,assignment]


def all_of(error: BaseException) -> str:
    """Return all that an error and those behind it could tell."""
    told = "".join(traceback.format_exception(error))
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
            told += f"{one!r} {one.args!r} {vars(one)!r} {getattr(one, 'doc', '')!r}"
    return told


@pytest.mark.parametrize(
    "body",
    [
        f'{{"value": "{CANARY}',
        f"<html>{CANARY}</html>",
        f'["{CANARY}"]',
        f'"{CANARY}"',
        f'{{"id": "{CANARY}"}}',
        f'{{"value": "x", "id": "{CANARY}"}}',
        f'{{"value": "x", "attributes": {{"exp": "{CANARY}"}}}}',
        f'{{"value": "x", "attributes": "{CANARY}"}}',
    ],
    ids=["cut off", "page", "list", "text", "identifier", "with identifier", "date", "no attributes"],
)
async def test_answer_that_is_not_understood_is_quoted_nowhere(harness: AzureSecretsHarness, body: str) -> None:
    answering(harness, 200, body)

    with pytest.raises(BackendError, match="a-secret") as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.resource == "a-secret"
    assert CANARY not in all_of(caught.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BackendError),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, NotFound),
        (408, Unavailable),
        (418, BackendError),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
@pytest.mark.parametrize(
    "body", ["<html>not for you</html>", '{"error": {"code": "Told", "message": "not for you"}}', ""]
)
async def test_status_decides_even_if_a_proxy_sent_it(
    harness: AzureSecretsHarness, status: int, error: type[BackendError], body: str
) -> None:
    answering(harness, status, body)

    with pytest.raises(error) as caught:
        await harness.manager().get_secret_async("a-secret")

    assert type(caught.value) is error
    assert caught.value.resource == "a-secret"
    assert caught.value.__cause__ is not None
    assert "not for you" not in str(caught.value)


@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms", "x-ms-retry-after-ms"])
async def test_vault_that_wants_a_long_pause_is_not_waited_for(
    harness: AzureSecretsHarness, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    answering(harness, 429, '{"error": {"code": "Throttled"}}', **{header: "60" if header[0] == "R" else "60000"})

    with pytest.raises(Unavailable, match="Throttled"):
        await harness.manager().get_secret_async("a-secret")

    assert slept == []
    assert harness.vault.calls["GET"] == 2  # the first was for the challenge


async def test_vault_that_wants_a_short_pause_is_asked_again(
    harness: AzureSecretsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def back(seconds: float) -> None:
        slept.append(seconds)
        del harness.vault.answer

    answering(harness, 429, '{"error": {"code": "Throttled"}}', **{"Retry-After": "1"})
    monkeypatch.setattr(time, "sleep", back)

    assert await harness.manager().get_secret_async("a-secret") == CANARY
    assert slept == [1]


async def test_connection_that_breaks_in_the_answer_is_tried_again(harness: AzureSecretsHarness) -> None:
    await harness.manager().get_secret_async("a-secret")
    usual = harness.vault.answer
    broken: list[bool] = []

    def answer(request: BaseHTTPRequestHandler, method: str, content: bytes) -> Any:
        if not broken:
            broken.append(True)
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            request.wfile.flush()
            raise ConnectionAbortedError
        return usual(request, method, content)

    harness.vault.answer = answer  # type: ignore[method-assign,assignment]

    assert await harness.manager().get_secret_async("a-secret") == CANARY
    assert broken


async def test_what_the_operator_puts_in_with_the_sdk_is_read(harness: AzureSecretsHarness) -> None:
    operator = SecretClient(harness.vault.url, clients.credential())
    identifier = identifier_of("Mongo_user")

    made = operator.set_secret(identifier, "first")
    operator.set_secret(identifier, "second")

    manager = harness.manager()
    assert await manager.get_secret_async("Mongo_user") == "second"
    assert await manager.get_secret_async("Mongo_user", version=made.properties.version) == "first"
    operator.set_secret(identifier, "third", enabled=False)
    with pytest.raises(NotFound, match="its latest version is disabled"):
        await harness.manager().get_secret_async("Mongo_user")
    operator.close()


async def test_secret_that_is_deleted_is_not_found_though_its_name_is_still_taken(harness: AzureSecretsHarness) -> None:
    operator = SecretClient(harness.vault.url, clients.credential())
    operator.begin_delete_secret("a-secret")

    with pytest.raises(NotFound, match="no 'a-secret'"):
        await harness.manager().get_secret_async("a-secret")
    with pytest.raises(ResourceExistsError, match="ObjectIsDeletedButRecoverable"):
        operator.set_secret("a-secret", "anew")

    operator.purge_deleted_secret("a-secret")
    operator.set_secret("a-secret", "anew")
    assert await harness.manager().get_secret_async("a-secret") == "anew"
    operator.close()


async def test_constructing_the_credential_may_fail(
    harness: AzureSecretsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the SDK says of a variable that is wrong is a ValueError.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "nothing-that-there-is")
    clients.CLIENTS.close()

    with pytest.raises(BackendError, match="a-secret") as caught:
        await harness.manager().get_secret_async("a-secret")

    assert "AZURE_TOKEN_CREDENTIALS" in str(caught.value.__cause__)


def test_one_client_serves_all_managers_of_a_vault(harness: AzureSecretsHarness) -> None:
    manager: Any = harness.manager()
    other: Any = secrets.AzureSecretsManager(harness.environment)

    assert manager._client() is other._client()
