"""The storage contract, part signed URLs: behaviour 42."""

from __future__ import annotations

from typing import Any, Final

import httpx
import pytest

from totoms.errors import InvalidArgument, Unsupported
from totoms.storage.storage import SIGNED_URLS, CloudStorage
from totoms.testing.contract import Contract, check_same
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import MIB, noise

_TEXT: Final = {"content-type": "text/plain"}
_SOON: Final = 1
_MARGIN: Final = 2.5
"""Seconds after the expiry: stores count whole seconds."""


def _worked(answer: httpx.Response) -> bool:
    return 200 <= answer.status_code < 300


def _refused(answer: httpx.Response) -> bool:
    return 400 <= answer.status_code < 500


class StorageURLs(Contract):
    """Signed URLs work, or signing raises `Unsupported`."""

    async def _storage(self, harness: CloudStorageHarness) -> CloudStorage | None:
        """Return a storage. Without signed URLs assert that signing raises `Unsupported`, and return None."""
        storage = harness.storage(await harness.create_bucket())
        declared = SIGNED_URLS in self.capabilities
        assert (SIGNED_URLS in storage.capabilities) == declared, (
            "the test class and the storage declare different capabilities"
        )
        if declared:
            return storage
        for method in ("GET", "PUT"):
            with pytest.raises(Unsupported):
                await storage.signed_url_async("key", method)
            with pytest.raises(Unsupported):
                storage.signed_url("key", method)
        return None

    async def test_42_signed_url_to_download(self, harness: CloudStorageHarness) -> None:
        """A client without credentials downloads any file and its content type by a URL for GET."""
        storage = await self._storage(harness)
        if storage is None:
            return
        for key, content in {"a b/ü?#&%2e+=.txt": b"content", "empty.txt": b"", "large.txt": noise(5 * MIB)}.items():
            await storage.upload_bytes_async(content, key)
            answer = await harness.fetch("GET", await storage.signed_url_async(key))
            assert answer.status_code == 200
            check_same(answer.content, content, key)
            assert answer.headers["content-type"] == "text/plain"

    async def test_42_signed_url_to_upload(self, harness: CloudStorageHarness) -> None:
        """A client without credentials uploads a file with the signed content type by a URL for PUT."""
        storage = await self._storage(harness)
        if storage is None:
            return
        for key, content in {"a b/ü?#&%2e+=": b"content", "empty": b"", "large": noise(5 * MIB)}.items():
            await storage.upload_bytes_async(b"old", key, metadata={"old": "1"})
            url = await storage.signed_url_async(key, "PUT", content_type="text/x-mine")
            answer = await harness.fetch("PUT", url, content, {"content-type": "text/x-mine"})
            assert _worked(answer), answer.status_code
            info = await storage.stat_async(key)
            assert (info.content_type, info.size, dict(info.metadata)) == ("text/x-mine", len(content), {})
            check_same(await storage.get_file_bytes_async(key), content, key)

    async def test_42_signed_url_expires(self, harness: CloudStorageHarness) -> None:
        """An expired URL is refused, while one with a longer lifetime still works."""
        storage = await self._storage(harness)
        if storage is None:
            return
        await storage.upload_bytes_async(b"content", "key.txt")
        short = [await storage.signed_url_async("key.txt", method, _SOON) for method in ("GET", "PUT")]
        long = await storage.signed_url_async("key.txt", "GET", 600)
        await harness.advance(_SOON + _MARGIN)
        late = await harness.fetch("GET", short[0]), await harness.fetch("PUT", short[1], b"late", _TEXT)
        assert all(map(_refused, late))
        assert b"content" not in late[0].content
        assert (await harness.fetch("GET", long)).content == b"content"

    async def test_42_signed_url_is_for_one_method(self, harness: CloudStorageHarness) -> None:
        """A URL for GET does not write or delete, and one for PUT does not read or delete."""
        storage = await self._storage(harness)
        if storage is None:
            return
        await storage.upload_bytes_async(b"private", "key.txt")
        download, upload = [await storage.signed_url_async("key.txt", method) for method in ("GET", "PUT")]
        assert _refused(await harness.fetch("PUT", download, b"new", _TEXT))
        answer = await harness.fetch("GET", upload)
        assert _refused(answer)
        assert b"private" not in answer.content
        for url in (download, upload):
            assert _refused(await harness.fetch("DELETE", url))
        assert await storage.get_file_bytes_async("key.txt") == b"private"

    async def test_42_signed_url_is_for_one_key(self, harness: CloudStorageHarness) -> None:
        """A URL that was changed to name another file, or has no signature, is refused."""
        storage = await self._storage(harness)
        if storage is None:
            return
        for key in ("file-one.txt", "file-two.txt"):
            await storage.upload_bytes_async(key.upper().encode(), key)  # a refusal may name the key
        download, upload = [await storage.signed_url_async("file-one.txt", method) for method in ("GET", "PUT")]
        for url in (download, upload):
            assert "file-one.txt" in url
        other = await harness.fetch("GET", download.replace("file-one.txt", "file-two.txt"))
        assert _refused(other)
        assert b"FILE-TWO" not in other.content
        assert _refused(await harness.fetch("PUT", upload.replace("file-one.txt", "file-two.txt"), b"new", _TEXT))
        assert _refused(await harness.fetch("PUT", upload.replace("file-one.txt", "file-new.txt"), b"new", _TEXT))
        unsigned = download.partition("?")[0]
        assert _refused(await harness.fetch("GET", unsigned))
        assert await storage.get_file_content_async("file-one.txt") == "FILE-ONE.TXT"
        assert await storage.get_file_content_async("file-two.txt") == "FILE-TWO.TXT"
        assert not await storage.exists_async("file-new.txt")

    async def test_42_signed_url_is_for_one_content_type(self, harness: CloudStorageHarness) -> None:
        """An upload with another content type than the signed one, or without one, is refused."""
        storage = await self._storage(harness)
        if storage is None:
            return
        await storage.upload_bytes_async(b"old", "key.txt")
        url = await storage.signed_url_async("key.txt", "PUT")
        for headers in ({"content-type": "text/html"}, {}):
            assert _refused(await harness.fetch("PUT", url, b"<script>", headers))
        assert await storage.get_file_bytes_async("key.txt") == b"old"
        assert _worked(await harness.fetch("PUT", url, b"new", _TEXT))

    async def test_42_what_cannot_be_signed_is_refused(self, harness: CloudStorageHarness) -> None:
        """Other methods, and lifetimes that some store cannot sign, raise InvalidArgument."""
        storage = await self._storage(harness)
        if storage is None:
            return
        wrong: list[tuple[Any, Any]] = [("DELETE", 60), ("get", 60), ("GET", 0), ("GET", -1), ("GET", 7 * 86400 + 1)]
        for method, seconds in wrong:
            with pytest.raises(InvalidArgument):
                await storage.signed_url_async("key", method, seconds)
        assert (await storage.signed_url_async("key", "GET", 7 * 86400)).startswith("http")
