"""Values stored with a newline at their end, as ``echo key | ...`` does: they work, and a warning names them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.http.app import Log
from totoms import SecretsManager, TotoControllerConfig, TotoEnvironment
from totoms.auth.authenticator import Authenticator
from totoms.auth.tokens import make_token, new_toto_service_token
from totoms.cli import main as cli
from totoms.secrets import trimming as ends
from totoms_aws.configuration import AWSConfiguration
from totoms_azure.configuration import AzureConfiguration
from totoms_gcp.configuration import GCPConfiguration

KEY = "canary-key-of-more-than-thirty-two-bytes"
BLANKS = ["\n", "\r\n", " ", "\t", " \n\n", "\ufeff"]


class Config(TotoControllerConfig):
    def get_mongo_secret_names(self) -> dict[str, str]:
        return {"user_secret_name": "user", "pwd_secret_name": "pwd"}


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ends, "_warned", set())


@pytest.fixture
def log() -> Iterator[Log]:
    with Log().collecting() as log:
        yield log


def store(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    values = {
        "JWT_SIGNING_KEY": KEY,
        "TOTO_EXPECTED_AUDIENCE": "audience",
        "MONGO_HOST": "mongo.example",
        "USER": "blogger",
        "PWD": "canary-password",
        "TOTO_REGISTRY_ENDPOINT": "https://registry.example",
        "POSTS_TOPIC": "arn:aws:sns:eu-north-1:1:posts",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, blank + value + blank)


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
async def test_what_we_read_has_no_blanks_at_its_ends(blank: str, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    store(monkeypatch, blank)
    for _ in range(2):
        config = await Config(TotoEnvironment("local")).load()
        secrets = config.secrets_manager
        identifiers = [
            secrets.topic_identifier("posts-topic", "posts"),
            await secrets.topic_identifier_async("posts-topic", "posts"),
        ]
    assert (config.jwt_key, config.jwt_expected_audience) == (KEY, "audience")
    assert (config.mongo_host, config.mongo_user, config.mongo_pwd) == ("mongo.example", "blogger", "canary-password")
    assert config.toto_registry_endpoint == "https://registry.example"
    assert identifiers == ["arn:aws:sns:eu-north-1:1:posts"] * 2

    warnings = [one["message"] for one in log.records() if one["severity"] == "WARNING"]
    for name in ("jwt-signing-key", "toto-expected-audience", "mongo-host", "user", "pwd", "posts-topic"):
        assert sum(repr(name) in line for line in warnings) == 1, name
    assert not any(canary in log.text for canary in (KEY, "canary-password"))


async def test_get_secret_returns_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "\n")
    assert SecretsManager(TotoEnvironment("local")).get_secret("jwt-signing-key") == f"\n{KEY}\n"


async def test_values_without_blanks_are_not_warned_of(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    store(monkeypatch, "")
    await Config(TotoEnvironment("local")).load()
    assert "blanks" not in log.text


async def test_key_with_a_newline_verifies_tokens_made_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "\n")
    config = await Config(TotoEnvironment("local")).load()
    for token in (make_token(KEY, "me"), new_toto_service_token(config)):
        assert (await Authenticator(config).authenticate([f"Bearer {token}".encode()])).auth_provider == "toto"


async def test_token_of_the_command_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "\n")
    monkeypatch.setenv("HYPERSCALER", "local")
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    await asyncio.to_thread(cli.main, ["token", "--user", "me@example.com"])
    config = await Config(TotoEnvironment("local")).load()
    user = await Authenticator(config).authenticate([f"Bearer {written.getvalue().strip()}".encode()])
    assert user.email == "me@example.com"


def test_settings_of_backends_have_no_blanks_at_their_ends(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    for name, value in {
        "AWS_REGION": "eu-west-1",
        "GCP_PID": "project",
        "GCP_PUSH_AUDIENCE": "https://us.example/events",
        "GCP_PUSH_SERVICE_ACCOUNT": "push@project.iam.gserviceaccount.com",
        "AZURE_PUSH_AUDIENCE": "api://us",
        "AZURE_PUSH_TENANT_ID": "11111111-2222-3333-4444-555555555555",
        "AZURE_PUSH_SECRET": "s" * 40,
    }.items():
        monkeypatch.setenv(name, value + "\n")
    gcp, azure = GCPConfiguration(), AzureConfiguration()
    assert AWSConfiguration().region == "eu-west-1"
    assert (gcp.project_id, gcp.push_audience) == ("project", "https://us.example/events")
    assert gcp.push_service_account == "push@project.iam.gserviceaccount.com"
    assert (azure.push_audience, azure.push_tenant) == ("api://us", "11111111-2222-3333-4444-555555555555")
    assert azure.push_secret.get_secret_value() == "s" * 40
    assert "AZURE_PUSH_SECRET" in log.text
    assert "ssss" not in log.text
