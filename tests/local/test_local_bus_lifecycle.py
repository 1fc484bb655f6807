"""The local bus from construction to close: no file before the first use, none for other users, no use after close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from support.local.bus import (
    BLOG,
    DEADLINE,
    TOPIC,
    make_bus,
    open_bus,
    publish,
    receive_numbers,
    rows_of,
)
from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, BackendError, Closed
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus


async def test_publish_after_close_is_refused_and_close_may_be_called_twice(bus: LocalMessageBus) -> None:
    await bus.close()
    await bus.close()
    with pytest.raises(Closed):
        await publish(bus, 1)
    with pytest.raises(Closed):
        await bus._receive(BLOG, 1, 0.0)
    with pytest.raises(Closed):
        await bus.list_dead_letters(BLOG.name)


async def test_bus_that_never_did_anything_closes(local_root: str) -> None:
    await make_bus(local_root).close()
    assert not (Path(local_root) / "bus.sqlite3").exists()


async def test_close_waits_for_what_is_being_published(bus: LocalMessageBus, local_root: str) -> None:
    publishing = [asyncio.ensure_future(publish(bus, number)) for number in range(50)]
    await asyncio.sleep(0)
    await bus.close()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*publishing)
    assert rows_of(local_root, "SELECT count(*) FROM deliveries") == [(50,)]


async def test_buses_of_one_folder_share_a_thread_and_the_last_to_close_ends_it(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    other = another()
    await publish(other, 1)
    writer = bus._get_writer()
    assert other._get_writer() is writer
    await bus.close()
    await publish(other, 2)
    await other.close()
    assert not writer._thread.is_alive()


async def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root, error in ((tmp_path / "file", AccessDenied), (tmp_path / "file" / "below", BackendError)):
        async with open_bus(root) as bus:
            with pytest.raises(error, match="file"):
                await publish(bus, 1)


async def test_bus_recovers_when_the_folder_can_be_made_at_last(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with open_bus(tmp_path / "file") as bus:
        with pytest.raises(AccessDenied):
            await publish(bus, 1)
        (tmp_path / "file").unlink()
        await bus._subscribe(BLOG, create=True)
        await publish(bus, 2)
        assert await receive_numbers(bus, 1) == [2]


def test_files_are_for_their_owner_alone(local_root: str) -> None:
    async def use() -> None:
        async with open_bus(local_root) as bus:
            await publish(bus, 1)
            for file in Path(local_root).iterdir():
                assert file.stat().st_mode & 0o077 == 0, file.name

    asyncio.run(use())


def test_bus_serves_one_event_loop_after_another(local_root: str) -> None:
    async def once(number: int) -> list[int]:
        async with open_bus(local_root) as bus:
            await bus._subscribe(BLOG, create=True)
            await publish(bus, number)
            return await receive_numbers(bus, 1)

    assert [asyncio.run(once(number)) for number in range(3)] == [[0], [1], [2]]


def test_constructing_touches_no_file(tmp_path: Path) -> None:
    environment = TotoEnvironment("local", LocalConfiguration(root=tmp_path / "root"))
    LocalMessageBus(environment, {"posts": TOPIC})
    assert not (tmp_path / "root").exists()
