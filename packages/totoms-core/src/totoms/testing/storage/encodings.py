"""The storage contract, part content encodings: behaviour 57."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import pytest

from totoms.testing.contract import check_same
from totoms.testing.storage.harness import CloudStorageHarness
from totoms.testing.storage.tools import MIB, noise, read_all

_FILES: Final = {
    "small": gzip.compress(b"hello " * 100, mtime=0),
    "several chunks": gzip.compress(noise(7 * MIB), 1, mtime=0),
    "larger when decoded": gzip.compress(bytes(40 * MIB), 1, mtime=0),
    "not what it claims": b"plain text, although the header says gzip",
    "empty": b"",
}
_RANGES: Final = [(0, 10), (1, None), (-10, None), (3 * MIB - 5, 3 * MIB + 5), (5, 6), (0, 100 * MIB)]


class StorageEncodings:
    """A ``Content-Encoding`` describes the stored bytes; reading never decodes them."""

    @pytest.mark.parametrize("content", _FILES.values(), ids=_FILES)
    async def test_57_encoded_file_comes_back_as_it_is_stored(
        self, harness: CloudStorageHarness, tmp_path: Path, content: bytes
    ) -> None:
        """Every read, range, download and copy returns the stored bytes, with the stored size."""
        bucket = await harness.create_bucket()
        storage = harness.storage(bucket)
        await harness.store_encoded(bucket, "a.gz", content, "gzip")
        assert (await storage.stat_async("a.gz")).size == len(content)
        check_same(await storage.get_file_bytes_async("a.gz"), content, "whole")
        check_same(await read_all(storage, "a.gz"), content, "streamed")
        for start, end in _RANGES:
            check_same(await read_all(storage, "a.gz", start, end), content[start:end], f"{start} to {end}")
        await storage.download_file_async("a.gz", tmp_path / "down")
        check_same((tmp_path / "down").read_bytes(), content, "downloaded")
        await storage.copy_file_async("a.gz", "copy")
        assert (await storage.stat_async("copy")).size == len(content)
        check_same(await storage.get_file_bytes_async("copy"), content, "copied")
