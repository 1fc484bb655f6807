"""What the parts of the storage contract share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from totoms.storage import CloudStorage

MIB: Final = 1024 * 1024
LONGEST_STALL: Final = 0.5
"""Seconds. What holds the event loop for longer blocks it; less may be the machine, which has other work."""
_Result = TypeVar("_Result")
_AT_ONCE: Final = 32


def noise(size: int, seed: str = "totoms") -> bytes:
    """Return bytes in which every shift and every missing piece shows, the same for the same seed."""
    return hashlib.shake_128(seed.encode()).digest(size)


async def read_all(storage: CloudStorage, key: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return what streaming a file, or a part of it, gives."""
    return b"".join([chunk async for chunk in await storage.stream_file_async(key, start, end)])


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    """Give chunks one after the other."""
    for chunk in chunks:
        yield chunk


async def upload_all(storage: CloudStorage, keys: Iterable[str], content: bytes = b"") -> None:
    """Upload one content under many keys, several at once."""
    await at_once([partial(storage.upload_bytes_async, content, key) for key in keys])


async def at_once(calls: Sequence[Callable[[], Awaitable[_Result]]], limit: int = _AT_ONCE) -> list[_Result]:
    """Make many calls, at most `limit` at a time; return their results in order."""
    free = asyncio.Semaphore(limit)

    async def make(call: Callable[[], Awaitable[_Result]]) -> _Result:
        async with free:
            return await call()

    return await asyncio.gather(*map(make, calls))
