"""CloudStorage: the files in one bucket, wherever the service runs.

Every method that works on the bucket is there twice: plain, and with the suffix ``_async``, which keeps the event loop
free. What the arguments mean and what is raised stands at the plain one.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import ValidationError
from totoms.logging import TotoLogger
from totoms.storage_driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms.storage_sync import SyncStorage
from totoms.streams import AsyncByteStream, ByteStream, ChunkReader, LoopChunks, StoppableReader
from totoms.threads import run_in_thread, start_thread

__all__ = ["SIGNED_URLS", "ByteStream", "CloudStorage", "FileInfo", "WriteOptions"]

_LIST_PAGE: Final = 1000


class CloudStorage(SyncStorage):
    """The files in one bucket. ``CloudStorage("bucket")`` gives the current environment's implementation.

    Constructing one does no I/O, and costs nothing: make one where you need it.

    Args:
        bucket_name: The bucket, without any path. A container, on Azure.
        logger: Told at level DEBUG what was changed; by default the process's logger.
        cid: For its lines; by default that of the request or message at hand.
        environment: Where the service runs; by default the current one.

    Raises:
        InvalidKey: No cloud has a bucket of that name.
    """

    def __new__(
        cls, bucket_name: str, logger: TotoLogger | None = None, cid: str | None = None,
        *, environment: TotoEnvironment | None = None,
    ) -> CloudStorage:  # fmt: skip
        """Pick the class: as ``Path()`` is a ``PosixPath``, so this is the implementation of `environment`."""
        made: type[CloudStorage] = cls
        if cls is CloudStorage:
            made = implementation(CloudStorage, environment or current_environment())
        return object.__new__(made)

    async def upload_file_async(
        self, local_file_path: str | PathLike[str], destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload a local file. Cancelled before its end, it leaves what was there."""
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return await self._upload_stoppable(lambda: Path(local_file_path).open("rb"), destination_path, options)

    async def upload_bytes_async(
        self, data: bytes, destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload bytes. Cancelled before its end, it leaves what was there."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ValidationError(f"upload_bytes takes bytes, not {type(data).__name__}.")
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return await self._upload_stoppable(partial(io.BytesIO, data), destination_path, options)

    async def upload_stream_async(
        self, chunks: AsyncIterable[bytes] | Iterable[bytes], destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload chunks, such as ``request.stream()``. Cancelled before its end, it leaves what was there."""
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        if not isinstance(chunks, AsyncIterable):
            return await self._upload_stoppable(partial(_reader, chunks), destination_path, options)
        source = LoopChunks(chunks)
        try:
            # A thread of its own: while it waits for the next chunk, that may itself need one of the pool's.
            upload = partial(self._upload, destination_path, _reader(source), options)
            return await asyncio.wrap_future(start_thread(upload, "totoms-upload"))
        except asyncio.CancelledError:
            source.stop()
            raise

    async def copy_file_async(self, source_path: str, destination_path: str) -> str:
        """Copy a file within the bucket."""
        return await run_in_thread(self.copy_file, source_path, destination_path)

    async def move_file_async(self, source_path: str, destination_path: str) -> str:
        """Copy a file, then delete the source."""
        return await run_in_thread(self.move_file, source_path, destination_path)

    async def delete_file_async(self, file_path: str) -> None:
        """Delete a file."""
        return await run_in_thread(self.delete_file, file_path)

    async def download_file_async(self, source_path: str, local_destination_path: str | PathLike[str]) -> None:
        """Download into a local file."""
        return await run_in_thread(self.download_file, source_path, local_destination_path)

    async def stream_file_async(self, path: str, start: int | None = None, end: int | None = None) -> AsyncByteStream:
        """Open a file: ``async for chunk in await storage.stream_file_async(path)``."""
        return AsyncByteStream(await run_in_thread(self.stream_file, path, start, end))

    async def get_file_bytes_async(self, file_path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        return await run_in_thread(self.get_file_bytes, file_path)

    async def get_file_content_async(self, file_path: str) -> str | None:
        """Return a text file's content, or None."""
        return await run_in_thread(self.get_file_content, file_path)

    async def stat_async(self, path: str) -> FileInfo:
        """Return what is known about a file."""
        return await run_in_thread(self.stat, path)

    async def exists_async(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return await run_in_thread(self.exists, path)

    async def list_files_async(self, prefix: str = "", *, delimiter: str = "") -> list[str]:
        """List the keys that start with `prefix`."""
        return await run_in_thread(partial(self.list_files, prefix, delimiter=delimiter))

    async def iter_files_async(self, prefix: str = "", *, delimiter: str = "") -> AsyncIterator[str]:
        """List page by page: ``async for key in storage.iter_files_async()``."""
        keys = self.iter_files(prefix, delimiter=delimiter)
        while page := await run_in_thread(lambda: list(islice(keys, _LIST_PAGE))):
            for key in page:
                yield key

    async def signed_url_async(
        self, path: str, method: Literal["GET", "PUT"] = "GET", expires_in: int = 900,
        *, content_type: str | None = None,
    ) -> str:  # fmt: skip
        """Return a URL with which anybody may do `method` on the file until it expires."""
        return await run_in_thread(partial(self.signed_url, path, method, expires_in, content_type=content_type))

    async def _upload_stoppable(self, source: Callable[[], BinaryIO], key: str, options: WriteOptions) -> str:
        stop = threading.Event()

        def upload() -> str:
            with source() as raw:
                return self._upload(key, cast(BinaryIO, StoppableReader(raw, stop)), options)

        try:
            return await run_in_thread(upload)
        except asyncio.CancelledError:
            stop.set()
            raise


def _reader(chunks: Iterable[bytes]) -> BinaryIO:
    return cast(BinaryIO, ChunkReader(chunks))
