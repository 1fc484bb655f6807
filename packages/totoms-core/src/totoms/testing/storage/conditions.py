"""The storage contract, part concurrency and conditional writes: behaviours 39, 40 and 46."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from totoms.context import new_cid
from totoms.errors import BackendError, InvalidArgument, NotFound, PreconditionFailed
from totoms.storage.storage import CloudStorage
from totoms.testing.contract import check_same
from totoms.testing.stalls import StallMeter
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import LONGEST_STALL, MIB, noise, pieces, read_all

_RACERS: Final = 20
_VERSIONS: Final = 12
_READERS: Final = 4


def _version(number: int) -> bytes:
    return b"%08d" % number * (50_000 + number * 7_000)


async def _race(harness: CloudStorageHarness, bucket: str, if_match: str | None) -> str:
    """Have all racers upload at the same time, assert that exactly one wins, and return its etag."""
    meet, race = asyncio.Barrier(_RACERS), new_cid().encode()

    async def content(number: int) -> AsyncIterator[bytes]:
        yield race + b" "  # different in each race: some stores take the same bytes for the same version
        await meet.wait()  # all have started, so checking the condition before writing is too early
        yield b"%d" % number

    async def run(number: int) -> tuple[int, str] | None:
        storage = harness.storage(bucket)
        try:
            etag = await storage.upload_stream_async(
                content(number), "raced", if_absent=if_match is None, if_match=if_match
            )
        except PreconditionFailed:
            return None
        return number, etag

    async with asyncio.timeout(harness.patience):
        winners = [won for won in await asyncio.gather(*map(run, range(_RACERS))) if won is not None]
    assert len(winners) == 1, f"{len(winners)} of {_RACERS} racers won"
    storage = harness.storage(bucket)
    assert await storage.get_file_bytes_async("raced") == race + b" %d" % winners[0][0]
    assert (await storage.stat_async("raced")).etag == winners[0][1]
    return winners[0][1]


class StorageConditions:
    """Concurrent writes: a file is written as a whole or not at all."""

    async def test_39_reader_sees_old_or_new(self, harness: CloudStorageHarness) -> None:
        """While a file is overwritten repeatedly, readers see whole versions with matching metadata."""
        bucket = await harness.create_bucket()
        storage = harness.storage(bucket)
        await storage.upload_bytes_async(_version(0), "key", metadata={"number": "0"})
        writing = asyncio.Event()

        async def write() -> None:
            try:
                for number in range(1, _VERSIONS):
                    await storage.upload_bytes_async(_version(number), "key", metadata={"number": str(number)})
            finally:
                writing.set()

        async def read() -> None:
            mine, last = harness.storage(bucket), 0
            while not writing.is_set():
                content = await read_all(mine, "key")
                assert content[:8].isdigit(), f"a reader got a torn version: {content[:8]!r}"
                number = int(content[:8])
                check_same(content, _version(number), "a torn read")
                assert number >= last, "an old version came back"
                last = number
                info = await mine.stat_async("key")
                assert info.size == len(_version(int(info.metadata["number"]))), (
                    "size and metadata are of different versions"
                )

        async with asyncio.timeout(harness.patience), asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for _ in range(_READERS):
                tasks.create_task(read())
        check_same(await storage.get_file_bytes_async("key"), _version(_VERSIONS - 1), "the last version")

    async def test_39_stream_is_of_one_version(self, harness: CloudStorageHarness) -> None:
        """When the file is overwritten, a running stream continues with its version or raises a typed error."""
        storage = harness.storage(await harness.create_bucket())
        old, new = noise(16 * MIB, "old"), noise(16 * MIB, "new")
        await storage.upload_bytes_async(old, "key")
        stream = await storage.stream_file_async("key")
        first = await anext(stream)
        await storage.upload_bytes_async(new, "key")
        try:
            rest = b"".join([chunk async for chunk in stream])
        except BackendError:
            assert old.startswith(first)
        else:
            check_same(first + rest, old, "a stream")
        check_same(await read_all(storage, "key"), new, "the new version")

    async def test_39_cancelled_upload_leaves_the_old(self, harness: CloudStorageHarness) -> None:
        """An upload that is cancelled, or whose source fails, changes nothing."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"old", "old", metadata={"a": "b"})
        for key in ("old", "new"):
            waiting = asyncio.Event()

            async def stuck(waiting: asyncio.Event = waiting) -> AsyncIterator[bytes]:
                yield bytes(MIB)
                waiting.set()
                await asyncio.Event().wait()

            async def failing() -> AsyncIterator[bytes]:
                yield bytes(MIB)
                raise ConnectionResetError("the caller disconnected")

            async with asyncio.timeout(harness.patience):
                upload = asyncio.create_task(storage.upload_stream_async(stuck(), key))
                await waiting.wait()
                upload.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await upload
                with pytest.raises(ConnectionResetError):
                    await storage.upload_stream_async(failing(), key)
        assert await storage.list_files_async() == ["old"]
        assert await storage.get_file_bytes_async("old") == b"old"
        assert (await storage.stat_async("old")).metadata == {"a": "b"}

    async def test_40_of_twenty_creators_one_wins(self, harness: CloudStorageHarness) -> None:
        """Of twenty concurrent create-if-absent writes exactly one succeeds; the others raise and change nothing."""
        bucket = await harness.create_bucket()
        await _race(harness, bucket, None)

    async def test_40_of_twenty_replacers_one_wins(self, harness: CloudStorageHarness) -> None:
        """Of twenty concurrent replace-if-unchanged writes exactly one succeeds, in each of three rounds."""
        bucket = await harness.create_bucket()
        etag = await harness.storage(bucket).upload_bytes_async(b"old", "raced")
        for _ in range(3):
            etag = await _race(harness, bucket, etag)

    async def test_40_failed_conditions_are_reported_and_change_nothing(
        self, harness: CloudStorageHarness, tmp_path: Path
    ) -> None:
        """Every upload method raises PreconditionFailed if the condition does not hold, and writes if it does."""
        storage = harness.storage(await harness.create_bucket())
        first = await storage.upload_bytes_async(b"first", "key", if_absent=True)
        second = await storage.upload_bytes_async(b"second", "key", if_match=first)
        local = tmp_path / "local"
        local.write_bytes(b"x")
        conditions: list[dict[str, Any]] = [{"if_absent": True}, {"if_match": first}, {"if_match": "unknown"}]
        for condition in conditions:
            uploads: list[Callable[..., Awaitable[str]]] = [
                partial(storage.upload_bytes_async, b"x"),
                partial(storage.upload_stream_async, pieces(b"x")),
                partial(storage.upload_file_async, local),
            ]
            for upload in uploads:
                with pytest.raises(PreconditionFailed) as caught:
                    await upload("key", **condition)
                assert caught.value.resource == "key"
        with pytest.raises(PreconditionFailed):
            await storage.upload_bytes_async(b"x", "missing", if_match=second)
        with pytest.raises(InvalidArgument):
            await storage.upload_bytes_async(b"x", "key", if_absent=True, if_match=second)
        assert await storage.get_file_bytes_async("key") == b"second"
        assert await storage.list_files_async() == ["key"]
        await storage.delete_file_async("key")
        with pytest.raises(PreconditionFailed):
            await storage.upload_bytes_async(b"x", "key", if_match=second)
        await storage.upload_bytes_async(b"third", "key", if_absent=True)
        assert await storage.get_file_bytes_async("key") == b"third"

    async def test_46_twenty_at_once(self, harness: CloudStorageHarness) -> None:
        """Twenty tasks that write, read, list, copy and delete concurrently do not disturb each other."""
        bucket = await harness.create_bucket()

        async def work(number: int) -> None:
            storage = harness.storage(bucket)
            mine = f"{number:02}/"
            for turn in range(3):
                content = noise(20_000 + number, f"{number} {turn}")
                await storage.upload_bytes_async(content, mine + "a", metadata={"turn": str(turn)})
                await storage.upload_stream_async(pieces(content[:9], content[9:]), mine + "b")
                check_same(await storage.get_file_bytes_async(mine + "a"), content, mine)
                assert await read_all(storage, mine + "b", 5, 50) == content[5:50]
                await storage.copy_file_async(mine + "a", mine + "c")
                assert await storage.list_files_async(mine) == [mine + name for name in "abc"]
                assert (await storage.stat_async(mine + "c")).metadata == {"turn": str(turn)}
                await storage.delete_file_async(mine + "b")
                assert not await storage.exists_async(mine + "b")
                await storage.upload_bytes_async(b"%d" % number, "shared")
                assert int(await storage.get_file_content_async("shared") or "") in range(_RACERS)

        async with asyncio.timeout(harness.patience):
            await asyncio.gather(*map(work, range(_RACERS)))
        left = await harness.storage(bucket).list_files_async()
        assert left == sorted(["shared", *(f"{number:02}/{name}" for number in range(_RACERS) for name in "ac")])

    async def test_46_event_loop_stays_free(self, harness: CloudStorageHarness) -> None:
        """No ``_async`` method blocks the event loop."""
        storage = harness.storage(await harness.create_bucket())
        async with StallMeter() as meter:
            await self._use(storage)
        assert meter.longest < LONGEST_STALL, f"the event loop was blocked for {meter.longest:.3f} s"

    async def _use(self, storage: CloudStorage) -> None:
        await storage.upload_bytes_async(noise(MIB), "key")
        await storage.upload_stream_async(pieces(b"x"), "other", if_absent=True)
        await storage.stat_async("key")
        await storage.exists_async("missing")
        await storage.get_file_bytes_async("key")
        await storage.get_file_content_async("missing")
        await storage.list_files_async()
        async for _ in storage.iter_files_async():
            pass
        async with await storage.stream_file_async("key", -10) as stream:
            await anext(stream)
        await storage.copy_file_async("key", "copy")
        await storage.move_file_async("copy", "moved")
        with pytest.raises(NotFound):
            await storage.stream_file_async("missing")
        await storage.delete_file_async("key")
