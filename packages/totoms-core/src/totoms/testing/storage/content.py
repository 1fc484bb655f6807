"""The storage contract, part content and metadata: behaviours 33 to 35, and 41."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from totoms.errors import CorruptData, InvalidKey, NotFound
from totoms.testing.contract import check_same
from totoms.testing.stalls import StallMeter
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import LONGEST_STALL, MIB, noise, pieces, read_all

_TEXT: Final = "Grüße, 世界 🌍\r\n\x00"
_CONTENTS: Final = {
    "empty": b"",
    "one byte": b"x",
    "text": _TEXT.encode(),
    "every byte": bytes(range(256)),
    "10 MiB": noise(10 * MIB),
}
_DIGITS: Final = b"0123456789"
_RANGES: Final = [
    (2, 5),
    (0, 1),
    (0, 10),
    (9, 10),
    (7, None),
    (None, 3),
    (None, None),
    (0, None),
    (-3, None),
    (None, -3),
    (-5, -2),
    (-99, 2),
    (4, 4),
    (7, 3),
    (-2, -5),
    (0, 0),
    (8, 99),
    (10, None),
    (10, 20),
    (50, 60),
    (-1, None),
    (None, -10),
]
_BIG: Final = 64 * MIB
_TYPES: Final = {
    "a.txt": "text/plain",
    "a.html": "text/html",
    "a.json": "application/json",
    "a.png": "image/png",
    "folder.d/a.PDF": "application/pdf",
    "a.gz": "application/gzip",
    "a": "application/octet-stream",
    "a.unknown-ending": "application/octet-stream",
    "folder.txt/a": "application/octet-stream",
}
_METADATA: Final = {"author": "me", "n_1": "a b=c; \"d\" 'e' \\ % +", "_": "~"}
_REFUSED_METADATA: Final[list[dict[Any, Any]]] = [
    {"Author": "x"},
    {"a-b": "x"},
    {"ä": "x"},
    {"": "x"},
    {"a b": "x"},
    {"a\n": "x"},
    {"1a": "x"},
    {"\udcff": "x"},
    {"a": "ä"},
    {"a": "a\nb"},
    {"a": "\udcff"},
    {"a": "\x00"},
    {"a": " x"},
    {"a": ""},
    {"a": b"x"},
    {b"a": "x"},
    {"a": "x" * 2048},
    {"a" * 129: "x"},
]


class StorageContent:
    """Reading, ranges, metadata and copies."""

    @pytest.mark.parametrize("content", _CONTENTS.values(), ids=_CONTENTS)
    async def test_33_content_comes_back_as_it_went_in(
        self, harness: CloudStorageHarness, tmp_path: Path, content: bytes
    ) -> None:
        """Every method of upload and download keeps any content unchanged."""
        storage = harness.storage(await harness.create_bucket())
        (tmp_path / "up").write_bytes(content)
        await storage.upload_bytes_async(content, "bytes")
        await storage.upload_file_async(tmp_path / "up", "file")
        third = len(content) // 3
        await storage.upload_stream_async(pieces(content[:third], b"", content[third:]), "stream")
        await storage.upload_stream_async([content[:1], content[1:]], "plain")
        for key in ("bytes", "file", "stream", "plain"):
            check_same(await storage.get_file_bytes_async(key), content, key)
            check_same(await read_all(storage, key), content, key)
            assert (await storage.stat_async(key)).size == len(content)
            await storage.download_file_async(key, tmp_path / key)
            check_same((tmp_path / key).read_bytes(), content, key)

    async def test_33_plain_methods_do_the_same(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        """The methods without ``_async`` do the same as those with it."""
        bucket = await harness.create_bucket()

        def use() -> None:
            storage = harness.storage(bucket)
            (tmp_path / "up").write_bytes(b"file")
            etag = storage.upload_file(tmp_path / "up", "file", content_type="a/b", metadata={"a": "b"})
            info = storage.stat("file")
            assert (info.key, info.etag, info.content_type, info.metadata) == ("file", etag, "a/b", {"a": "b"})
            storage.upload_bytes(b"bytes", "bytes", if_absent=True)
            storage.upload_stream([b"str", b"eam"], "stream")
            storage.copy_file("file", "copy")
            storage.move_file("copy", "moved")
            assert storage.list_files() == list(storage.iter_files()) == ["bytes", "file", "moved", "stream"]
            assert storage.get_file_content("moved") == "file"
            assert storage.get_file_bytes("bytes") == b"bytes"
            assert b"".join(storage.stream_file("stream", 1, -1)) == b"trea"
            storage.download_file("stream", tmp_path / "down")
            assert (tmp_path / "down").read_bytes() == b"stream"
            storage.delete_file("file")
            assert not storage.exists("file")

        await asyncio.to_thread(use)

    async def test_33_text_is_utf_8(self, harness: CloudStorageHarness) -> None:
        """`get_file_content` returns text; it raises CorruptData for content that is not UTF-8."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(_TEXT.encode(), "text")
        await storage.upload_bytes_async(b"\xff", "binary")
        assert await storage.get_file_content_async("text") == _TEXT
        with pytest.raises(CorruptData):
            await storage.get_file_content_async("binary")
        assert await storage.get_file_bytes_async("binary") == b"\xff"

    async def test_33_memory_stays_well_below_the_object(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        """Transfers of 64 MiB need less than half of it in memory, and do not block the event loop."""
        storage = harness.storage(await harness.create_bucket())

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(_BIG // MIB):
                yield bytes(MIB)

        tracemalloc.start()
        try:
            async with StallMeter() as meter:
                await storage.upload_stream_async(chunks(), "big")
                size = 0
                async for chunk in await storage.stream_file_async("big"):
                    size += len(chunk)
                await storage.download_file_async("big", tmp_path / "big")
                await storage.upload_file_async(tmp_path / "big", "again")
                await storage.copy_file_async("big", "copy")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert size == (tmp_path / "big").stat().st_size == _BIG
        assert (await storage.stat_async("again")).size == (await storage.stat_async("copy")).size == _BIG
        assert peak < _BIG / 2, f"{peak / MIB:.0f} MiB were in memory at once"
        assert meter.longest < LONGEST_STALL, f"the event loop was blocked for {meter.longest:.3f} s"

    async def test_34_range_is_what_a_slice_gives(self, harness: CloudStorageHarness) -> None:
        """A range returns what a slice with the same bounds does, empty or beyond the end too."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(_DIGITS, "digits")
        await storage.upload_bytes_async(b"", "nothing")
        for start, end in _RANGES:
            assert await read_all(storage, "digits", start, end) == _DIGITS[start:end], (start, end)
            assert await read_all(storage, "nothing", start, end) == b"", (start, end)

    async def test_34_range_across_chunks(self, harness: CloudStorageHarness) -> None:
        """Ranges of a large file are exact across the borders of its chunks."""
        storage = harness.storage(await harness.create_bucket())
        content = noise(9 * MIB + 7)
        await storage.upload_bytes_async(content, "large")
        for border in (64 * 1024, 128 * 1024, 256 * 1024, MIB, 4 * MIB, 5 * MIB, 8 * MIB):
            for start, end in ((border - 1, border + 1), (border, border + 3), (border - 3, border), (1, border)):
                check_same(await read_all(storage, "large", start, end), content[start:end], (start, end))
        check_same(await read_all(storage, "large", 4 * MIB + 1), content[4 * MIB + 1 :], "to the end")
        check_same(await read_all(storage, "large", -MIB - 1, -1), content[-MIB - 1 : -1], "from the end")

    async def test_35_content_type_is_kept_or_derived_from_the_key(self, harness: CloudStorageHarness) -> None:
        """A given content type is kept exactly; without one it is guessed from the key's extension."""
        storage = harness.storage(await harness.create_bucket())
        for key, expected in _TYPES.items():
            await storage.upload_bytes_async(b"<html>{}", key)
            assert (await storage.stat_async(key)).content_type == expected, key
        for given in ("text/x-mine", "text/plain; charset=utf-8", "application/vnd.api+json"):
            for key in ("given", "given.png"):
                await storage.upload_bytes_async(b"", key, content_type=given)
                assert (await storage.stat_async(key)).content_type == given
        for bad in ("text", "a/b\r\nx: y", "ä/b", "", "a/" + "b" * 300):
            with pytest.raises(InvalidKey):
                await storage.upload_bytes_async(b"", "bad", content_type=bad)
        assert not await storage.exists_async("bad")

    async def test_35_metadata_comes_back_unchanged(self, harness: CloudStorageHarness) -> None:
        """Metadata is kept unchanged; overwriting the file replaces it and the content type."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"", "key.txt", metadata=_METADATA)
        assert dict((await storage.stat_async("key.txt")).metadata) == _METADATA
        await storage.upload_stream_async([b"x"], "key.txt", content_type="a/b", metadata={"b": "2"})
        info = await storage.stat_async("key.txt")
        assert (dict(info.metadata), info.content_type) == ({"b": "2"}, "a/b")
        await storage.upload_bytes_async(b"", "key.txt")
        info = await storage.stat_async("key.txt")
        assert (dict(info.metadata), info.content_type) == ({}, "text/plain")

    async def test_35_metadata_that_some_store_would_change_is_refused(self, harness: CloudStorageHarness) -> None:
        """Names and values that some store would change raise InvalidKey, and nothing is written."""
        storage = harness.storage(await harness.create_bucket())
        for bad in _REFUSED_METADATA:
            with pytest.raises(InvalidKey):
                await storage.upload_bytes_async(b"", "bad", metadata=bad)
        assert await storage.list_files_async() == []

    async def test_35_stat_has_size_time_and_an_etag_that_changes(self, harness: CloudStorageHarness) -> None:
        """`stat` returns the size, the time of the last write, and an etag that every write changes."""
        storage = harness.storage(await harness.create_bucket())
        etags = [await storage.upload_bytes_async(b"same", "key") for _ in range(3)]
        assert len(set(etags)) == 3
        info = await storage.stat_async("key")
        assert (info.key, info.size, info.etag) == ("key", 4, etags[-1])
        assert info.updated.tzinfo is not None
        assert abs(info.updated - datetime.now(UTC)) < timedelta(
            hours=1
        )  # the clocks of a cloud and of this machine differ

    async def test_41_copy_and_move_keep_content_type_and_metadata(self, harness: CloudStorageHarness) -> None:
        """A copy keeps content, type and metadata, and replaces the destination; a move deletes the source."""
        storage = harness.storage(await harness.create_bucket())
        content = noise(3 * MIB)
        await storage.upload_bytes_async(content, "a b/ü.txt", content_type="a/b", metadata=_METADATA)
        await storage.upload_bytes_async(b"old", "moved", metadata={"old": "1"})
        etags = {
            "copy.png": await storage.copy_file_async("a b/ü.txt", "copy.png"),
            "moved": await storage.move_file_async("copy.png", "moved"),
        }
        assert await storage.list_files_async() == ["a b/ü.txt", "moved"]
        for key in ("a b/ü.txt", "moved"):
            info = await storage.stat_async(key)
            assert (info.content_type, dict(info.metadata), info.size) == ("a/b", _METADATA, len(content))
            check_same(await storage.get_file_bytes_async(key), content, key)
        assert (await storage.stat_async("moved")).etag == etags["moved"]

    async def test_41_copy_onto_itself_keeps_it(self, harness: CloudStorageHarness) -> None:
        """A file copied or moved onto itself is unchanged."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"x", "key", metadata={"a": "b"})
        await storage.copy_file_async("key", "key")
        await storage.move_file_async("key", "key")
        assert await storage.get_file_bytes_async("key") == b"x"
        assert dict((await storage.stat_async("key")).metadata) == {"a": "b"}

    async def test_41_copy_of_a_missing_file_makes_nothing(self, harness: CloudStorageHarness) -> None:
        """Copying or moving a missing file raises NotFound and does not change the destination."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"old", "there")
        for use in (storage.copy_file_async, storage.move_file_async):
            for destination in ("there", "not there", "missing"):
                with pytest.raises(NotFound) as caught:
                    await use("missing", destination)
                assert caught.value.resource == "missing"
        assert await storage.list_files_async() == ["there"]
        assert await storage.get_file_bytes_async("there") == b"old"
