"""Downloads from Blob Storage: each chunk is a request with its own retries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobClient

from totoms.errors import Unavailable
from totoms_azure.errors import translate

CHUNK: Final = 3 * 1024 * 1024
"""Bytes: the most that one request reads. The SDK keeps several copies of it in memory for a while."""
_RANGE_NOT_SATISFIABLE: Final = 416


class Download(Iterator[bytes]):
    """The chunks of one version of a blob.

    They are requested one by one: for a whole download the SDK joins and cuts chunks, and holds several at a time.

    Args:
        blob: The SDK's client of it.
        about: How errors name it: arguments of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        HttpResponseError: There is no such blob, or it cannot be read.
    """

    def __init__(self, blob: BlobClient, about: tuple[str, str], start: int, length: int | None) -> None:
        self._blob, self._about = blob, about
        self._position, self._end = start, None if length is None else start + length
        self._version: dict[str, Any] = {}
        self._chunk = b""
        try:
            self._chunk = self._next()
        except HttpResponseError as error:
            if error.status_code != _RANGE_NOT_SATISFIABLE:
                raise
            self._end = start

    def __next__(self) -> bytes:
        chunk, self._chunk = self._chunk, b""
        if not chunk and (self._end is None or self._position < self._end):
            try:
                chunk = self._next()
            except (ResourceModifiedError, ResourceNotFoundError) as error:
                what, key = self._about
                raise Unavailable(f"The file was replaced while it was read: {what} {key!r}.", resource=key) from error
            except Exception as error:
                raise translate(error, *self._about) from error
        if not chunk:
            raise StopIteration
        return chunk

    def _next(self) -> bytes:
        most = CHUNK if self._end is None else min(CHUNK, self._end - self._position)
        # By default the SDK's HTTP layer decodes a Content-Encoding, but positions and sizes count the stored bytes.
        found = self._blob.download_blob(self._position, most, max_concurrency=1, decompress=False, **self._version)
        if not self._version:
            self._version = {"etag": found.properties.etag, "match_condition": MatchConditions.IfNotModified}
            size = int(str(found.properties.content_range).rpartition("/")[2])  # "bytes 0-9/2000"
            self._end = size if self._end is None else min(self._end, size)
        chunk: bytes = next(iter(found.chunks()), b"")
        self._position += len(chunk)
        return chunk
