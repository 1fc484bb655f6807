"""Files in NATS' object stores, one for each bucket."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import BinaryIO, Final, cast

from totoms.context import new_cid
from totoms.errors import BackendError, CorruptData, NotFound, PreconditionFailed
from totoms.storage import CloudStorage
from totoms.storage_driver import FileInfo, WriteOptions
from totoms.streams import ChunkReader
from totoms_nats.background import background
from totoms_nats.bucket import Bucket
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.names import Names
from totoms_nats.objects import CHUNK, StoredObject

_UNDER_WAY: Final = 4
"""Chunks of one upload that wait for their acknowledgement."""
_DIGEST: Final = "SHA-256="
_NEVER: Final = datetime.fromtimestamp(0, UTC)


class NatsCloudStorage(CloudStorage):
    """The files of an object store, which its operator made: ``nats object add <bucket>``.

    A version of a file is a number of chunks, and becomes the present one when a document about it is put in place of
    the last; the chunks of that one stay for another five minutes, for those who read them. There are no signed URLs.
    """

    capabilities = frozenset()

    @property
    def _bucket(self) -> Bucket:
        settings = cast(NatsConfiguration, self.environment.hyperscaler_configuration)
        return Bucket(background.connection(settings), Names(settings.prefix).bucket(self.bucket_name))

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        bucket, version, digest, size = self._bucket, new_cid(), hashlib.sha256(), 0
        under_way: deque[Future[int]] = deque()
        places: list[int] = []
        number, placing = 0, False
        try:
            while chunk := _whole_chunk(source):
                digest.update(chunk)
                size += len(chunk)
                if len(under_way) == _UNDER_WAY:
                    places = _ends(places, under_way.popleft().result())
                under_way.append(background.start(bucket.keep_chunk(version, number, chunk)))
                number += 1
            for kept in under_way:
                places = _ends(places, kept.result())
            info = FileInfo(key, size, options.content_type, version, _NEVER, options.metadata)
            told = _DIGEST + base64.urlsafe_b64encode(digest.digest()).decode()
            first, last = places or (0, 0)
            placing = True
            background.run(bucket.put_in_place(StoredObject(info, number, told, (first, last)), options))
        except BaseException as error:
            if not placing or isinstance(error, PreconditionFailed):  # else it may be the present one by now
                self._clean_up(bucket, version, list(under_way))
            if isinstance(error, NotFound):
                raise self._no_bucket() from error
            raise
        return version

    def _clean_up(self, bucket: Bucket, version: str, under_way: list[Future[int]]) -> None:
        try:
            for kept in under_way:
                kept.exception()
            background.run(bucket.forget(version))
        except BackendError:  # NATS is away: a few chunks that nobody refers to stay
            self._log("Could not delete what an upload left")

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        stored = self._find(key)
        rest = max(0, stored.info.size - start)
        return _content(self._bucket, stored, start, rest if length is None else min(rest, length))

    def _stat(self, key: str) -> FileInfo:
        return self._find(key).info

    def _find(self, key: str) -> StoredObject:
        try:
            stored, _ = background.run(self._bucket.find(key))
        except NotFound as error:
            raise self._no_file(key) from error
        if stored is None:
            raise self._no_file(key)
        return stored

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        try:
            keys = background.run(self._bucket.keys())
        except NotFound as error:
            raise self._no_bucket() from error
        folded = None
        for key in sorted(key for key in keys if key.startswith(prefix)):
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                yield key
            elif key[: end + len(delimiter)] != folded:
                folded = key[: end + len(delimiter)]
                yield folded

    def _copy(self, source: str, destination: str) -> str:
        stored = self._find(source)
        chunks = ChunkReader(_content(self._bucket, stored, 0, stored.info.size))
        return self._write(
            destination, cast(BinaryIO, chunks), WriteOptions(stored.info.content_type, stored.info.metadata)
        )

    def _delete(self, key: str) -> None:
        try:
            background.run(self._bucket.delete(key))
        except NotFound as error:
            raise self._no_bucket() from error

    def _no_bucket(self) -> NotFound:
        return NotFound(f"There is no bucket {self.bucket_name!r}.", resource=self.bucket_name)


def _whole_chunk(source: BinaryIO) -> bytes:
    # Whole, whatever pieces the source comes in, so that a range can be found by counting.
    parts, missing = [], CHUNK
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _ends(places: list[int], place: int) -> list[int]:
    return [places[0] if places else place, place]


def _content(bucket: Bucket, stored: StoredObject, start: int, length: int) -> Iterator[bytes]:
    number, skipped = divmod(start, stored.chunk_size)
    whole, digest = length == stored.info.size, hashlib.sha256()
    first, last = stored.run
    place = max(first, 1)
    if first and last - first + 1 == stored.chunks:
        place, number = first + number, 0
    while length > 0:
        try:
            message = background.run(bucket.chunk_after(stored.info.etag, place))
        except NotFound as error:
            raise CorruptData(
                f"The content of {stored.info.key!r} is gone: it was replaced or deleted too long ago.",
                resource=stored.info.key,
            ) from error
        place = (message.seq or 0) + 1
        if number:
            number -= 1
            continue
        chunk = (message.data or b"")[skipped : skipped + length]
        skipped = 0
        length -= len(chunk)
        digest.update(chunk)
        if whole and not length and stored.digest:
            told = stored.digest.partition("=")[2]
            if base64.urlsafe_b64decode(told) != digest.digest():
                raise CorruptData(f"The content of {stored.info.key!r} is damaged.", resource=stored.info.key)
        yield chunk
