"""AWS on this machine: one ministack for each worker of a test run, and names of their own for each test."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from standins.ports import free_port
from support.emulators import kept, require
from totoms.clients import close_clients
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms_aws import clients
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration

REGION = "eu-north-1"
REMEDY = "pip install ministack"
_PATIENCE = 120.0
_BESIDE = Path(sys.executable).parent / "ministack"

# Each test makes clients of its own, from descriptions of the services that take longer to read than all else.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)  # type: ignore[attr-defined]

# Neither the developer's account nor the machine's may be reached by a test.
_OF_TESTS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@functools.cache
def server() -> str:
    """Return the address of this process's ministack, started when it is first asked for, ended with the process."""
    program = str(_BESIDE) if _BESIDE.is_file() else require("ministack", remedy=REMEDY)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(ministack(program))
        atexit.register(stack.pop_all().close)
    return address


@contextlib.contextmanager
def ministack(program: str) -> Iterator[str]:
    """Run a ministack on a free port and give its address; it ends with the block."""
    port = free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "SERVICES": "sns,sqs,s3,secretsmanager,sts",
        "LOG_LEVEL": "ERROR",
    }
    with kept([program], {**os.environ, **settings}) as process:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.fail("ministack did not start", pytrace=False)


@contextlib.contextmanager
def settings(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Iterator[AWSConfiguration]:
    """Have the SDK ask `endpoint`, with clients of this test's own."""
    use(monkeypatch, endpoint)
    try:
        yield AWSConfiguration(region=REGION, environment="test")
    finally:
        close_clients()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str | None, **variables: str) -> None:
    """Set the SDK's variables, and forget the clients made with others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**_OF_TESTS, **variables}.items():
        monkeypatch.setenv(name, value)
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    close_clients()


def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the SDK ask once, so that what fails fails at once. Before the clients are made."""
    monkeypatch.setattr(clients, "_ATTEMPTS", 1)


def environment(configuration: AWSConfiguration) -> TotoEnvironment:
    """Return the environment with these settings."""
    return TotoEnvironment("aws", configuration)


def sdk(service: Any, configuration: AWSConfiguration) -> Any:
    """Return the SDK's client, as an operator would use it."""
    return client(service, configuration)


def make_bucket(configuration: AWSConfiguration) -> str:
    """Make a bucket with a new name."""
    name = f"bucket-{new_cid()}"
    sdk("s3", configuration).create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": configuration.region}
    )
    return name
