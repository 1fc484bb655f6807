"""``python -m totoms check``: everything that is wrong with a declaration, at once, without starting the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from support.aws import kit
from support.plugins import install_plugin
from support.processes import DEADLINE

SERVICE = """
from totoms import (
    APIConfiguration, APIEndpoint, Bucket, MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig,
    Resources, RetryPolicy, TotoEvent, TotoMessage, TotoMicroserviceConfiguration, toto_delegate, toto_handler,
)

@toto_delegate
async def hello() -> str:
    return "hello"

class Posted(TotoEvent, type="posted"):
    title: str

@toto_handler
async def handle(message: TotoMessage[Posted]) -> None: ...

configuration = TotoMicroserviceConfiguration(
    service_name="shop",
    api_configuration=APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/hello", delegate=hello)]),
    message_bus_configuration=MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
        message_handlers=[MessageBusHandlerConfig(handler=handle, topic="posts")],
    ),
    resources=Resources(buckets=[Bucket("shop-files")], secrets=["shop-key"]),
)
"""
BARE = """
from totoms.plugin import MessageBus

class Bus(MessageBus):
    capabilities = frozenset({"push"})

    async def _publish(self, batch):
        return [None] * len(batch)

@hookimpl
def totoms_message_bus():
    return Bus
"""
"""A backend that has neither secrets nor storage, and whose messages are pushed."""


def check(folder: Path, *options: str, service: str = SERVICE, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "service.py").write_text(service)
    return subprocess.run(
        [sys.executable, "-m", "totoms", "check", "service:configuration", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={**os.environ, "TOTOMS_LOCAL_ROOT": str(folder / "root"), **variables},
    )


def test_valid_declaration_has_no_problem(tmp_path: Path) -> None:
    done = check(tmp_path, SHOP_KEY="a key")
    assert (done.returncode, done.stdout, done.stderr) == (0, "No problems found.\n", "")


def test_all_that_is_missing_is_told_at_once_and_no_value_is(tmp_path: Path) -> None:
    service = SERVICE.replace('secrets=["shop-key"]', 'secrets=["shop-key", "other-key", "known-key"]')
    done = check(tmp_path, service=service, KNOWN_KEY="canary")
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:2]] == ["problem resources"] * 2
    assert "shop-key" in done.stdout
    assert "other-key" in done.stdout
    assert "canary" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2 problems."


def test_nothing_is_looked_for_offline(tmp_path: Path) -> None:
    assert check(tmp_path, "--offline").returncode == 0


def test_findings_as_json(tmp_path: Path) -> None:
    done = check(tmp_path, "--json")
    (finding,) = json.loads(done.stdout)
    assert (done.returncode, finding["level"], finding["about"]) == (1, "problem", "resources")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'path="/hello", delegate=hello)',
            'path="/hello/{name}", delegate=hello, public=True), '
            'APIEndpoint(method="GET", path="/hello/me", delegate=hello)',
            "problem declaration: ",
        ),
        ('secret="posts-topic")', 'secret="posts-topic", ordered=True)', ""),
    ],
)
def test_what_only_the_start_would_find_is_found(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SERVICE
    done = check(tmp_path, service=SERVICE.replace(old, new), SHOP_KEY="a key")
    assert done.returncode == (1 if said else 0), done.stdout
    assert said in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('secret="posts-topic")', 'secret="posts-topic", ordered=True)', "keeps no order: the topic posts is ordered"),
        ("MessageBusConfig(\n", 'MessageBusConfig(\n        delivery="pull",\n', "has no pull"),
        ("MessageBusConfig(\n", "MessageBusConfig(\n        lease=60,\n", "MessageBusConfig.lease"),
        ("", "", "has no storage: shop-files cannot be opened"),
    ],
)
def test_what_a_backend_cannot_do_is_a_problem(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "site").mkdir()
    install_plugin(tmp_path / "site", BARE, name="bare", distribution="totoms-bare")
    options = ["--backend=bare", "--offline"]
    done = check(tmp_path, *options, service=SERVICE.replace(old, new, 1), PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 1, done.stderr
    assert f"problem backend: {'' if said.startswith('M') else 'The bare '}" in done.stdout
    assert said in done.stdout


def test_pause_that_a_backend_cuts_is_a_note(tmp_path: Path) -> None:
    service = SERVICE.replace(
        "MessageBusConfig(\n", "MessageBusConfig(\n        retry=RetryPolicy(max_backoff=3600),\n"
    )
    done = check(tmp_path, "--backend=gcp", "--offline", service=service, GCP_PID="shop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "note    backend: max_backoff is 3600 seconds; on gcp a message waits for 600 seconds at most." in done.stdout
    )


def test_setting_of_a_backend_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    done = check(tmp_path, "--backend=gcp", GCP_PID="")
    assert done.returncode == 1
    assert "problem backend: GCPConfiguration: there is no project" in done.stdout


@pytest.mark.parametrize("options", [["--backend=nimbus"], ["--nothing"], ["--backend"]])
def test_what_cannot_be_checked_is_one_line_and_status_2(tmp_path: Path, options: list[str]) -> None:
    done = check(tmp_path, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.cloud
def test_what_is_missing_in_an_account_is_told(tmp_path: Path) -> None:
    address = kit.server()
    variables = {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "check",
        "AWS_SECRET_ACCESS_KEY": "check",
        "ENVIRONMENT": f"check-{tmp_path.name}".replace("_", "-")[:40],
    }
    done = check(tmp_path, "--backend=aws", **variables)
    assert done.returncode == 1, done.stderr
    for name in ("shop-key", "posts-topic", "shop-files", "jwt-signing-key"):
        assert name in done.stdout

    secrets = boto3.client(
        "secretsmanager",
        endpoint_url=address,
        region_name="eu-north-1",
        aws_access_key_id="check",
        aws_secret_access_key="check",
    )
    for name in ("shop-key", "posts-topic", "jwt-signing-key"):
        secrets.create_secret(
            Name=f"{variables['ENVIRONMENT']}/{name}", SecretString="a value of at least 32 characters"
        )
    done = check(tmp_path, "--backend=aws", **variables)
    assert done.stdout.splitlines()[-1] == "1 problem."
    assert "shop-files" in done.stdout
