"""Upload a file: first its chunks under a new version, then the document that makes the version visible."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import BinaryIO, Final

from totoms.errors import PreconditionFailed
from totoms.plugin import FileInfo, WriteOptions, new_cid, read_chunks
from totoms_nats.clients import ThreadConnection
from totoms_nats.storage.bucket import Bucket
from totoms_nats.storage.objects import CHUNK, StoredObject

_IN_FLIGHT: Final = 4
"""Chunks of one upload that wait for their acknowledgement."""
_DIGEST: Final = "SHA-256="


class Upload:
    """One upload. Call `clean_up` after `run`, also when that failed.

    Args:
        client: Runs what the bucket does.
        bucket: The bucket.
        key: The name of the file.
        options: How to write it.
    """

    def __init__(self, client: ThreadConnection, bucket: Bucket, key: str, options: WriteOptions) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._options = options
        self._version = new_cid()
        self._in_flight: deque[Future[int]] = deque()
        self._ends: tuple[int, int] = (0, 0)
        self._unused = True

    def run(self, source: BinaryIO) -> str:
        """Read `source` to its end and make that the file; return the version."""
        digest, size, number = hashlib.sha256(), 0, 0
        for chunk in read_chunks(source, CHUNK):  # all of one size, so that a range is found by counting
            digest.update(chunk)
            size += len(chunk)
            if len(self._in_flight) == _IN_FLIGHT:
                self._wait_for_one()
            self._in_flight.append(self._client.start(self._bucket.keep_chunk(self._version, number, chunk)))
            number += 1
        while self._in_flight:
            self._wait_for_one()
        never = datetime.fromtimestamp(0, UTC)  # NATS notes the time
        info = FileInfo(self._key, size, self._options.content_type, self._version, never, self._options.metadata)
        encoded = _DIGEST + base64.urlsafe_b64encode(digest.digest()).decode()
        stored = StoredObject(info, number, encoded, self._ends)
        try:
            self._unused = False  # whatever fails now, it may be the current version
            self._client.run(self._bucket.put_in_place(stored, self._options))
        except PreconditionFailed:
            self._unused = True
            raise
        return self._version

    def clean_up(self) -> None:
        """Delete the chunks of a version that did not become the current one."""
        if self._unused:
            for kept in self._in_flight:
                kept.exception()
            self._client.run(self._bucket.delete_version(self._version))

    def _wait_for_one(self) -> None:
        place = self._in_flight.popleft().result()
        self._ends = (self._ends[0] or place, place)
