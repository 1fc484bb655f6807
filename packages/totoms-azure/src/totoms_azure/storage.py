"""Files on Azure Blob Storage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import BinaryIO, Final, Literal, cast

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobProperties, BlobServiceClient

from totoms.environment import TotoEnvironment
from totoms.errors import NotFound, PreconditionFailed, Unavailable
from totoms.logging import TotoLogger
from totoms.storage import CloudStorage
from totoms.storage_driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms_azure import blob_client, blob_signing
from totoms_azure.blob_download import Download
from totoms_azure.blob_listing import by_code_points, by_utf16
from totoms_azure.blob_upload import Upload, code_of, described, read
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.errors import told_as

_ETAG: Final = re.compile(r'"[0-9A-Za-z+/=-]{1,64}"')
_PAGE: Final = 1000
_COPY_ATTEMPTS: Final = 3
_COPY_SECONDS: Final = 300.0
_COPY_LOOK_SECONDS: Final = 0.2
_NO_CONTAINER: Final = ("ContainerNotFound", "ContainerBeingDeleted")


class AzureCloudStorage(CloudStorage):
    """The files of a container of Blob Storage, which its operator made.

    What is larger than 6 MiB, or has a condition, goes up in blocks of that size, of which one is in memory.

    Raises:
        ConfigurationError: There is no address of an account, and no connection string.
    """

    capabilities = frozenset({SIGNED_URLS})

    def __init__(
        self, bucket_name: str, logger: TotoLogger | None = None, cid: str | None = None,
        *, environment: TotoEnvironment | None = None,
    ) -> None:  # fmt: skip
        super().__init__(bucket_name, logger, cid, environment=environment)
        self._settings = cast(AzureConfiguration, self.environment.hyperscaler_configuration)
        self._settings.require("Blob Storage", "storage_account_url", "storage_connection_string")

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        if options.if_match is not None and not _ETAG.fullmatch(options.if_match):
            raise PreconditionFailed(f"{self._called(key)} never had that etag.", resource=key)
        first, whole = read(source)
        try:
            with told_as(self._told, key):
                blob = self._blob(key)
            # Sent again because no answer came, one with a condition would meet itself; blocks tell whose they are.
            if not whole or options.if_absent or options.if_match is not None:
                return Upload(blob, key, self.bucket_name, options).send(first, source)
            with told_as(self._told, key):
                made = blob.upload_blob(first, length=len(first), overwrite=True, **described(options))
                return str(made["etag"])
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        try:
            with told_as(self._told, key):
                return Download(self._blob(key), key, self._told, start, length)
        except NotFound as error:
            raise self._no_file(key) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        found = self._loaded(key)
        return FileInfo(
            key, found.size, found.content_settings.content_type or "application/octet-stream", str(found.etag),
            found.last_modified, dict(found.metadata or {}),
        )  # fmt: skip

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with told_as("the bucket", self.bucket_name):
            container = self._service().get_container_client(self.bucket_name)
            if delimiter:
                found = container.walk_blobs(prefix or None, delimiter=delimiter, results_per_page=_PAGE)
                names = (name for page in found.by_page() for name in sorted((one.name for one in page), key=by_utf16))
            else:
                found_names = container.list_blob_names(name_starts_with=prefix or None, results_per_page=_PAGE)
                names = (name for name in found_names)
            yield from by_code_points(names)

    def _copy(self, source: str, destination: str) -> str:
        failure: BaseException | None = None
        for _ in range(_COPY_ATTEMPTS):
            loaded = self._loaded(source)
            try:
                return self._copy_version(loaded, source, destination)
            except PreconditionFailed as error:  # another version by now
                failure = error.__cause__
        raise Unavailable(
            f"{self._called(source)} was replaced again and again while it was copied.", resource=source
        ) from failure

    def _copy_version(self, loaded: BlobProperties, source: str, destination: str) -> str:
        try:
            with told_as(self._told, source):
                made = self._blob(destination)
                copy = made.start_copy_from_url(
                    self._blob(source).url, source_etag=loaded.etag,
                    source_match_condition=MatchConditions.IfNotModified,
                )  # fmt: skip
                status: object = copy["copy_status"]
                etag: object = copy["etag"]
                until = time.monotonic() + _COPY_SECONDS
                while status == "pending":  # within an account it is done at once, as a rule
                    if time.monotonic() > until:
                        made.abort_copy(str(copy["copy_id"]))
                        break
                    time.sleep(_COPY_LOOK_SECONDS)
                    found = made.get_blob_properties()
                    status, etag = found.copy.status, found.etag
        except NotFound as error:
            raise self._no_file(source) from error.__cause__
        if status != "success":
            raise Unavailable(f"{self._called(source)} could not be copied: {status}.", resource=source)
        return str(etag)

    def _delete(self, key: str) -> None:
        try:
            with told_as(self._told, key):
                self._blob(key).delete_blob(delete_snapshots="include")
        except NotFound as error:
            if isinstance(error.__cause__, Exception) and code_of(error.__cause__) in _NO_CONTAINER:
                raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        with told_as(self._told, key):
            return blob_signing.sign_url(self._service(), self._blob(key), method, expires_in)

    # --- helpers ---

    def _service(self) -> BlobServiceClient:
        return blob_client.service(self._settings)

    def _blob(self, key: str) -> BlobClient:
        return self._service().get_blob_client(self.bucket_name, key)

    def _loaded(self, key: str) -> BlobProperties:
        try:
            with told_as(self._told, key):
                return self._blob(key).get_blob_properties()
        except NotFound as error:
            raise self._no_file(key) from error.__cause__

    @property
    def _told(self) -> str:
        return f"the bucket {self.bucket_name!r} and its file"

    def _called(self, key: str) -> str:
        return f"{key!r} in the bucket {self.bucket_name!r}"

    def _no_bucket(self) -> NotFound:
        return NotFound(f"There is no bucket {self.bucket_name!r}.", resource=self.bucket_name)
