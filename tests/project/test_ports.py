"""The servers of tests: no two servers get the same port, not even in different processes."""

from __future__ import annotations

import asyncio
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from standins.azure.entra import EntraStandIn
from standins.azure.service_bus.server import ServiceBusStandIn
from standins.gcp.secret_manager import SecretManagerStandIn
from standins.ports import free_port, reserve
from support.faults.proxy import FaultProxy

ROOT = Path(__file__).parents[2]
STANDINS = ROOT / "tests" / "standins"
of_the_demonstration: Callable[[], int] = runpy.run_path(str(ROOT / "examples" / "demo" / "servers.py"))["free_port"]


def assert_kept(port: int) -> None:
    """Check that nothing listens, that the system counts the port as used, and that a server may listen there."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("choose", [free_port, of_the_demonstration], ids=["tests", "demonstration"])
def test_free_port_is_kept_for_the_server_that_gets_it(choose: Callable[[], int]) -> None:
    assert_kept(choose())


def test_port_in_use_cannot_be_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(OSError, match="in use"):
        reserve(listening.getsockname()[1])


@pytest.fixture(params=[EntraStandIn, SecretManagerStandIn, ServiceBusStandIn])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param() as made:
        yield made


def test_port_of_a_server_that_is_stopped_is_kept_for_it(server: Any) -> None:
    port = server.port
    server.stop()
    assert_kept(port)
    server.start()
    assert server.port == port
    socket.create_connection(("127.0.0.1", port)).close()


async def test_port_of_a_proxy_that_is_killed_is_kept_for_it() -> None:
    async with FaultProxy(free_port()) as proxy:
        port = proxy.port
        await proxy.kill()
        await asyncio.to_thread(assert_kept, port)
        await proxy.restore()
        assert proxy.port == port


PROGRAMS = ["gcp.gcs", "gcp.pubsub", "gcp.secret_manager", "azure.key_vault", "azure.service_bus.server"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_two_servers_do_not_share_a_port(program: str) -> None:
    # gRPC's servers do so by default: then each gets some of the connections that are meant for one.
    command = [sys.executable, str(STANDINS), program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            port = int(first.stdout.readline().split()[0])
            second = subprocess.run([*command, f"--port={port}"], capture_output=True, check=False, timeout=120)
        finally:
            first.kill()
    assert second.returncode != 0, "the second one was let in"
