"""Files in NATS' object stores, one for each bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

from totoms.errors import BackendError, NotFound
from totoms.plugin import ChunkReader, CloudStorage, FileInfo, WriteOptions
from totoms_nats.clients import ThreadConnection, thread_connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.naming import Names
from totoms_nats.storage.bucket import Bucket
from totoms_nats.storage.download import content
from totoms_nats.storage.objects import StoredObject
from totoms_nats.storage.upload import Upload


class NatsCloudStorage(CloudStorage):
    """The files of an object store, which its operator made: ``nats object add <bucket>``.

    A version of a file is a number of chunks. It becomes the current one when a document about it replaces the last
    document; the chunks of the version before stay for five minutes, for those who are reading them. There are no
    signed URLs.
    """

    capabilities = frozenset()

    def _open(self) -> tuple[ThreadConnection, Bucket]:
        settings = cast(NatsConfiguration, self.environment.hyperscaler_configuration)
        client = thread_connection(settings)
        return client, Bucket(client.connection, Names(settings.prefix).bucket(self.bucket_name))

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        upload = Upload(*self._open(), key, options)
        try:
            return upload.run(source)
        except NotFound as error:
            raise self._no_bucket() from error
        finally:
            try:
                upload.clean_up()
            except BackendError:  # NATS is away: a few chunks stay that nothing refers to
                self._log("Could not delete what an upload left")

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        stored = self._find(key)
        rest = max(0, stored.info.size - start)
        return content(*self._open(), stored, start, rest if length is None else min(rest, length))

    def _stat(self, key: str) -> FileInfo:
        return self._find(key).info

    def _find(self, key: str) -> StoredObject:
        client, bucket = self._open()
        try:
            stored, _ = client.run(bucket.find(key))
        except NotFound as error:
            raise self._no_file(key) from error
        if stored is None:
            raise self._no_file(key)
        return stored

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        client, bucket = self._open()
        try:
            keys = client.run(bucket.keys())
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
        chunks = ChunkReader(content(*self._open(), stored, 0, stored.info.size))
        options = WriteOptions(stored.info.content_type, stored.info.metadata)
        return self._write(destination, cast(BinaryIO, chunks), options)

    def _delete(self, key: str) -> None:
        client, bucket = self._open()
        try:
            client.run(bucket.delete(key))
        except NotFound as error:
            raise self._no_bucket() from error
