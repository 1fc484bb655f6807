"""CloudStorage: the files in one bucket.

Each method exists in two forms: blocking, and with the suffix ``_async`` for coroutines. The blocking one documents
the arguments and errors.
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
from typing import BinaryIO, Final, cast

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import InvalidArgument
from totoms.logging.logger import TotoLogger
from totoms.storage.blocking import SyncStorage
from totoms.storage.driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms.storage.streams import AsyncByteStream, ByteStream, ChunkReader, LoopChunks, StoppableReader
from totoms.threads import in_transfer_thread, run_transfer, start_thread

__all__ = ["SIGNED_URLS", "ByteStream", "CloudStorage", "FileInfo", "WriteOptions"]

_LIST_PAGE: Final = 1000


class CloudStorage(SyncStorage):
    """The files in one bucket. ``CloudStorage("bucket")`` returns the implementation for the environment.

    Creating one does no I/O and is cheap: create one where you need it.

    Args:
        bucket_name: The bucket, without a path; on Azure a container.
        logger: Logs changes at level DEBUG; by default the process's logger.
        cid: The correlation id to log; by default that of the request or message being handled.
        environment: Where the service runs; by default the current one.

    Raises:
        InvalidKey: The name is not valid on any cloud.
    """

    def __new__(
        cls,
        bucket_name: str,
        logger: TotoLogger | None = None,
        cid: str | None = None,
        *,
        environment: TotoEnvironment | None = None,
    ) -> CloudStorage:
        """Return the implementation for `environment`, as ``Path()`` returns a ``PosixPath``."""
        made: type[CloudStorage] = cls
        if cls is CloudStorage:
            made = implementation(CloudStorage, environment or current_environment())
        return object.__new__(made)

    async def upload_file_async(
        self,
        local_file_path: str | PathLike[str],
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload a local file. If cancelled, an existing file is unchanged."""
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return await self._upload_stoppable(lambda: Path(local_file_path).open("rb"), destination_path, options)

    async def upload_bytes_async(
        self,
        data: bytes,
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload bytes. If cancelled, an existing file is unchanged."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidArgument(f"upload_bytes takes bytes, not {type(data).__name__}.")
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return await self._upload_stoppable(partial(io.BytesIO, data), destination_path, options)

    async def upload_stream_async(
        self,
        chunks: AsyncIterable[bytes] | Iterable[bytes],
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload chunks, such as ``request.stream()``. If cancelled, an existing file is unchanged."""
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        if not isinstance(chunks, AsyncIterable):
            return await self._upload_stoppable(partial(_reader, chunks), destination_path, options)
        source = LoopChunks(chunks)
        try:
            # A thread of its own: it waits for chunks, and to produce one may take a thread of the pool.
            upload = partial(self._upload, destination_path, _reader(source), options)
            return await asyncio.wrap_future(start_thread(upload, "totoms-upload"))
        except asyncio.CancelledError:
            source.stop()
            raise

    copy_file_async = in_transfer_thread(SyncStorage.copy_file)
    move_file_async = in_transfer_thread(SyncStorage.move_file)
    delete_file_async = in_transfer_thread(SyncStorage.delete_file)
    download_file_async = in_transfer_thread(SyncStorage.download_file)

    async def stream_file_async(self, path: str, start: int | None = None, end: int | None = None) -> AsyncByteStream:
        """Open a file: ``async for chunk in await storage.stream_file_async(path)``."""
        return AsyncByteStream(await run_transfer(self.stream_file, path, start, end))

    get_file_bytes_async = in_transfer_thread(SyncStorage.get_file_bytes)
    get_file_content_async = in_transfer_thread(SyncStorage.get_file_content)
    stat_async = in_transfer_thread(SyncStorage.stat)
    exists_async = in_transfer_thread(SyncStorage.exists)
    list_files_async = in_transfer_thread(SyncStorage.list_files)

    async def iter_files_async(self, prefix: str = "", *, delimiter: str = "") -> AsyncIterator[str]:
        """Yield keys, fetching pages as needed: ``async for key in storage.iter_files_async()``."""
        keys = self.iter_files(prefix, delimiter=delimiter)
        while page := await run_transfer(lambda: list(islice(keys, _LIST_PAGE))):
            for key in page:
                yield key

    signed_url_async = in_transfer_thread(SyncStorage.signed_url)

    async def _upload_stoppable(self, source: Callable[[], BinaryIO], key: str, options: WriteOptions) -> str:
        stop = threading.Event()

        def upload() -> str:
            with source() as raw:
                return self._upload(key, cast(BinaryIO, StoppableReader(raw, stop)), options)

        try:
            return await run_transfer(upload)
        except asyncio.CancelledError:
            stop.set()
            raise


def _reader(chunks: Iterable[bytes]) -> BinaryIO:
    return cast(BinaryIO, ChunkReader(chunks))
