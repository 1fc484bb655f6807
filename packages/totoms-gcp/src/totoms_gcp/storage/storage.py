"""Files on Google Cloud Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, Final, Literal, cast

from google.cloud.storage import Blob

from totoms.errors import NotFound, PreconditionFailed
from totoms.plugin import SIGNED_URLS, CloudStorage, FileInfo, WriteOptions, read_chunks
from totoms_gcp import clients
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.errors import mapped_errors
from totoms_gcp.private_api import is_missing_bucket
from totoms_gcp.storage import signing
from totoms_gcp.storage.download import Download
from totoms_gcp.storage.upload import Upload

_COPIED: Final = (
    "content_type",
    "metadata",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
    "storage_class",
    "custom_time",
)
_SMALL: Final = 1024 * 1024
"""Bytes: a file below this is sent in one request, unless it has a condition."""
_GENERATION: Final = re.compile(r"[1-9][0-9]{0,17}")
"""Microseconds since 1970, as Google writes it: a number written differently is a different etag."""


class GCSCloudStorage(CloudStorage):
    """Stores files in a bucket of Cloud Storage, which must exist.

    Files larger than 1 MiB are uploaded in parts of 16 MiB, of which one is in memory. The etag is the generation.
    """

    capabilities = frozenset({SIGNED_URLS})

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        generation = self._generation(key, options)
        first = next(read_chunks(source, _SMALL), b"")
        try:
            # A write with a condition needs a session: repeated because its answer was lost, it would find itself.
            if len(first) < _SMALL and generation is None:
                return self._write_small(key, first, options)
            with mapped_errors(*self._about(key)):
                upload = Upload(
                    self._files(), self._new_blob(key, options), self._about(key), options.content_type, generation
                )
            return upload.send(first, source)
        except PreconditionFailed as error:
            if generation is None:  # such as a policy of the organisation
                raise
            problem = "exists already" if options.if_absent else "has changed, or is gone"
            raise PreconditionFailed(f"{self._label(key)} {problem}.", resource=key) from error.__cause__
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _write_small(self, key: str, content: bytes, options: WriteOptions) -> str:
        with mapped_errors(*self._about(key)):
            blob = self._new_blob(key, options)
            blob.upload_from_string(content, options.content_type, client=blob.client, **clients.request_options())
            return str(blob.generation)

    def _generation(self, key: str, options: WriteOptions) -> int | None:
        if options.if_absent:
            return 0
        if options.if_match is None:
            return None
        if not _GENERATION.fullmatch(options.if_match):
            raise PreconditionFailed(f"{self._label(key)} does not have that etag.", resource=key)
        return int(options.if_match)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        with mapped_errors(*self._about(key)):
            files = self._files()
        try:
            return Download(files, self.bucket_name, self._about(key), start, length)
        except NotFound as error:
            raise self._missing(key, error) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        blob = self._loaded(key)
        return FileInfo(
            key,
            int(blob.size or 0),
            blob.content_type or "application/octet-stream",
            str(blob.generation),
            cast(datetime, blob.updated),
            dict(blob.metadata or {}),
        )

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with mapped_errors("the bucket", self.bucket_name):
            found = self._files().client.list_blobs(
                self.bucket_name,
                prefix=prefix or None,
                delimiter=delimiter or None,
                fields="items(name),prefixes,nextPageToken",
                **clients.request_options(),
            )
            for page in found.pages:
                yield from sorted([blob.name for blob in page] + list(page.prefixes))

    def _copy(self, source: str, destination: str) -> str:
        # A generation that was replaced is not found.
        return self._copy_unchanged(
            source, self._loaded, lambda loaded: self._copy_generation(loaded, source, destination), NotFound
        )

    def _copy_generation(self, loaded: Blob, source: str, destination: str) -> str:
        with mapped_errors(*self._about(source)):
            # Left out, the copy would have the bucket's default storage class and key
            # (https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite).
            encryption_key = str(loaded.kms_key_name or "").partition("/cryptoKeyVersions/")[0] or None
            copy = loaded.bucket.blob(destination, kms_key_name=encryption_key)
            for name in _COPIED:
                if getattr(loaded, name) is not None:
                    setattr(copy, name, getattr(loaded, name))
            token: str | None = None
            while True:
                # A loop: a large object is copied in steps where it moves between disks.
                token, _, _ = copy.rewrite(loaded, token, client=loaded.client, **clients.request_options())
                if token is None:
                    return str(copy.generation)

    def _delete(self, key: str) -> None:
        try:
            with mapped_errors(*self._about(key)):
                blob = self._blob(key)
                blob.delete(client=blob.client, **clients.request_options())
        except NotFound as error:
            if is_missing_bucket(error.__cause__):
                raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        with mapped_errors(*self._about(key)):
            content = content_type if method == "PUT" else None
            return signing.sign_url(self._files(), self._blob(key), method, expires_in, content)

    # --- helpers ---

    def _files(self) -> clients.Files:
        return clients.files(cast(GCPConfiguration, self.environment.hyperscaler_configuration).project_id)

    def _blob(self, key: str) -> Blob:
        return self._files().client.bucket(self.bucket_name).blob(key)

    def _new_blob(self, key: str, options: WriteOptions) -> Blob:
        blob = self._blob(key)
        if options.metadata:
            blob.metadata = dict(options.metadata)
        return blob

    def _loaded(self, key: str) -> Blob:
        try:
            with mapped_errors(*self._about(key)):
                blob = self._blob(key)
                blob.reload(client=blob.client, **clients.request_options())
        except NotFound as error:
            raise self._missing(key, error) from error.__cause__
        return blob

    def _missing(self, key: str, error: NotFound) -> NotFound:
        if is_missing_bucket(error.__cause__):
            self._warn_no_bucket()
        return self._no_file(key)
