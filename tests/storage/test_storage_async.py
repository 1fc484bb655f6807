"""The twins for coroutines: the same results, the loop free, and a cancelled upload leaves what was there."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from totoms.errors import InvalidKey, NotFound
from totoms.local.storage.storage import LocalCloudStorage
from totoms.storage.storage import CloudStorage, FileInfo, WriteOptions
from totoms.storage.streams import LoopChunks, UploadCancelled

MIB = 1024 * 1024
DEADLINE = 120.0


def test_every_public_method_has_a_twin_with_the_same_arguments() -> None:
    names = {name for name, value in vars(CloudStorage.__mro__[1]).items() if callable(value) and name[0] != "_"}
    assert len(names) == 15
    for name in names:
        plain, twin = getattr(CloudStorage, name), getattr(CloudStorage, f"{name}_async")
        assert list(inspect.signature(plain).parameters) == list(inspect.signature(twin).parameters), name


async def test_each_twin_does_what_the_plain_one_does(storage: CloudStorage, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"file")
    etag = await storage.upload_file_async(tmp_path / "up", "file", metadata={"a": "b"}, content_type="a/b")
    info = await storage.stat_async("file")
    assert (info.etag, info.metadata, info.content_type) == (etag, {"a": "b"}, "a/b")
    await storage.upload_bytes_async(b"bytes", "bytes", if_absent=True)
    await storage.upload_stream_async([b"str", b"eam"], "stream")
    await storage.copy_file_async("file", "copy")
    await storage.move_file_async("copy", "moved")
    assert await storage.list_files_async() == ["bytes", "file", "moved", "stream"]
    assert [key async for key in storage.iter_files_async("m")] == ["moved"]
    assert await storage.get_file_content_async("moved") == "file"
    assert await storage.get_file_bytes_async("bytes") == b"bytes"
    assert [chunk async for chunk in await storage.stream_file_async("stream", 1, -1)] == [b"trea"]
    await storage.download_file_async("stream", tmp_path / "new" / "down")
    assert (tmp_path / "new" / "down").read_bytes() == b"stream"
    await storage.delete_file_async("file")
    assert not await storage.exists_async("file")
    with pytest.raises(NotFound):
        await storage.stream_file_async("file")
    with pytest.raises(InvalidKey):
        await storage.upload_bytes_async(b"", "..")


async def test_a_list_longer_than_a_page(storage: CloudStorage) -> None:
    class Many(LocalCloudStorage):
        def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
            return (f"{number:05}" for number in range(10_001))

    keys = [key async for key in Many("my-bucket").iter_files_async()]
    assert len(keys) == 10_001
    assert keys == sorted(keys)


async def test_chunks_from_a_coroutine(storage: CloudStorage) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(100):
            await asyncio.sleep(0)
            yield bytes([number]) * 1000

    await storage.upload_stream_async(chunks(), "key")
    assert await storage.get_file_bytes_async("key") == b"".join(bytes([number]) * 1000 for number in range(100))


async def test_chunks_from_a_coroutine_that_raises_leave_what_was_there(storage: CloudStorage) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionResetError("the client went away")

    storage.upload_bytes(b"old", "key")
    with pytest.raises(ConnectionResetError):
        await storage.upload_stream_async(chunks(), "key")
    assert storage.get_file_bytes("key") == b"old"


async def test_more_uploads_than_threads_that_read_what_they_upload(storage: CloudStorage) -> None:
    # Each upload waits for chunks that need a worker thread: had uploads those threads, all would wait for ever.
    storage.upload_bytes(b"x" * MIB, "source")

    async def copy(number: int) -> None:
        await storage.upload_stream_async(await storage.stream_file_async("source"), f"copy/{number}")

    async with asyncio.timeout(60):
        await asyncio.gather(*(copy(number) for number in range(50)))
    assert len(storage.list_files("copy/")) == 50


async def test_cancelling_an_upload_that_waits_for_a_chunk_leaves_what_was_there(
    storage: CloudStorage, bucket_folder: Path
) -> None:
    waiting = asyncio.Event()
    ended = threading.Event()

    class Telling(LocalCloudStorage):
        def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
            try:
                return super()._write(key, source, options)
            finally:
                ended.set()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"new"
        waiting.set()
        await asyncio.Event().wait()

    storage.upload_bytes(b"old", "key")
    upload = asyncio.create_task(Telling("my-bucket").upload_stream_async(chunks(), "key"))
    async with asyncio.timeout(DEADLINE):
        await waiting.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
    assert await asyncio.to_thread(ended.wait, DEADLINE)
    assert os.listdir(bucket_folder / "incoming") == []
    assert storage.get_file_bytes("key") == b"old"


async def test_cancelling_an_upload_of_a_file_or_bytes_leaves_what_was_there(tmp_path: Path) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow(LocalCloudStorage):
        def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
            begun.set()
            assert go_on.wait(DEADLINE)
            try:
                return super()._write(key, source, options)
            finally:
                ended.set()

    CloudStorage("my-bucket").upload_bytes(b"old", "key")
    (tmp_path / "file").write_bytes(b"new")
    slow = Slow("my-bucket")
    for upload_new in (
        slow.upload_bytes_async(b"new", "key"),
        slow.upload_file_async(tmp_path / "file", "key"),
        slow.upload_stream_async([b"new"], "key"),
    ):
        for event in (begun, go_on, ended):
            event.clear()
        upload = asyncio.create_task(upload_new)
        assert await asyncio.to_thread(begun.wait, DEADLINE)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        go_on.set()
        assert await asyncio.to_thread(ended.wait, DEADLINE)
        assert slow.get_file_bytes("key") == b"old"


async def test_the_loop_goes_on_while_a_backend_is_slow() -> None:
    go_on = threading.Event()

    class Slow(LocalCloudStorage):
        def _stat(self, key: str) -> FileInfo:
            assert go_on.wait(DEADLINE)  # only the loop ends this
            return super()._stat(key)

    slow = Slow("my-bucket")
    slow.upload_bytes(b"", "key")
    stats = [asyncio.create_task(slow.stat_async("key")) for _ in range(8)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(stat.done() for stat in stats)
    go_on.set()
    assert {info.key for info in await asyncio.gather(*stats)} == {"key"}


async def test_closing_a_stream_that_is_being_read_waits_for_the_reader() -> None:
    # Else its descriptor, closed and given to another file, would be read from.
    reading, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    class Slow(LocalCloudStorage):
        def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
            class Chunks:
                def __iter__(self) -> Chunks:
                    return self

                def __next__(self) -> bytes:
                    reading.set()
                    assert go_on.wait(DEADLINE)
                    order.append("read")
                    return b"x"

                def close(self) -> None:
                    order.append("closed")

            return Chunks()

    stream = await Slow("my-bucket").stream_file_async("key")
    reader = asyncio.create_task(anext(stream))
    assert await asyncio.to_thread(reading.wait, DEADLINE)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    closing = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert order == ["read", "closed"]


async def test_a_stream_is_released_by_async_with(storage: CloudStorage) -> None:
    storage.upload_bytes(b"x" * MIB, "key")
    async with await storage.stream_file_async("key") as stream:
        await anext(stream)
    assert [chunk async for chunk in stream] == []


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "loop ended"])
def test_thread_that_asks_for_a_chunk_of_an_upload_that_is_over_gets_an_error(stop: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"chunk"

    async def begin() -> LoopChunks:
        return LoopChunks(chunks())

    asked = asyncio.run(begin())
    if stop:
        asked.stop()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(UploadCancelled):
            next(asked)
        gc.collect()
    assert [str(one.message) for one in told] == []
