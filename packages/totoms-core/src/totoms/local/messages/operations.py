"""Operations that the writer runs for a bus, and the messages that it hands over to consumers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from totoms.local.messages.feed import Feed
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of the next transaction, with the future of its caller.

    Attributes:
        run: Gets the connection and returns the result. If it raises a BackendError, only this operation fails.
        published: Messages to insert, instead of `run`.
        acked: Messages of `feed` to delete, instead of `run`.
        feed: The holder of the messages concerned; None if the commit must survive a power cut.
        settled: Other messages that `feed` no longer holds after success or a lost lease.
        loop: The caller's event loop; None if no caller waits.
        future: The caller's future.
    """

    run: Callable[[sqlite3.Connection], Any] | None = None
    published: Sequence[Outgoing] = ()
    acked: Sequence[Received] = ()
    feed: Feed | None = None
    settled: Sequence[Received] = ()
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Handover:
    """Messages leased for a feed in the current transaction, and how many places were reserved."""

    feed: Feed
    reserved: int
    batch: list[Received] = field(default_factory=list)


def wake(done: list[Operation], feeds: list[Feed]) -> None:
    """Settle the futures and wake the feeds of one event loop. Call it on that loop."""
    for feed in feeds:
        feed.wake()
    for operation in done:
        future = operation.future
        if future is not None and not future.done():
            if operation.error is not None:
                future.set_exception(operation.error)
            else:
                future.set_result(operation.result)
