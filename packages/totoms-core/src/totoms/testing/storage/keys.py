"""The storage contract, part keys: behaviours 43 and 44. Each key is accepted or refused by all stores alike."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from totoms.errors import InvalidKey
from totoms.storage.storage import CloudStorage
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import at_once

OPAQUE: Final = [
    # like paths
    "/etc/passwd",
    "/",
    "//",
    "a/",
    "a",
    "a//b",
    "a/b",
    "/a",
    "~root",
    ".hidden",
    "..x",
    "...x",
    "a/.b/c",
    "C:/x",
    # special in a URL
    "%2e%2e/",
    "%2e%2e/x",
    "%2F",
    "%00",
    "%",
    "a%20b",
    "a b",
    "a+b",
    "a?b#c",
    "a?",
    "a#",
    "a&b=c",
    "a;b",
    "http://a/b",
    # letters that case folding or normalization would merge
    "A",
    "B/A",
    "b/a",
    "\u00e9",
    "e\u0301",
    "\u212b",
    "\u00c5",
    "\u00df",
    "ss",
    "\u0130",
    "\ufb01",
    # spaces and signs
    " ",
    " a ",
    "a ",
    "'",
    '"',
    "`$(x)`",
    "*",
    "[a]",
    "{a}",
    "<a>",
    "|",
    ":",
    "a,b",
    "@",
    "-rf",
    "=",
    "^",
    "!",
    # reserved names of file systems, or of this backend
    "CON",
    "con",
    "nul.txt",
    "aux/lpt1",
    "Thumbs.db",
    "objects",
    "incoming",
    "_files",
    # of every length
    "s" * 300,
    "x" * 1024,
    "\U0001f30d" * 256,
    "/".join("a" * 254),
    "\u4e16\u754c",
    # the rest of printable ASCII
    *[c for c in string.printable if c.isprintable() and c not in "./\\aA %'\"*|:@=^!"],
]
"""Valid keys, each a different file."""
REFUSED: Final = [
    # a segment that ends with a dot: Azure drops it, S3 and GCS refuse some
    ".",
    "..",
    "../x",
    "../../../../etc/passwd",
    "a/..",
    "a/../b",
    "./a",
    "a/./b",
    "a.",
    "a./b",
    "a...",
    "a/.",
    # Azure turns it into a slash
    "a\\b",
    "\\",
    "..\\x",
    # control characters, private use and noncharacters
    "a\nb",
    "a\rb",
    "\t",
    "\x1f",
    "\x7f",
    "\x85",
    "\ue000",
    "\uffff",
    "\ufdd0",
    "\U0001fffe",
    "\U000f0000",
    *[chr(code) for code in range(1, 32)],
    # reserved by a cloud, or too deep for one
    "soap",
    ".well-known/acme-challenge/x",
    "/".join("a" * 255),
]
"""Keys that some store cannot keep unchanged, so all refuse them."""
IMPOSSIBLE: Final[dict[str, Any]] = {
    "empty": "",
    "NUL": "\x00",
    "NUL inside": "a\x00b",
    "1,025 bytes": "z" * 1025,
    "1,025 bytes in fewer characters": "a" + "\U0001f30d" * 256,
    "a megabyte": "x" * 1024 * 1024,
    "a lone surrogate": "\ud800",
    "a byte that is not UTF-8": "a\udcff",
    "None": None,
    "bytes": b"a",
    "a number": 1,
}
"""Values that are not keys."""


def _uses(storage: CloudStorage, key: Any, folder: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    # The file and the bucket are missing, so any I/O before the key is checked raises another error.
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
            raise AssertionError(
                f"{what} raised another error first for the key {ascii(key)[:40]}: {error!r}"
            ) from error
        else:
            pytest.fail(f"{what} accepted the key {ascii(key)[:40]}")
    assert not await asyncio.to_thread(lambda: list(folder.iterdir()))


class StorageKeys:
    """Keys are opaque: each is a different file, or refused."""

    @pytest.mark.parametrize("key", OPAQUE, ids=lambda key: ascii(key)[1:-1][:40])
    async def test_43_key_is_a_file_of_its_own(self, harness: CloudStorageHarness, key: str) -> None:
        """Any valid key is written, listed, read and deleted unchanged."""
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
        """All valid keys together: none overwrites or hides another."""
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
        """For a key that some store cannot keep unchanged, every method raises InvalidKey."""
        await _refused(harness.storage(harness.missing_bucket), key, tmp_path)

    @pytest.mark.parametrize("key", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    async def test_44_what_is_not_a_key_is_refused_before_any_io(
        self, harness: CloudStorageHarness, tmp_path: Path, key: Any
    ) -> None:
        """For a value that is not a key, every method raises InvalidKey before any I/O."""
        await _refused(harness.storage(harness.missing_bucket), key, tmp_path)

    async def test_44_prefix_that_no_key_can_have_is_refused(self, harness: CloudStorageHarness) -> None:
        """A prefix or delimiter that no key can contain raises InvalidKey at once, not on the first item."""
        storage = harness.storage(harness.missing_bucket)
        for bad in ("\x00", "a\nb", "\ud800", "a\\", "p" * 1025, None):
            for prefix, delimiter in ((bad, ""), ("", bad)):
                with pytest.raises(InvalidKey):
                    storage.iter_files(prefix, delimiter=delimiter)  # type: ignore[arg-type]
                with pytest.raises(InvalidKey):
                    await storage.list_files_async(prefix, delimiter=delimiter)  # type: ignore[arg-type]

    async def test_44_bucket_name_that_no_store_has_is_refused(self, harness: CloudStorageHarness) -> None:
        """An invalid name of a bucket raises InvalidKey when the storage is constructed."""
        for bad in ("", "ab", "../x", "a/b", "Upper", "a b", "a..b", "-abc", "abc-", "x" * 223, "é" * 3, None, b"abc"):
            with pytest.raises(InvalidKey):
                harness.storage(bad)  # type: ignore[arg-type]
