"""What `totoms_nats.private_api` uses of nats-py and nats-server is still there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error

from support.emulators import require
from totoms_nats.private_api import is_denied_publish, is_refused_login, keep_reconnecting
from totoms_nats.testing.server import PROGRAM, NatsServer

USERS = 'authorization { users: [{user: me, password: me, permissions: {publish: {deny: ["denied"]}}}] }'


@pytest.fixture
def server(tmp_path: Path) -> NatsServer:
    require(PROGRAM, remedy="apt-get install nats-server")
    (tmp_path / "config").write_text(USERS)
    return NatsServer(tmp_path, arguments=("-c", str(tmp_path / "config")))


async def test_client_connected_without_reconnecting_reconnects_after_all(server: NatsServer) -> None:
    client, lost, restored = Client(), asyncio.Event(), asyncio.Event()

    async def note_loss() -> None:
        lost.set()

    async def note_return() -> None:
        restored.set()

    with server:
        await client.connect(
            server.url,
            user="me",
            password="me",
            allow_reconnect=False,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            disconnected_cb=note_loss,
            reconnected_cb=note_return,
        )
        keep_reconnecting(client)
        async with asyncio.timeout(120):
            await asyncio.to_thread(server.stop)
            await lost.wait()
            await asyncio.to_thread(server.start)
            await restored.wait()
        assert client.is_connected
        await client.close()


async def test_server_words_a_denied_publish_and_a_refused_login_as_expected(server: NatsServer) -> None:
    client, stranger, told, reported = Client(), Client(), asyncio.Event(), list[Exception]()

    async def note(error: Exception) -> None:
        reported.append(error)
        told.set()

    with server:
        with pytest.raises(Error) as refused:
            await stranger.connect(server.url, user="me", password="wrong", allow_reconnect=False)
        await stranger.close()
        assert is_refused_login(refused.value)
        await client.connect(server.url, user="me", password="me", error_cb=note)
        await client.publish("denied", b"")
        async with asyncio.timeout(120):
            await told.wait()
        await client.close()

    assert [is_denied_publish(error) for error in reported] == [True]
