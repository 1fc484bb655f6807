"""The storage contract, of keys: behaviours 43 and 44. The verdict on each stands here, and is that of every store."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from totoms.errors import InvalidKey
from totoms.storage import CloudStorage
from totoms.testing.storage_harness import CloudStorageHarness
from totoms.testing.storage_tools import at_once

OPAQUE: Final = [
    # what would be a path
    "/etc/passwd", "/", "//", "a/", "a", "a//b", "a/b", "/a", "~root", ".hidden", "..x", "...x", "a/.b/c", "C:/x",
    # what would be decoded, or cut off, in a URL
    "%2e%2e/", "%2e%2e/x", "%2F", "%00", "%", "a%20b", "a b", "a+b", "a?b#c", "a?", "a#", "a&b=c", "a;b", "http://a/b",
    # letters that somebody might fold together
    "A", "B/A", "b/a", "\u00e9", "e\u0301", "\u212b", "\u00c5", "\u00df", "ss", "\u0130", "\ufb01",
    # spaces and signs
    " ", " a ", "a ", "'", '"', "`$(x)`", "*", "[a]", "{a}", "<a>", "|", ":", "a,b", "@", "-rf", "=", "^", "!",
    # names that some file system keeps to itself
    "CON", "con", "nul.txt", "aux/lpt1", "Thumbs.db", "objects", "incoming", "_files",
    # of every length
    "s" * 300, "x" * 1024, "\U0001f30d" * 256, "/".join("a" * 254), "\u4e16\u754c",
    # all of printable ASCII that is not there yet
    *[c for c in string.printable if c.isprintable() and c not in "./\\aA %'\"*|:@=^!"],
]  # fmt: skip
"""Each of these is a file of its own."""
REFUSED: Final = [
    # a segment that ends with a dot: Azure drops it, S3 and GCS refuse some
    ".", "..", "../x", "../../../../etc/passwd", "a/..", "a/../b", "./a", "a/./b", "a.", "a./b", "a...", "a/.",
    # Azure makes a slash of it
    "a\\b", "\\", "..\\x",
    # control characters, private use and what is no character
    "a\nb", "a\rb", "\t", "\x1f", "\x7f", "\x85", "\ue000", "\uffff", "\ufdd0", "\U0001fffe", "\U000f0000",
    *[chr(code) for code in range(1, 32)],
    # reserved by a cloud, or too deep for one
    "soap", ".well-known/acme-challenge/x", "/".join("a" * 255),
]  # fmt: skip
"""Some store could not keep these as they are, so every one refuses them."""
IMPOSSIBLE: Final[dict[str, Any]] = {
    "empty": "", "NUL": "\x00", "NUL inside": "a\x00b", "1,025 bytes": "z" * 1025,
    "1,025 bytes in fewer characters": "a" + "\U0001f30d" * 256, "a megabyte": "x" * 1024 * 1024,
    "a lone surrogate": "\ud800", "a byte that is no UTF-8": "a\udcff", "None": None, "bytes": b"a", "a number": 1,
}  # fmt: skip
"""No key at all."""


def _uses(storage: CloudStorage, key: Any, folder: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    # Were anything done before the key is looked at, these would meet a file that is not there, or a bucket.
    return {
        "upload_file": lambda: storage.upload_file_async(folder / "missing", key),
        "upload_bytes": lambda: storage.upload_bytes_async(b"", key),
        "upload_stream": lambda: storage.upload_stream_async([b""], key),
        "download_file": lambda: storage.download_file_async(key, folder / "down" / "x"),
        "stream_file": lambda: storage.stream_file_async(key),
        "get_file_content": lambda: storage.get_file_content_async(key),
        "get_file_bytes": lambda: storage.get_file_bytes_async(key),
        "stat": lambda: storage.stat_async(key),
        "exists": lambda: storage.exists_async(key),
        "delete_file": lambda: storage.delete_file_async(key),
        "copy_file from": lambda: storage.copy_file_async(key, "x"),
        "copy_file to": lambda: storage.copy_file_async("x", key),
        "move_file from": lambda: storage.move_file_async(key, "x"),
        "move_file to": lambda: storage.move_file_async("x", key),
        "signed_url": lambda: storage.signed_url_async(key),
    }


async def _refused(storage: CloudStorage, key: Any, folder: Path) -> None:
    for what, use in _uses(storage, key, folder).items():
        try:
            await use()
        except InvalidKey as error:
            text = str(error)
            assert text.isascii(), what
            assert text.isprintable(), what
            assert len(text) < 300, what
        except Exception as error:
            raise AssertionError(f"{what} of the key {ascii(key)[:40]} does something else first: {error!r}") from error
        else:
            pytest.fail(f"{what} takes the key {ascii(key)[:40]}")
    assert not await asyncio.to_thread(lambda: list(folder.iterdir()))


class StorageKeys:
    """Keys are opaque: each is a file of its own, or refused."""

    @pytest.mark.parametrize("key", OPAQUE, ids=lambda key: ascii(key)[1:-1][:40])
    async def test_43_key_is_a_file_of_its_own(self, harness: CloudStorageHarness, key: str) -> None:
        """A weird key is written, told, listed, read and deleted as it stands."""
        storage = harness.storage(await harness.create_bucket())
        await storage.upload_bytes_async(b"content", key)
        assert await storage.get_file_bytes_async(key) == b"content"
        assert (await storage.stat_async(key)).key == key
        assert await storage.list_files_async() == [key]
        assert await storage.list_files_async(key[: len(key) // 2]) == [key]
        await storage.copy_file_async(key, "copy")
        await storage.delete_file_async(key)
        assert await storage.list_files_async() == ["copy"]

    async def test_43_no_two_keys_are_one(self, harness: CloudStorageHarness) -> None:
        """All of them beside each other: none overwrites, hides or swallows another."""
        assert len(set(OPAQUE)) == len(OPAQUE)
        storage = harness.storage(await harness.create_bucket())
        contents = {key: str(number).encode() for number, key in enumerate(OPAQUE)}
        await at_once([partial(storage.upload_bytes_async, content, key) for key, content in contents.items()])
        assert await storage.list_files_async() == sorted(OPAQUE)
        found = await at_once([partial(storage.get_file_bytes_async, key) for key in OPAQUE])
        assert dict(zip(OPAQUE, found, strict=True)) == contents

    @pytest.mark.parametrize("key", REFUSED, ids=lambda key: ascii(key)[1:-1][:40])
    async def test_43_key_that_some_store_cannot_keep_is_refused(
        self, harness: CloudStorageHarness, tmp_path: Path, key: str
    ) -> None:
        """A key that could not be kept as it stands everywhere is InvalidKey, whatever is to be done with it."""
        await _refused(harness.storage(harness.missing_bucket), key, tmp_path)

    @pytest.mark.parametrize("key", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    async def test_44_what_is_no_key_is_refused_before_any_io(
        self, harness: CloudStorageHarness, tmp_path: Path, key: Any
    ) -> None:
        """What is no key is InvalidKey before a file, a folder or the bucket is touched, which are all missing."""
        await _refused(harness.storage(harness.missing_bucket), key, tmp_path)

    async def test_44_prefix_that_no_key_can_have_is_refused(self, harness: CloudStorageHarness) -> None:
        """A prefix or delimiter that no key can have is InvalidKey, when the list is made."""
        storage = harness.storage(harness.missing_bucket)
        for bad in ("\x00", "a\nb", "\ud800", "a\\", "p" * 1025, None):
            for prefix, delimiter in ((bad, ""), ("", bad)):
                with pytest.raises(InvalidKey):
                    storage.iter_files(prefix, delimiter=delimiter)  # type: ignore[arg-type]
                with pytest.raises(InvalidKey):
                    await storage.list_files_async(prefix, delimiter=delimiter)  # type: ignore[arg-type]

    async def test_44_bucket_name_that_no_store_has_is_refused(self, harness: CloudStorageHarness) -> None:
        """So is a bucket's name, when the storage is constructed."""
        for bad in ("", "ab", "../x", "a/b", "Upper", "a b", "a..b", "-abc", "abc-", "x" * 223, "é" * 3, None, b"abc"):
            with pytest.raises(InvalidKey):
                harness.storage(bad)  # type: ignore[arg-type]
