"""Secrets of Key Vault, beyond the secrets contract: states, names, versions, identities, logs."""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from standins.azure.key_vault import KeyVaultStandIn
from support.azure.secrets import AzureSecretsHarness, secrets_of_a_test
from totoms import SecretsManager, TotoEnvironment
from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms_azure import AzureConfiguration
from totoms_azure.secrets import LONGEST, identifier_of

HOUR = 3600
CANARY = "the-canary-sings"


@pytest.fixture
def harness() -> Iterator[AzureSecretsHarness]:
    with secrets_of_a_test() as made:
        yield made


@pytest.mark.parametrize(
    ("attributes", "state"),
    [
        (lambda: {"enabled": False}, "is disabled"),
        (lambda: {"nbf": int(time.time()) + HOUR}, "is not valid before"),
        (lambda: {"exp": int(time.time()) - HOUR}, "expired on"),
        (lambda: {"exp": int(time.time()) - HOUR, "enabled": False}, "is disabled"),
    ],
    ids=["disabled", "not yet valid", "expired", "both"],
)
async def test_version_that_cannot_be_used_is_not_found_and_says_which_and_why(
    harness: AzureSecretsHarness, attributes: Any, state: str
) -> None:
    first = await harness.set_secret("a-secret", b"first")
    second = harness.vault.set("a-secret", CANARY, **attributes())
    manager = harness.manager()

    for version, which in ((None, "its latest version"), (second, f"its version {second!r}")):
        with pytest.raises(NotFound, match=f"{re.escape(which)} {state}") as caught:
            await manager.get_secret_async("a-secret", version=version)
        assert caught.value.resource == "a-secret"
        assert CANARY not in repr(caught.value)
    assert await manager.get_secret_async("a-secret", version=first) == "first"


async def test_version_within_its_dates_is_read(harness: AzureSecretsHarness) -> None:
    now = int(time.time())
    harness.vault.set("a-secret", "value", nbf=now - HOUR, exp=now + HOUR)

    assert await harness.manager().get_secret_async("a-secret") == "value"


async def test_secret_that_is_deleted_or_has_no_such_version_is_not_found(harness: AzureSecretsHarness) -> None:
    version = await harness.set_secret("a-secret", b"value")
    manager = harness.manager()
    with pytest.raises(NotFound, match="'00000000000000000000000000000000'") as other:
        await manager.get_secret_async("a-secret", version="0" * 32)
    await harness.set_secret("a-secret", None)

    with pytest.raises(NotFound, match=f"{harness.vault.url} has no 'a-secret'") as caught:
        await manager.get_secret_async("a-secret")
    with pytest.raises(NotFound, match=f"no version '{version}'"):
        await harness.manager().get_secret_async("a-secret", version=version)

    assert other.value.resource == caught.value.resource == "a-secret"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "version", ["1", "latest", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + " ", "../" + "0" * 32, "٣" * 32, "0" * 31 + "/"]
)
async def test_version_that_none_can_be_is_not_found_and_not_asked_for(
    harness: AzureSecretsHarness, version: str
) -> None:
    await harness.set_secret("a-secret", b"value")

    with pytest.raises(NotFound):
        await harness.manager().get_secret_async("a-secret", version=version)

    assert not harness.vault.calls


async def test_name_that_is_too_long_for_key_vault_is_not_found_and_not_asked_for(harness: AzureSecretsHarness) -> None:
    with pytest.raises(NotFound, match="ü"):
        await harness.manager().get_secret_async("ü" * 16)
    assert not harness.vault.calls

    await harness.set_secret("x" * LONGEST, b"value")
    assert await harness.manager().get_secret_async("x" * LONGEST) == "value"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_vault_that_fails_is_unavailable_after_it_was_asked_again(
    harness: AzureSecretsHarness, status: int
) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.vault.status = status

    with pytest.raises(Unavailable, match="a-secret") as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.__cause__ is not None
    assert "As the stand-in says" not in str(caught.value)
    assert harness.vault.calls["GET"] == 2


