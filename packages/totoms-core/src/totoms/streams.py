"""Bytes on their way in and out of a storage: never the whole file at once."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, BinaryIO

from totoms.errors import ValidationError
from totoms.threads import run_in_thread


class ByteStream(Iterator[bytes]):
    """The chunks of a file that is open. Read to the end it closes itself; else close it, or use ``with``.

    Args:
        chunks: The chunks.
        close: Releases what they are read from; by default the chunks' own ``close``, if they have one.
    """

    _closed = True  # until it is made

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object] | None = None) -> None:
        self._chunks = chunks
        self._release: Callable[[], object] | None = close or getattr(chunks, "close", None)
        # A reader in another thread, given up by its caller, must not be left with a descriptor that was closed and
        # given to somebody else's file.
        self._lock = threading.RLock()
        self._closed = False

    def __next__(self) -> bytes:
        with self._lock:
            if self._closed:
                raise StopIteration
            try:
                return next(self._chunks)
            except BaseException:  # at the end, and when reading fails
                self.close()
                raise

    def close(self) -> None:
        """Release the file. A second call does nothing."""
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
        chunk: bytes | None = await run_in_thread(next, self._stream, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Release the file. A second call does nothing."""
        await run_in_thread(self._stream.close)

    async def __aenter__(self) -> AsyncByteStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


class UploadCancelled(Exception):
    """Ends an upload whose caller was cancelled: the backend, reading on, meets it and keeps what it had."""


class ChunkReader(io.RawIOBase):
    """A file to read from, made of chunks."""

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
                raise ValidationError(f"A chunk to upload must be bytes, not {type(chunk).__name__}.")
            self._rest = memoryview(chunk).cast("B")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class StoppableReader(io.RawIOBase):
    """A file to read from until `stop` is set; then reading raises `UploadCancelled`."""

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
    """Gives a worker thread the chunks that a coroutine's loop produces, one at a time. Made on that loop."""

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
        except RuntimeError:  # the loop has ended, and with it whoever asked for the upload
            following.close()
            raise UploadCancelled from None
        if self._stopped.is_set():  # meanwhile
            self._pending.cancel()
        try:
            chunk = self._pending.result()
        except CancelledError:
            raise UploadCancelled from None
        if chunk is None:
            raise StopIteration
        return chunk

    def stop(self) -> None:
        """Make the thread that waits for a chunk, or asks for the next, meet `UploadCancelled`."""
        self._stopped.set()
        if self._pending is not None:
            self._pending.cancel()

    async def _following(self) -> bytes | None:
        return await anext(self._chunks, None)
