"""Files in Azure Blob Storage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, Final, Literal, cast

import requests
from azure.core import MatchConditions
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobProperties, BlobServiceClient, StandardBlobTier
from requests.adapters import HTTPAdapter

from totoms.errors import NotFound, PreconditionFailed, Unavailable
from totoms.plugin import SIGNED_URLS, CloudStorage, FileInfo, TotoEnvironment, TotoLogger, WriteOptions, read_chunks
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.errors import mapped_errors
from totoms_azure.storage.download import CHUNK, Download
from totoms_azure.storage.signing import sign_url
from totoms_azure.storage.upload import BLOCK, Upload, error_code, properties

_ETAG: Final = re.compile(r'"[0-9A-Za-z+/=-]{1,64}"')
_TIERS: Final = ("Hot", "Cool", "Cold")
"""Tiers that can be read at once, and so be copied."""
_PAGE: Final = 1000
_COPY_SECONDS: Final = 300.0
_COPY_POLL_SECONDS: Final = 0.2
_NO_CONTAINER: Final = ("ContainerNotFound", "ContainerBeingDeleted")
_FIRST_ASTRAL: Final = "\U00010000"
_AFTER_SURROGATES: Final = "\ue000"
_MOST_HELD: Final = 10_000
"""Keys that are held back at most; more that share a beginning keep the order in which they came."""

_CONNECTION: Final[dict[str, Any]] = {
    "connection_timeout": 5,
    "read_timeout": 30,
    "connection_data_block_size": 256 * 1024,
}
"""By default the SDK reads 4 KiB at a time."""
_CONNECTIONS: Final = 50
# This SDK has its own retry with other arguments. By default it waits for 15 seconds and more each time.
_OPTIONS: Final[dict[str, Any]] = {
    "retry_total": 3,
    "initial_backoff": 0,
    "increment_base": 1.5,
    "random_jitter_range": 0.5,
    "max_single_get_size": CHUNK,
    "max_chunk_get_size": CHUNK,
    "max_single_put_size": BLOCK,
}


class AzureCloudStorage(CloudStorage):
    """Stores files in a container of Blob Storage, which must exist.

    Files over 6 MiB, or with a condition, are sent in blocks of that size, of which one is in memory.

    Raises:
        ConfigurationError: Neither an account's address nor a connection string is configured.
    """

    capabilities = frozenset({SIGNED_URLS})

    def __init__(
        self,
        bucket_name: str,
        logger: TotoLogger | None = None,
        cid: str | None = None,
        *,
        environment: TotoEnvironment | None = None,
    ) -> None:
        super().__init__(bucket_name, logger, cid, environment=environment)
        self._settings = cast(AzureConfiguration, self.environment.hyperscaler_configuration)
        self._settings.require("Blob Storage", "storage_account_url", "storage_connection_string")

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        if options.if_match is not None and not _ETAG.fullmatch(options.if_match):
            raise PreconditionFailed(f"{self._label(key)} does not have that etag.", resource=key)
        blocks = read_chunks(source, BLOCK)
        first = next(blocks, b"")
        try:
            with mapped_errors(*self._about(key)):
                blob = self._blob(key)
            # A request with a condition that is repeated because its answer was lost would fail by its own success.
            # Blocks show whose they are.
            if len(first) == BLOCK or options.if_absent or options.if_match is not None:
                upload = Upload(blob, self._about(key), self._label(key), options)
                return upload.send(chain([first] if first else [], blocks))
            with mapped_errors(*self._about(key)):
                made = blob.upload_blob(first, length=len(first), overwrite=True, **properties(options))
                return str(made["etag"])
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        try:
            with mapped_errors(*self._about(key)):
                return Download(self._blob(key), self._about(key), start, length)
        except NotFound as error:
            raise self._missing(key, error) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        found = self._properties(key)
        content_type = found.content_settings.content_type or "application/octet-stream"
        return FileInfo(key, found.size, content_type, str(found.etag), found.last_modified, dict(found.metadata or {}))

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with mapped_errors("the bucket", self.bucket_name):
            container = self._service().get_container_client(self.bucket_name)
            names: Iterable[str]
            if delimiter:
                found = container.walk_blobs(prefix or None, delimiter=delimiter, results_per_page=_PAGE)
                names = (name for page in found.by_page() for name in sorted((one.name for one in page), key=_by_utf16))
            else:
                names = container.list_blob_names(name_starts_with=prefix or None, results_per_page=_PAGE)
            yield from _by_code_points(names)

    def _copy(self, source: str, destination: str) -> str:
        return self._copy_unchanged(
            source,
            self._properties,
            lambda found: self._copy_version(found, source, destination),
            PreconditionFailed,
        )

    def _copy_version(self, found: BlobProperties, source: str, destination: str) -> str:
        try:
            with mapped_errors(*self._about(source)):
                made = self._blob(destination)
                copy = made.start_copy_from_url(
                    self._blob(source).url,
                    source_etag=found.etag,
                    source_match_condition=MatchConditions.IfNotModified,
                    **self._tier_and_tags(found, source),
                )
                status: object = copy["copy_status"]
                etag: object = copy["etag"]
                until = time.monotonic() + _COPY_SECONDS
                while status == "pending":  # within an account it is usually done at once
                    if time.monotonic() > until:
                        made.abort_copy(str(copy["copy_id"]))
                        break
                    time.sleep(_COPY_POLL_SECONDS)
                    now = made.get_blob_properties()
                    status, etag = now.copy.status, now.etag
        except NotFound as error:
            raise self._no_file(source) from error.__cause__
        if status != "success":
            raise Unavailable(f"{self._label(source)} could not be copied: {status}.", resource=source)
        return str(etag)

    def _tier_and_tags(self, found: BlobProperties, source: str) -> dict[str, Any]:
        """Return what Azure does not copy by itself: a tier that was set, and tags.

        https://learn.microsoft.com/rest/api/storageservices/copy-blob#remarks
        """
        arguments: dict[str, Any] = {}
        if found.blob_tier and not found.blob_tier_inferred and found.blob_tier in _TIERS:
            arguments["standard_blob_tier"] = StandardBlobTier(str(found.blob_tier))
        if found.tag_count:
            arguments["tags"] = self._blob(source).get_blob_tags()
        return arguments

    def _delete(self, key: str) -> None:
        try:
            with mapped_errors(*self._about(key)):
                self._blob(key).delete_blob(delete_snapshots="include")
        except NotFound as error:
            if isinstance(error.__cause__, Exception) and error_code(error.__cause__) in _NO_CONTAINER:
                raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        with mapped_errors(*self._about(key)):
            return sign_url(self._service(), self._blob(key), method, expires_in)

    # --- helpers ---

    def _service(self) -> BlobServiceClient:
        connection = self._settings.storage_connection_string.get_secret_value()
        url = self._settings.storage_account_url

        def make() -> BlobServiceClient:
            options = {**_OPTIONS, "transport": _transport()}
            if connection:
                return BlobServiceClient.from_connection_string(connection, **options)
            return BlobServiceClient(url, clients.credential(), **options)

        return clients.CLIENTS.get(("blob storage", url, connection), make)

    def _blob(self, key: str) -> BlobClient:
        return self._service().get_blob_client(self.bucket_name, key)

    def _properties(self, key: str) -> BlobProperties:
        try:
            with mapped_errors(*self._about(key)):
                return self._blob(key).get_blob_properties()
        except NotFound as error:
            raise self._missing(key, error) from error.__cause__

    def _missing(self, key: str, error: NotFound) -> NotFound:
        if isinstance(error.__cause__, Exception) and error_code(error.__cause__) in _NO_CONTAINER:
            self._warn_no_bucket()
        return self._no_file(key)


def _transport() -> RequestsTransport:
    session = requests.Session()
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS, max_retries=0)  # the SDK retries
    session.mount("https://", pool)
    session.mount("http://", pool)
    # With a transport of one's own the SDK's time-outs are five minutes, unless given here, too.
    return RequestsTransport(session=session, session_owner=True, **_CONNECTION)


def _by_utf16(key: str) -> bytes:
    """Return the sort key of Blob Storage."""
    return key.encode("utf-16-be", "surrogatepass")


def _by_code_points(keys: Iterable[str]) -> Iterator[str]:
    """Yield keys that arrive in UTF-16 order in the order of code points, holding back as few as possible.

    The two orders differ where one key has a character beyond U+FFFF and another one from U+E000 on.
    """
    runs: list[tuple[str, list[str]]] = []  # the beginning that keys share, and the keys; inner runs come last
    for key in keys:
        while runs and not _belongs(key, runs[-1][0]):
            yield from sorted(runs.pop()[1])
        place = next((index for index, character in enumerate(key) if character >= _FIRST_ASTRAL), -1)
        if runs and place == len(runs[-1][0]):
            runs[-1][1].append(key)
            if len(runs[-1][1]) > _MOST_HELD:
                yield from sorted(runs.pop()[1])
        elif place >= 0:
            runs.append((key[:place], [key]))
        else:
            yield key
    while runs:
        yield from sorted(runs.pop()[1])


def _belongs(key: str, beginning: str) -> bool:
    return key.startswith(beginning) and key[len(beginning) : len(beginning) + 1] >= _AFTER_SURROGATES
