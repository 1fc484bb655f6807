"""Helpers of the storage contract."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from totoms.storage.storage import CloudStorage

MIB: Final = 1024 * 1024
LONGEST_STALL: Final = 0.5
"""Seconds. Blocking code stalls the event loop for longer; a busy machine may stall it for less."""
_Result = TypeVar("_Result")
_CONCURRENCY: Final = 32


def noise(size: int, seed: str = "totoms") -> bytes:
    """Return pseudo-random bytes, always the same for the same seed, so that any shift or gap shows."""
    return hashlib.shake_128(seed.encode()).digest(size)


async def read_all(storage: CloudStorage, key: str, start: int | None = None, end: int | None = None) -> bytes:
    """Stream a file, or a range of it, and return the bytes."""
    return b"".join([chunk async for chunk in await storage.stream_file_async(key, start, end)])


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    """Yield the chunks."""
    for chunk in chunks:
        yield chunk


async def upload_all(storage: CloudStorage, keys: Iterable[str], content: bytes = b"") -> None:
    """Upload the same content under many keys, concurrently."""
    await at_once([partial(storage.upload_bytes_async, content, key) for key in keys])


async def at_once(calls: Sequence[Callable[[], Awaitable[_Result]]], limit: int = _CONCURRENCY) -> list[_Result]:
    """Make calls concurrently, at most `limit` at a time; return their results in order."""
    free = asyncio.Semaphore(limit)

    async def make(call: Callable[[], Awaitable[_Result]]) -> _Result:
        async with free:
            return await call()

    return await asyncio.gather(*map(make, calls))
