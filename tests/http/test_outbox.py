"""What is written to a connection: few system calls, bounded memory."""

from __future__ import annotations

import asyncio

from totoms.http.server.outbox import Outbox


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


async def test_writes_of_one_turn_are_one() -> None:
    transport = Transport()
    one = Outbox(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
    one.write(b"head")
    one.write(b"body")
    assert transport.writes == []
    await asyncio.sleep(0)
    assert transport.writes == [b"headbody"]
    one.write(b"more")
    one.flush()
    assert transport.writes == [b"headbody", b"more"]


async def test_much_is_written_at_once_so_that_the_limit_of_the_transport_holds() -> None:
    transport = Transport()
    one = Outbox(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
    one.write(b"x" * 70_000)
    assert len(transport.writes) == 1
    await asyncio.sleep(0)
    assert len(transport.writes) == 1
