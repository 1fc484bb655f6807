"""Secrets on the local backend: environment variables, then ``.env``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, CorruptData, NotFound, Unsupported
from totoms.local.configuration import LocalConfiguration
from totoms.secrets.manager import SecretsManager


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("api-key", "API_KEY", "JWT_SIGNING_KEY", "TOTO_EXPECTED_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def dotenv(content: str | bytes) -> None:
    Path(".env").write_bytes(content.encode() if isinstance(content, str) else content)


def test_places_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = SecretsManager()
    with pytest.raises(NotFound, match="API_KEY"):
        secrets.get_secret("api-key")
    dotenv("API_KEY=upper in file\n")
    assert secrets.get_secret("api-key") == "upper in file"
    dotenv("API_KEY=upper in file\napi-key=exact in file\n")
    assert secrets.get_secret("api-key") == "exact in file"
    monkeypatch.setenv("API_KEY", "upper in environment")
    assert secrets.get_secret("api-key") == "upper in environment"
    monkeypatch.setenv("api-key", "exact in environment")
    assert secrets.get_secret("api-key") == "exact in environment"


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("api-key", "API_KEY"),
        ("tome_topics_topic_name", "TOME_TOPICS_TOPIC_NAME"),
        ("a/b.c d", "A_B_C_D"),
        ("dev/api-key", "DEV_API_KEY"),
        ("ÄB", "_B"),
    ],
)
def test_the_variable_that_stands_for_a_name(name: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "v")
    assert SecretsManager().get_secret(name) == "v"


async def test_a_change_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = SecretsManager()
    monkeypatch.setenv("API_KEY", "old")
    assert await secrets.get_secret_async("api-key") == "old"
    monkeypatch.setenv("API_KEY", "new")
    assert await secrets.get_secret_async("api-key") == secrets.get_secret("api-key") == "new"
    assert secrets._cache._entries == {}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("API_KEY=v\r\nOTHER=w\r\n", "v"),
        (b"\xef\xbb\xbfAPI_KEY=v\n", "v"),
        (b"\xef\xbb\xbf# comment\r\nAPI_KEY=v\r\n", "v"),
        ("API_KEY=pa$$w0rd${HOME}$HOME\n", "pa$$w0rd${HOME}$HOME"),
        ('API_KEY="pa$HOME"\n', "pa$HOME"),
        ("API_KEY='with # and \"quotes\"'\n", 'with # and "quotes"'),
        ("export API_KEY=v\n", "v"),
        ("  API_KEY = v  # comment\n", "v"),
        ("API_KEY=a=b==\n", "a=b=="),
        ("API_KEY=Grüße\n", "Grüße"),
        ("API_KEY=v", "v"),
        ("API_KEY='line one\nline two'\n", "line one\nline two"),
        ("API_KEY=first\nAPI_KEY=second\n", "second"),
    ],
)
def test_what_a_dotenv_file_may_hold(content: str | bytes, value: str) -> None:
    dotenv(content)
    assert SecretsManager().get_secret("api-key") == value


def test_a_dotenv_line_without_a_value_sets_nothing() -> None:
    dotenv("API_KEY\n")
    with pytest.raises(NotFound):
        SecretsManager().get_secret("api-key")


@pytest.mark.parametrize("place", ["environment", "file"])
def test_an_empty_value_is_a_typed_error(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "environment":
        monkeypatch.setenv("API_KEY", "")
        dotenv("API_KEY=hidden\n")  # set to nothing in the environment is set
    else:
        dotenv("API_KEY=\n")
    with pytest.raises(CorruptData, match="'api-key' is empty"):
        SecretsManager().get_secret("api-key")


def test_a_dotenv_file_that_cannot_be_read_is_a_typed_error() -> None:
    dotenv(b"API_KEY=\xff\xfe-secret\n")
    with pytest.raises(CorruptData, match="UTF-8") as caught:
        SecretsManager().get_secret("api-key")
    assert caught.value.__cause__ is caught.value.__context__ is None  # it would carry the content along
    Path(".env").unlink()
    Path(".env").symlink_to(".env")
    with pytest.raises(NotFound):  # a link to itself is no file
        SecretsManager().get_secret("api-key")


def test_a_binary_variable_keeps_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    os.environb[b"API_KEY"] = b"\xff\x01"
    monkeypatch.setenv("API_KEY", os.environ["API_KEY"])  # undone at the end
    assert SecretsManager().get_secret_bytes("api-key") == b"\xff\x01"
    with pytest.raises(CorruptData):
        SecretsManager().get_secret("api-key")


async def test_there_are_no_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "v")
    with pytest.raises(Unsupported):
        SecretsManager().get_secret("api-key", version="1")
    with pytest.raises(Unsupported):
        await SecretsManager().get_secret_async("api-key", version="latest")


async def test_a_topic_that_is_set_nowhere_is_called_by_its_logical_name(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = SecretsManager()
    assert secrets.topic_identifier("api-key", "my-topic") == "my-topic"
    assert await secrets.topic_identifier_async("api-key", "my-topic") == "my-topic"
    monkeypatch.setenv("API_KEY", "set")
    assert secrets.topic_identifier("api-key", "my-topic") == "set"
    assert await secrets.topic_identifier_async("api-key", "my-topic") == "set"
    monkeypatch.setenv("API_KEY", "")
    with pytest.raises(CorruptData):
        secrets.topic_identifier("api-key", "my-topic")


def test_the_signing_key_is_made_when_it_is_set_nowhere(monkeypatch: pytest.MonkeyPatch, local_root: str) -> None:
    made = SecretsManager().get_secret("jwt-signing-key")
    assert len(made) >= 32
    assert SecretsManager().get_secret("jwt-signing-key") == made
    assert (Path(local_root) / "signing-key").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("JWT_SIGNING_KEY", "mine")
    assert SecretsManager().get_secret("jwt-signing-key") == "mine"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o622, 0o777])
def test_a_signing_key_that_others_may_read_or_write_is_refused(local_root: str, mode: int) -> None:
    made = SecretsManager().get_secret("jwt-signing-key")
    file = Path(local_root, "signing-key")
    file.chmod(mode)
    with pytest.raises(AccessDenied, match=r"Other users may read or write .*signing-key.*chmod 600") as caught:
        SecretsManager().get_secret("jwt-signing-key")
    assert made not in str(caught.value)
    file.chmod(0o600)
    assert SecretsManager().get_secret("jwt-signing-key") == made


def test_a_signing_key_of_another_user_is_refused(local_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SecretsManager().get_secret("jwt-signing-key")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(AccessDenied, match="belongs to another user"):
        SecretsManager().get_secret("jwt-signing-key")


def test_the_root_folder_keeps_itself_out_of_git(tmp_path: Path) -> None:
    def key_of(root: Path) -> None:
        settings = LocalConfiguration(root=root)
        SecretsManager(TotoEnvironment("local", settings)).get_secret("jwt-signing-key")

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    key_of(tmp_path / ".totoms")
    status = subprocess.check_output(["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"], text=True)
    assert status == ""
    # One of 2.0's first days has no .gitignore yet; a folder of the user's own gets none, it may hold a whole project.
    (tmp_path / ".totoms" / ".gitignore").unlink()
    key_of(tmp_path / ".totoms")
    assert (tmp_path / ".totoms" / ".gitignore").read_text().endswith("*\n")
    own = tmp_path / "own"
    own.mkdir()
    key_of(own)
    assert not (own / ".gitignore").exists()
    (tmp_path / ".totoms" / ".gitignore").write_text("mine")
    key_of(tmp_path / ".totoms")
    assert (tmp_path / ".totoms" / ".gitignore").read_text() == "mine"


def test_the_audience_is_not_made_up() -> None:
    with pytest.raises(NotFound):
        SecretsManager().get_secret("toto-expected-audience")


def test_a_dotenv_file_that_may_not_be_read_is_access_denied() -> None:
    # In a process of an ordinary user: the superuser may read everything.
    code = """
import os
import totoms.plugins.loader
from totoms.errors import AccessDenied
from totoms.secrets.manager import SecretsManager
secrets = SecretsManager()
import dotenv
if os.geteuid() == 0:
    os.setuid(65534)
try:
    secrets.get_secret("api-key")
except AccessDenied as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, ".env").write_text("API_KEY=v")
        os.chmod(Path(folder, ".env"), 0o000)
        told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert told.stdout == "Cannot read 'api-key' from .env: Permission denied.\n", told.stderr
