"""Streams of chunks for uploads and downloads."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, BinaryIO

from totoms.errors import InvalidArgument
from totoms.threads import run_transfer


class ByteStream(Iterator[bytes]):
    """The chunks of an open file. It closes itself at the end; to stop earlier, close it or use ``with``.

    Args:
        chunks: The chunks.
        close: Closes their source; by default the method ``close`` of `chunks`, if there is one.
    """

    _closed = True  # for __del__, if __init__ fails

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object] | None = None) -> None:
        self._chunks = chunks
        self._release: Callable[[], object] | None = close or getattr(chunks, "close", None)
        # A thread whose caller was cancelled may still read: the descriptor must not be closed and reused meanwhile.
        self._lock = threading.RLock()
        self._closed = False

    def __next__(self) -> bytes:
        with self._lock:
            if self._closed:
                raise StopIteration
            try:
                return next(self._chunks)
            except BaseException:  # StopIteration as well
                self.close()
                raise

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._closed:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._release is not None:
                    self._release()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncByteStream(AsyncIterator[bytes]):
    """A `ByteStream` for ``async for``: each chunk is read in a worker thread."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def __anext__(self) -> bytes:
        chunk: bytes | None = await run_transfer(next, self._stream, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Close the file. A second call does nothing."""
        await run_transfer(self._stream.close)

    async def __aenter__(self) -> AsyncByteStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


class UploadCancelled(Exception):
    """Raised to a backend that reads the source of a cancelled upload, so that it stops without writing the file."""


def read_chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
    """Return the rest of `source` in chunks of `size` bytes, the last one shorter; however little it returns at a time.

    Args:
        source: What to read, as `CloudStorage._write` is given it.
        size: Bytes.
    """
    while True:
        parts, missing = [], size
        while missing and (part := source.read(missing)):
            parts.append(part)
            missing -= len(part)
        if parts:
            yield b"".join(parts)
        if missing:
            return


def fill(memory: memoryview, source: BinaryIO, piece: int, seen: Callable[[memoryview], object]) -> int:
    """Read `source` into `memory` until it is full or the source ends; return the number of bytes.

    Args:
        memory: Where to.
        source: What to read, as `CloudStorage._write` is given it.
        piece: The most bytes to read at a time.
        seen: Called with each piece that was read, such as the update of a checksum.
    """
    filled = 0
    read_into: Callable[[memoryview], int | None] | None = getattr(source, "readinto", None)
    while filled < len(memory):
        part = memory[filled : filled + piece]
        if read_into is not None:
            count = read_into(part) or 0
        else:
            read = source.read(len(part))
            count = len(read)
            part[:count] = read
        if not count:
            break
        seen(part[:count])
        filled += count
    return filled


class ChunkReader(io.RawIOBase):
    """A readable file object over an iterable of chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """As of a raw file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of a raw file."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise InvalidArgument(f"A chunk to upload must be bytes, not {type(chunk).__name__}.")
            self._rest = memoryview(chunk).cast("B")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class StoppableReader(io.RawIOBase):
    """A readable file object that raises `UploadCancelled` once `stop` is set."""

    def __init__(self, raw: BinaryIO, stop: threading.Event) -> None:
        self._raw = raw
        self._stop = stop

    def readable(self) -> bool:
        """As of a raw file."""
        return True

    def seekable(self) -> bool:
        """As of a raw file."""
        return self._raw.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a raw file."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """As of a raw file."""
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        """As of a raw file."""
        if self._stop.is_set():
            raise UploadCancelled
        chunk = self._raw.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class LoopChunks(Iterator[bytes]):
    """Iterates in a worker thread over chunks that the event loop produces. Create it on that loop."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._pending: Future[bytes | None] | None = None

    def __next__(self) -> bytes:
        if self._stopped.is_set():
            raise UploadCancelled
        following = self._following()
        try:
            self._pending = asyncio.run_coroutine_threadsafe(following, self._loop)
        except RuntimeError:  # the loop is closed
            following.close()
            raise UploadCancelled from None
        if self._stopped.is_set():  # in the meantime
            self._pending.cancel()
        try:
            chunk = self._pending.result()
        except CancelledError:
            raise UploadCancelled from None
        if chunk is None:
            raise StopIteration
        return chunk

    def stop(self) -> None:
        """Raise `UploadCancelled` in the thread that waits for a chunk or asks for the next."""
        self._stopped.set()
        if self._pending is not None:
            self._pending.cancel()

    async def _following(self) -> bytes | None:
        return await anext(self._chunks, None)
