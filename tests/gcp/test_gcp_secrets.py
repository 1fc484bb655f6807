"""Secrets of Secret Manager: what the secrets contract does not see. States, checksums, names, versions, logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from support.gcp.secrets import GCPSecretsHarness, secrets_of_a_test
from totoms.errors import CorruptData, NotFound
from totoms_gcp.secrets import identifier_of


@pytest.fixture
def harness() -> Iterator[GCPSecretsHarness]:
    with secrets_of_a_test() as made:
        yield made


@pytest.mark.parametrize("state", ["disabled", "destroyed"])
async def test_version_that_is_not_enabled_is_not_found_and_says_so(harness: GCPSecretsHarness, state: str) -> None:
    await harness.set_secret("a-secret", b"first")
    await harness.set_secret("a-secret", b"second")
    change = harness.operator.disable_secret_version if state == "disabled" else harness.operator.destroy_secret_version
    change(name=f"{harness.path('a-secret')}/versions/2")
    manager = harness.manager()

    for version in (None, "2"):
        with pytest.raises(NotFound, match=state) as caught:
            await manager.get_secret_async("a-secret", version=version)
        assert caught.value.resource == "a-secret"
        assert caught.value.__cause__ is not None
    assert await manager.get_secret_async("a-secret", version="1") == "first"


async def test_state_is_not_taken_from_the_name(harness: GCPSecretsHarness) -> None:
    await harness.set_secret("destroyed-ships", b"first")
    harness.operator.disable_secret_version(name=f"{harness.path('destroyed-ships')}/versions/1")

    with pytest.raises(NotFound, match="is disabled"):
        await harness.manager().get_secret_async("destroyed-ships")


async def test_value_without_its_checksum_is_corrupt(harness: GCPSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"value")
    harness.server.damaged = True

    with pytest.raises(CorruptData, match="a-secret") as caught:
        await harness.manager().get_secret_async("a-secret")

    assert "value" not in repr(caught.value)


async def test_alias_names_a_version(harness: GCPSecretsHarness) -> None:
    await harness.set_secret("a-secret", b"first")
    await harness.set_secret("a-secret", b"second")
    harness.server.secrets[harness.path("a-secret")].aliases["stable"] = 1
    manager = harness.manager()

    assert await manager.get_secret_async("a-secret", version="stable") == "first"
    assert await manager.get_secret_async("a-secret", version="latest") == "second"
    with pytest.raises(NotFound, match="'other'"):
        await manager.get_secret_async("a-secret", version="other")


@pytest.mark.parametrize("version", ["1/../2", "../../other/versions/1", "a b", "ü", "x" * 64, "-1%2F"])
async def test_version_that_none_can_be_is_not_found_and_not_asked_for(
    harness: GCPSecretsHarness, version: str
) -> None:
    await harness.set_secret("a-secret", b"value")

    with pytest.raises(NotFound):
        await harness.manager().get_secret_async("a-secret", version=version)

    assert harness.server.calls["AccessSecretVersion"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jwt-signing_key", "jwt-signing_key"),
        ("a/b", "a_x2Fb"),
        ("a.b", "a_x2Eb"),
        ("a_x2Eb", "a_x5Fx2Eb"),
        ("_x2", "_x2"),
        ("_x2.", "_x2_x2E"),
        ("ü", "_xC3_xBC"),
        ("_", "_"),
        ("_x.", "_x_x2E"),
    ],
)
def test_name_is_its_own_where_google_allows_it(name: str, expected: str) -> None:
    assert identifier_of(name) == expected


async def test_name_that_is_too_long_for_google_is_not_found(harness: GCPSecretsHarness) -> None:
    with pytest.raises(NotFound, match="ü"):
        await harness.manager().get_secret_async("ü" * 100)

    assert harness.server.calls["AccessSecretVersion"] == 0


async def test_sdk_that_logs_everything_does_not_log_the_value(
    harness: GCPSecretsHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.set_secret("a-secret", b"the-canary")
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="google"):
        assert await harness.manager().get_secret_async("a-secret") == "the-canary"

    assert "the-canary" not in caplog.text + repr([vars(record) for record in caplog.records])
    assert "dGhlLWNhbmFyeQ" not in repr([vars(record) for record in caplog.records])
