"""Files on Google Cloud Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, Final, Literal, cast

from google.cloud.storage import Blob

from totoms.errors import NotFound, PreconditionFailed, Unavailable
from totoms.storage import CloudStorage
from totoms.storage_driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms_gcp import clients, gcs_calls, gcs_signing
from totoms_gcp.clients import Files
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.errors import told_as
from totoms_gcp.gcs_download import Download
from totoms_gcp.gcs_upload import Upload, read_small

_COPIED_WITH: Final = (
    "content_type", "metadata", "cache_control", "content_disposition", "content_encoding", "content_language",
)  # fmt: skip
_COPY_ATTEMPTS: Final = 3
_GENERATION: Final = re.compile(r"[1-9][0-9]{0,17}")
"""Microseconds since 1970, as it was given out: two that are written differently are different etags."""
_NO_BUCKET: Final = "The specified bucket does not exist."
"""All that tells its 404 from that of a missing object."""


class GCSCloudStorage(CloudStorage):
    """The files of a bucket of Cloud Storage, which its operator made.

    What is larger than 1 MiB goes up in parts of 16 MiB, of which one is in memory. The etag is the generation.
    """

    capabilities = frozenset({SIGNED_URLS})

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        generation = self._wanted(key, options)
        first, whole = read_small(source)
        try:
            # Sent again because no answer came, a small one that has a condition would meet itself.
            if whole and generation is None:
                return self._write_small(key, first, options)
            with told_as(self._told, key):
                files = self._files()
            blob = self._described(files, key, options)
            return Upload(files, blob, self._told, options.content_type, generation).send(first, source)
        except PreconditionFailed as error:
            if generation is None:  # as of a policy of the organisation
                raise
            how = "exists already" if options.if_absent else "has changed, or is gone"
            raise PreconditionFailed(f"{self._called(key)} {how}.", resource=key) from error.__cause__
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _write_small(self, key: str, content: bytes, options: WriteOptions) -> str:
        with told_as(self._told, key):
            files = self._files()
            blob = self._described(files, key, options)
            blob.upload_from_string(content, options.content_type, client=files.client, **gcs_calls.how())
            return str(blob.generation)

    def _wanted(self, key: str, options: WriteOptions) -> int | None:
        if options.if_absent:
            return 0
        if options.if_match is None:
            return None
        if not _GENERATION.fullmatch(options.if_match):
            raise PreconditionFailed(f"{self._called(key)} never had that etag.", resource=key)
        return int(options.if_match)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        with told_as(self._told, key):
            files = self._files()
        try:
            return Download(files, self.bucket_name, key, self._told, start, length)
        except NotFound as error:
            raise self._no_file(key) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        blob = self._loaded(key)
        return FileInfo(
            key, int(blob.size or 0), blob.content_type or "application/octet-stream", str(blob.generation),
            cast(datetime, blob.updated), dict(blob.metadata or {}),
        )  # fmt: skip

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with told_as("the bucket", self.bucket_name):
            found = self._files().client.list_blobs(
                self.bucket_name, prefix=prefix or None, delimiter=delimiter or None,
                fields="items(name),prefixes,nextPageToken", **gcs_calls.how(),
            )  # fmt: skip
            for page in found.pages:
                yield from sorted([blob.name for blob in page] + list(page.prefixes))

    def _copy(self, source: str, destination: str) -> str:
        failure: BaseException | None = None
        for _ in range(_COPY_ATTEMPTS):
            loaded = self._loaded(source)
            try:
                return self._copy_generation(loaded, source, destination)
            except NotFound as error:  # another generation by now
                failure = error.__cause__
        raise Unavailable(
            f"{self._called(source)} was replaced again and again while it was copied.", resource=source
        ) from failure

    def _copy_generation(self, loaded: Blob, source: str, destination: str) -> str:
        with told_as(self._told, source):
            files = self._files()
            made = files.client.bucket(self.bucket_name).blob(destination)
            for name in _COPIED_WITH:
                if getattr(loaded, name) is not None:
                    setattr(made, name, getattr(loaded, name))
            token: str | None = None
            while True:
                # A loop: a large object is copied in steps where it moves between disks.
                token, _, _ = made.rewrite(loaded, token, client=files.client, **gcs_calls.how())  # of that generation
                if token is None:
                    return str(made.generation)

    def _delete(self, key: str) -> None:
        try:
            with told_as(self._told, key):
                files = self._files()
                files.client.bucket(self.bucket_name).blob(key).delete(client=files.client, **gcs_calls.how())
        except NotFound as error:
            if str(error.__cause__).endswith(_NO_BUCKET):
                raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        with told_as(self._told, key):
            files = self._files()
            blob = files.client.bucket(self.bucket_name).blob(key)
            return gcs_signing.sign_url(files, blob, method, expires_in, content_type if method == "PUT" else None)

    # --- helpers ---

    def _files(self) -> Files:
        return clients.files(cast(GCPConfiguration, self.environment.hyperscaler_configuration).project_id)

    def _described(self, files: Files, key: str, options: WriteOptions) -> Blob:
        blob = files.client.bucket(self.bucket_name).blob(key)
        if options.metadata:
            blob.metadata = dict(options.metadata)
        return blob

    def _loaded(self, key: str) -> Blob:
        try:
            with told_as(self._told, key):
                files = self._files()
                blob = files.client.bucket(self.bucket_name).blob(key)
                blob.reload(client=files.client, **gcs_calls.how())
        except NotFound as error:
            raise self._no_file(key) from error.__cause__
        return blob

    @property
    def _told(self) -> str:
        return f"the bucket {self.bucket_name!r} and its file"

    def _called(self, key: str) -> str:
        return f"{key!r} in the bucket {self.bucket_name!r}"

    def _no_bucket(self) -> NotFound:
        return NotFound(f"There is no bucket {self.bucket_name!r}.", resource=self.bucket_name)
