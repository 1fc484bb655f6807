"""The ``totoms`` command, run as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from support.plugins import GOOD, install_plugin, write_distribution
from totoms import SecretsManager, TotoEnvironment

KEY = "a-key-for-the-command-line-0123456789abcdef"


def totoms(*arguments: str, site: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    return subprocess.run(
        [sys.executable, "-m", "totoms", *arguments], capture_output=True, text=True, timeout=300, env=env, check=False
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Check that the command failed as promised: status 2, one line, nothing on standard output."""
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("totoms: ")
    return lines[0]


def test_version() -> None:
    done = totoms("--version")

    assert (done.returncode, done.stdout) == (0, "totoms 2.0.0\n")


def test_command_that_was_installed_is_the_same() -> None:
    command = Path(sys.executable).with_name("totoms")

    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=300, check=True)

    assert done.stdout == "totoms 2.0.0\n"


def test_distribution_whose_command_has_the_same_name_is_warned_of(tmp_path: Path) -> None:
    write_distribution(tmp_path, "totoms-cli", version="0.4.1")

    done = totoms("plugins", site=tmp_path)

    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("totoms: warning: totoms-cli 0.4.1 is installed too")
    assert "python -m totoms" in line
    assert totoms("plugins").stderr == ""


def test_help_names_the_commands() -> None:
    done = totoms("--help")

    assert done.returncode == 0
    assert "plugins" in done.stdout
    assert "token" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["plugins", "--yaml"], ["token"], ["token", "--user"], ["token", "--user", " "]]
    + [["token", "--user", "me", "--lifetime", value] for value in ("0", "-1", "soon", "1e9", "99999999999")],
)
def test_wrong_arguments_are_one_line_and_status_2(arguments: list[str]) -> None:
    assert "--help" in refused(totoms(*arguments))


# --- plugins ---


def test_plugins_lists_name_distribution_version_and_capabilities() -> None:
    done = totoms("plugins")

    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["NAME", "DISTRIBUTION", "VERSION", "CAPABILITIES"]
    (row,) = [row for row in rows if row.startswith("local ")]
    assert row.split()[:3] == ["local", "totoms", "2.0.0"]
    assert "configuration, secrets_manager, cloud_storage, message_bus (" in row


def test_plugins_as_json() -> None:
    listed = {plugin["name"]: plugin for plugin in json.loads(totoms("plugins", "--json").stdout)}

    assert listed["local"]["distribution"] == "totoms"
    assert listed["local"]["error"] is None
    assert listed["local"]["capabilities"] == ["configuration", "secrets_manager", "cloud_storage", "message_bus"]
    assert "pull" in listed["local"]["messaging"]


def test_plugins_lists_a_broken_one_with_its_error_and_status_0(tmp_path: Path) -> None:
    install_plugin(tmp_path, "import sys; sys.exit(7)\n", name="broken", distribution="totoms-broken", version="0.3")
    install_plugin(tmp_path, GOOD, name="skyline", distribution="totoms-skyline")

    done = totoms("plugins", site=tmp_path)

    assert done.returncode == 0
    rows = {row.split()[0]: row for row in done.stdout.splitlines()}
    assert rows["broken"].split()[:3] == ["broken", "totoms-broken", "0.3"]
    assert "cannot be used" in rows["broken"]
    assert "it calls sys.exit" in rows["broken"]
    assert "message_bus (pull)" in rows["skyline"]
    assert "Traceback" not in done.stdout + done.stderr


def test_plugins_of_one_name_are_both_listed_with_the_error(tmp_path: Path) -> None:
    install_plugin(tmp_path, GOOD, name="twice", distribution="totoms-one")
    install_plugin(tmp_path, GOOD, name="twice", distribution="totoms-two")

    listed = json.loads(totoms("plugins", "--json", site=tmp_path).stdout)

    twice = [plugin for plugin in listed if plugin["name"] == "twice"]
    assert [plugin["distribution"] for plugin in twice] == ["totoms-one", "totoms-two"]
    assert all("registered more than once" in plugin["error"] for plugin in twice)


def test_reader_that_has_enough_is_not_an_error() -> None:
    command = f"{sys.executable} -m totoms plugins | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False)

    assert (done.returncode, done.stderr) == (0, "")


# --- token ---


def test_token_is_all_that_is_printed_and_signed_with_the_services_key() -> None:
    done = totoms("token", "--user", "me@example.com", JWT_SIGNING_KEY=KEY)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    claims = jwt.decode(done.stdout.strip(), KEY, algorithms=["HS256"])
    assert claims["user"] == "me@example.com"
    assert claims["authProvider"] == "toto"


def test_token_lives_as_long_as_asked() -> None:
    tokens = [
        totoms("token", "--user", "me", "--lifetime", seconds, JWT_SIGNING_KEY=KEY).stdout.strip()
        for seconds in ("100", "100000")
    ]

    short, long = (jwt.decode(token, KEY, algorithms=["HS256"])["exp"] for token in tokens)

    assert long - short > 90_000


def test_token_on_local_needs_no_set_up_and_is_signed_with_the_key_of_its_services() -> None:
    first, second = (totoms("token", "--user", "me") for _ in range(2))

    assert first.returncode == second.returncode == 0, first.stderr
    key = SecretsManager(TotoEnvironment("local")).get_secret("jwt-signing-key")
    for done in (first, second):
        assert done.stdout.count("\n") == 1
        assert jwt.decode(done.stdout.strip(), key, algorithms=["HS256"])["user"] == "me"


def test_token_with_a_key_that_is_too_short_is_refused_without_telling_it() -> None:
    line = refused(totoms("token", "--user", "me", JWT_SIGNING_KEY="canary"))

    assert "32" in line
    assert "canary" not in line


def test_token_for_an_unknown_hyperscaler_is_refused() -> None:
    assert "nimbus" in refused(totoms("token", "--user", "me", HYPERSCALER="nimbus"))


def test_token_where_local_must_not_run_is_refused() -> None:
    refused(totoms("token", "--user", "me", ENVIRONMENT="prod"))


def test_token_has_the_claims_that_are_given() -> None:
    arguments = (
        "--claim",
        "roles=admin",
        "--claim",
        "roles=editor",
        "--claim",
        "scope=posts:write",
        "--claim",
        "a=b=c",
    )
    done = totoms("token", "--user", "me@example.com", *arguments, JWT_SIGNING_KEY=KEY)
    claims = jwt.decode(done.stdout.strip(), KEY, algorithms=["HS256"])
    assert (claims["roles"], claims["scope"], claims["a"]) == (["admin", "editor"], "posts:write", "b=c")


@pytest.mark.parametrize("claim", ["user=admin", "exp=9999999999", "authProvider=google", "roles", "=x", "roles="])
def test_invalid_claim_or_one_that_totoms_sets_is_refused(claim: str) -> None:
    refused(totoms("token", "--user", "me", "--claim", claim, JWT_SIGNING_KEY=KEY))
