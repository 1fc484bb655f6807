"""The storage contract, part listing, missing files and local files: behaviours 36 to 38, and 45."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from totoms.errors import NotFound, Unavailable
from totoms.storage.storage import CloudStorage
from totoms.testing.contract import check_same
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import MIB, noise, read_all, upload_all

# Two of them sort differently by UTF-16 code units, which some stores and SDKs use.
_MIXED: Final = ["B", "Z/z", "a", "a/", "a/b", "a/b/c", "a/c", "aa", "b", "é/x", "世界", "\uff5e", "🌍"]


async def _listed(storage: CloudStorage, prefix: str = "", delimiter: str = "") -> list[str]:
    found = [key async for key in storage.iter_files_async(prefix, delimiter=delimiter)]
    check_same(found, await storage.list_files_async(prefix, delimiter=delimiter), "iter_files")
    return found


class StorageListing:
    """Files that exist, were deleted, or never existed."""

    async def test_36_list_of_an_empty_bucket_is_empty(self, harness: CloudStorageHarness) -> None:
        """The list of an empty bucket is empty, with and without prefix and delimiter."""
        storage = harness.storage(await harness.create_bucket())
        assert await _listed(storage) == await _listed(storage, "a") == await _listed(storage, "", "/") == []

    async def test_36_list_is_in_order_of_code_points(self, harness: CloudStorageHarness) -> None:
        """Keys are sorted by code point; a prefix matches the exact beginning of a key."""
        storage = harness.storage(await harness.create_bucket())
        await upload_all(storage, reversed(_MIXED))
        assert await _listed(storage) == sorted(_MIXED)
        for prefix in ("a", "a/", "a/b", "a/b/c", "A", "é", "🌍", "b", "/", "nothing", "a."):
            assert await _listed(storage, prefix) == sorted(key for key in _MIXED if key.startswith(prefix)), prefix

    async def test_36_delimiter_gives_each_folder_once(self, harness: CloudStorageHarness) -> None:
        """With a delimiter, keys that contain it after the prefix are listed once as their folder, in order."""
        storage = harness.storage(await harness.create_bucket())
        await upload_all(storage, _MIXED)
        assert await _listed(storage, "", "/") == ["B", "Z/", "a", "a/", "aa", "b", "é/", "世界", "\uff5e", "🌍"]
        assert await _listed(storage, "a/", "/") == ["a/", "a/b", "a/b/", "a/c"]
        assert await _listed(storage, "a", "/") == ["a", "a/", "aa"]
        assert await _listed(storage, "a/b/", "/") == ["a/b/c"]

    async def test_36_list_of_1001_keys_is_complete(self, harness: CloudStorageHarness) -> None:
        """A list of more than one page is complete, folders included."""
        storage = harness.storage(await harness.create_bucket())
        keys = [f"k/{number:04}" for number in range(1001)]
        await upload_all(storage, ["j", *keys, "l/1", "m"])
        check_same(await _listed(storage, "k/"), keys, "k/")
        check_same(await _listed(storage), ["j", *keys, "l/1", "m"], "all")
        assert await _listed(storage, "", "/") == ["j", "k/", "l/", "m"]

    async def test_36_list_of_10001_keys_is_complete(self, harness: CloudStorageHarness) -> None:
        """A list of more than ten pages is complete, in order and without duplicates."""
        storage = harness.storage(await harness.create_bucket())
        keys = [f"{number % 100:02}/{number:05}" for number in range(10_001)]
        await upload_all(storage, keys)
        check_same(await _listed(storage), sorted(keys), "all")
        assert await _listed(storage, "", "/") == [f"{number:02}/" for number in range(100)]

    async def test_36_list_does_nothing_before_it_is_asked(self, harness: CloudStorageHarness) -> None:
        """`iter_files` sends no request before the first key is read, and may be abandoned."""
        storage = harness.storage(await harness.create_bucket())
        keys, plain = storage.iter_files_async("a"), storage.iter_files("a")
        await upload_all(storage, ["a1", "a2", "a3"])
        assert await anext(keys, None) == "a1"
        assert await asyncio.to_thread(lambda: next(plain, None)) == "a1"
        assert await _listed(storage, "a") == ["a1", "a2", "a3"]

    async def test_37_missing_file_is_the_same_everywhere(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        """For a missing file every method raises NotFound with the key, whether the bucket exists or not."""
        await self._missing(harness.storage(await harness.create_bucket()), tmp_path)
        await self._missing(harness.storage(harness.missing_bucket), tmp_path)
        assert _names(tmp_path) == []

    async def _missing(self, storage: CloudStorage, folder: Path) -> None:
        key = "folder/missing.txt"
        uses: dict[str, Callable[[], Awaitable[object]]] = {
            "stat": lambda: storage.stat_async(key),
            "stream": lambda: storage.stream_file_async(key),
            "range": lambda: storage.stream_file_async(key, 2, 5),
            "empty range": lambda: storage.stream_file_async(key, 3, 3),
            "from the end": lambda: storage.stream_file_async(key, -3),
            "download": lambda: storage.download_file_async(key, folder / "new" / "down"),
            "copy": lambda: storage.copy_file_async(key, "copy"),
            "copy onto itself": lambda: storage.copy_file_async(key, key),
            "move": lambda: storage.move_file_async(key, "moved"),
        }
        for what, use in uses.items():
            with pytest.raises(NotFound) as caught:
                await use()
            assert type(caught.value) is NotFound, what
            assert caught.value.resource == key, what
            assert key in str(caught.value), what
        assert await storage.get_file_content_async(key) is None
        assert await storage.get_file_bytes_async(key) is None
        assert not await storage.exists_async(key)

    async def test_37_missing_bucket_is_reported_or_made(self, harness: CloudStorageHarness) -> None:
        """Listing and writing in a missing bucket raise NotFound, or work."""
        for use in ("list", "upload"):
            storage = harness.storage(f"{harness.missing_bucket}-{use}")
            text = ""
            try:
                if use == "list":
                    assert await storage.list_files_async() == []
                else:
                    await storage.upload_bytes_async(b"x", "key")
                    assert await storage.get_file_bytes_async("key") == b"x"
            except NotFound as error:
                text = str(error)
            assert not text or storage.bucket_name in text

    async def test_38_delete_and_delete_again(self, harness: CloudStorageHarness) -> None:
        """A deleted file is missing for every method; deleting a missing file is not an error."""
        storage = harness.storage(await harness.create_bucket())
        await upload_all(storage, ["a", "a/b"], b"x")
        await storage.delete_file_async("a")
        await storage.delete_file_async("a")
        await storage.delete_file_async("never")
        assert await storage.get_file_bytes_async("a") is None
        assert not await storage.exists_async("a")
        with pytest.raises(NotFound):
            await storage.stream_file_async("a")
        assert await storage.list_files_async() == ["a/b"]
        await storage.upload_bytes_async(b"new", "a")
        assert await storage.get_file_bytes_async("a") == b"new"

    async def test_45_upload_of_a_missing_local_file_is_the_plain_error(
        self, harness: CloudStorageHarness, tmp_path: Path
    ) -> None:
        """A local file that cannot be read raises the system's own error, and nothing is written."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"old", "old")
        for local, error in ((tmp_path / "missing", FileNotFoundError), (tmp_path, IsADirectoryError)):
            for key in ("old", "new"):
                with pytest.raises(error) as caught:
                    await storage.upload_file_async(local, key)
                assert caught.value.filename in (local, str(local))
        assert await storage.list_files_async() == ["old"]
        assert await storage.get_file_bytes_async("old") == b"old"

    async def test_45_download_makes_the_folder(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        """A download creates missing folders, replaces an existing file, and leaves no other file."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"new", "key")
        target = tmp_path / "not" / "there" / "file"
        await storage.download_file_async("key", target)
        await storage.upload_bytes_async(b"newer", "key")
        await storage.download_file_async("key", str(target))
        assert target.read_bytes() == b"newer"
        assert [path.name for path in target.parent.iterdir()] == ["file"]

    async def test_45_failed_download_leaves_what_was_there(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        """A download that fails, even halfway, leaves the local file unchanged and no partial one."""
        storage = harness.storage(await harness.create_bucket())
        content = noise(3 * MIB)
        await storage.upload_bytes_async(content, "key")
        (tmp_path / "old").write_bytes(b"old")
        (tmp_path / "folder").mkdir()
        with pytest.raises(NotFound):
            await storage.download_file_async("missing", tmp_path / "old")
        with pytest.raises(OSError, match="folder"):
            await storage.download_file_async("key", tmp_path / "folder")
        assert _names(tmp_path) == ["folder", "old"]
        broken = _Breaking(storage)
        for name in ("old", "new"):
            try:
                await storage.download_file_async("key", tmp_path / name)
            except Unavailable:
                continue
            assert not broken.used, "the error was swallowed"
        if broken.used:  # otherwise the backend does not download by `_read`
            assert _names(tmp_path) == ["folder", "old"]
            assert (tmp_path / "old").read_bytes() == b"old"
        broken.repair()
        check_same(await read_all(storage, "key"), content)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


class _Breaking:
    """Makes reads of a storage fail after the first chunk, until `repair`."""

    def __init__(self, storage: CloudStorage) -> None:
        self.used = False
        self._storage = storage
        storage._read = self._read  # type: ignore[method-assign]

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        self.used = True

        def chunks() -> Iterator[bytes]:
            yield next(iter(type(self._storage)._read(self._storage, key, start, length)))
            raise Unavailable("as the test says", resource=key)

        return chunks()

    def repair(self) -> None:
        storage: Any = self._storage
        del storage._read