async def test_secret_that_is_denied_is_not_reported_as_a_disabled_one(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    await harness.deny("a-secret")

    with pytest.raises(AccessDenied, match="Forbidden") as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.resource == "a-secret"
    assert caught.value.__cause__ is not None


async def test_identity_that_is_refused_is_denied(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.entra.status = 400

    with pytest.raises(AccessDenied) as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.resource == "a-secret"
    harness.entra.status = 200
    assert await harness.manager().get_secret_async("a-secret") == "value"


@pytest.mark.parametrize("status", [429, 500])
async def test_identity_that_cannot_be_had_now_is_unavailable(harness: AzureSecretsHarness, status: int) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.entra.status = status

    with pytest.raises(Unavailable) as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.resource == "a-secret"


async def test_identity_that_is_away_is_unavailable_until_it_is_back(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.entra.stop()

    with pytest.raises(Unavailable) as caught:
        await harness.manager().get_secret_async("a-secret")

    assert caught.value.resource == "a-secret"
    harness.entra.start()
    assert await harness.manager().get_secret_async("a-secret") == "value"


async def test_one_token_serves_many_secrets(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    for _ in range(3):
        assert await harness.manager().get_secret_async("a-secret") == "value"
    assert harness.entra.asked == [harness.vault.resource]


async def test_token_that_ends_soon_is_renewed(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.entra.lifetime = 60  # the SDK wants a new one five minutes before

    for _ in range(2):
        assert await harness.manager().get_secret_async("a-secret") == "value"

    assert len(harness.entra.asked) == 2


async def test_two_vaults_do_not_mix(harness: AzureSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"of the first")
    assert await harness.manager().get_secret_async("a-secret") == "of the first"
    with KeyVaultStandIn(harness.entra, ca_file=harness.vault.ca_file) as other:
        # Its authority has taken the place of the first's, in the file that is trusted.
        environment = TotoEnvironment("azure", AzureConfiguration(key_vault_url=other.url))
        other.set("a-secret", "of the second")

        assert await SecretsManager(environment).get_secret_async("a-secret") == "of the second"


# --- names ---


def decoded(identifier: str) -> str:
    """Return the name: what was written out, read from the left."""
    written = re.compile(r"--|-x([0-9a-f]{2})|(.)", re.DOTALL)
    pieces = [
        b"_" if found[0] == "--" else bytes.fromhex(found[1]) if found[1] else found[2].encode()
        for found in written.finditer(identifier)
    ]
    return b"".join(pieces).decode()


NAMES = st.text(min_size=1, max_size=40) | st.text("abxyz0189_-./AX", min_size=1, max_size=40)


@given(NAMES.filter(lambda name: name.isprintable()))
@example("-")
@example("--")
@example("-x2d")
@example("-_")
@example("_-")
@example("a-x2")
@example("-X2d")
@example("--x2d")
@example("_x2d")
@example("-ü")
def test_every_name_can_be_distinguished_from_what_key_vault_calls_it(name: str) -> None:
    identifier = identifier_of(name)

    assert re.fullmatch("[a-z0-9-]+", identifier)  # Key Vault takes capitals for small letters
    assert decoded(identifier) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jwt-signing-key", "jwt-signing-key"),
        ("jwt_signing_key", "jwt--signing--key"),
        ("a/b", "a-x2fb"),
        ("A", "-x41"),
        ("-x2d", "-x2dx2d"),
        ("ü", "-xc3-xbc"),
        ("x-ray", "x-ray"),
    ],
)
def test_name_is_its_own_where_key_vault_allows_it(name: str, expected: str) -> None:
    assert identifier_of(name) == expected


# --- logs ---


def everything(records: list[logging.LogRecord]) -> str:
    return repr([(vars(record), record.getMessage()) for record in records])


async def test_sdk_that_logs_everything_logs_no_value_and_no_token(
    harness: AzureSecretsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await harness.set_secret("a-secret", CANARY.encode())
    given_out: list[str] = []
    make = harness.entra.token
    harness.entra.token = lambda *a, **k: given_out.append(make(*a, **k)) or given_out[-1]  # type: ignore[method-assign,func-returns-value]
    with (
        caplog.at_level(logging.DEBUG),
        caplog.at_level(logging.DEBUG, "azure"),
        caplog.at_level(logging.DEBUG, "msal"),
    ):
        assert await harness.manager().get_secret_async("a-secret") == CANARY
        await harness.deny("a-secret")
        with pytest.raises(BackendError) as caught:
            await harness.manager().get_secret_async("a-secret")

    assert given_out
    logged = everything(caplog.records)
    assert "azure.core" in logged
    for canary in (CANARY, base64.b64encode(CANARY.encode()).decode(), *given_out):
        assert canary not in logged
        assert canary not in repr(caught.value) + repr(caught.value.__cause__)


async def test_sdk_does_not_flood_the_log_of_a_service(
    harness: AzureSecretsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await harness.set_secret("a-secret", b"value")
    with caplog.at_level(logging.DEBUG):
        assert await harness.manager().get_secret_async("a-secret") == "value"

    assert not [record for record in caplog.records if record.name.startswith(("azure", "msal", "urllib3"))]
