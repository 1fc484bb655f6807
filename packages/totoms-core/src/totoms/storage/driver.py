"""The storage operations that a backend implements, and their arguments and results.

The public methods in :mod:`totoms.storage.blocking` and :mod:`totoms.storage.storage` call them.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Literal, TypeVar

from totoms.environment import TotoEnvironment, current_environment
from totoms.errors import BackendError, NotFound, Unavailable
from totoms.logging.logger import TotoLogger
from totoms.names import check_bucket_name
from totoms.operations import backend_operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SIGNED_URLS: Final = "signed_urls"
_COPY_ATTEMPTS: Final = 3
_Version = TypeVar("_Version")
_missing_buckets: Final[set[tuple[str, str]]] = set()
"""The hyperscalers and names of buckets whose absence was logged."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """The properties of a file.

    Attributes:
        key: Its name.
        size: Its size in bytes.
        content_type: Its media type.
        etag: An opaque string that changes with every write.
        updated: When it was written, in UTC.
        metadata: The metadata that the writer attached.
    """

    key: str
    size: int
    content_type: str
    etag: str
    updated: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a write, checked by the base class.

    Attributes:
        content_type: The media type.
        metadata: The metadata to attach.
        if_absent: Write only if the file does not exist.
        if_match: Write only if the file has this etag.
    """

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    if_absent: bool = False
    if_match: str | None = None


class StorageDriver(ABC):  # noqa: B024 - its abstract methods are marked by backend_operation
    """A backend's operations on the files of one bucket. They raise `BackendError` only.

    Keys, prefixes and options are checked already. See :class:`totoms.storage.storage.CloudStorage` for the arguments.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """The optional capabilities of the backend: `SIGNED_URLS`. Using one it does not have raises `Unsupported`."""

    def __init__(
        self,
        bucket_name: str,
        logger: TotoLogger | None = None,
        cid: str | None = None,
        *,
        environment: TotoEnvironment | None = None,
    ) -> None:
        self.bucket_name = check_bucket_name(bucket_name)
        self.logger = logger or TotoLogger.get_instance()
        self.cid = cid
        self.environment = environment or current_environment()

    # --- the operations ---

    @backend_operation
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        """Write the content of `source` to the file, all or nothing; return the etag.

        If `source` raises, pass the error on and leave the file unchanged. `source` may not be seekable. Raise
        PreconditionFailed if `options.if_absent` or `options.if_match` does not hold; check that atomically with the
        write, so that only one of several writers succeeds.
        """
        raise NotImplementedError

    @backend_operation
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        """Return an iterator over the file's chunks: `length` bytes (not 0) from `start`, or up to the end.

        Raise `NotFound` (see `_no_file`) at once, not at the first chunk. All chunks are of the same version. A start
        beyond the end yields no chunks. If the iterator has a method ``close``, the caller calls it.
        """
        raise NotImplementedError

    @backend_operation
    def _stat(self, key: str) -> FileInfo:
        """Return the properties of a file. Raise `_no_file` if it does not exist."""
        raise NotImplementedError

    @backend_operation
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        """Yield the keys, or with a delimiter their common prefixes, in order, fetching page by page."""
        raise NotImplementedError

    @backend_operation
    def _copy(self, source: str, destination: str) -> str:
        """Copy a file with its media type and metadata, all or nothing; return the etag. Raise `_no_file`."""
        raise NotImplementedError

    @backend_operation
    def _delete(self, key: str) -> None:
        """Delete the file if it exists."""
        raise NotImplementedError

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        """Return a signed URL. Implemented with the capability `SIGNED_URLS`."""
        raise NotImplementedError

    @classmethod
    async def _answer_signed(cls, request: Request, environment: TotoEnvironment) -> Response:
        """Answer a request to a signed URL under the settings' `signed_urls_path`.

        Only for a backend without a file server of its own. Verify the URL first; raise `Forbidden` if it is invalid.

        Args:
            request: The request; its body is limited in size.
            environment: Where the service runs.
        """
        raise NotImplementedError

    # --- helpers ---

    def _about(self, key: str) -> tuple[str, str]:
        """Return how errors name a file: the kind of thing, for a person, and its name."""
        return f"the bucket {self.bucket_name!r} and its file", key

    def _label(self, key: str) -> str:
        """Return a file's name and bucket, for the text of an error."""
        return f"{key!r} in the bucket {self.bucket_name!r}"

    def _no_bucket(self) -> NotFound:
        """Return the error for a write to a bucket that does not exist."""
        return NotFound(f"There is no bucket {self.bucket_name!r}.", resource=self.bucket_name)

    def _copy_unchanged(
        self,
        source: str,
        find: Callable[[str], _Version],
        copy: Callable[[_Version], str],
        replaced: type[BackendError],
    ) -> str:
        """Copy one version of a file: try again, a few times, when it is replaced meanwhile; return the etag.

        Args:
            source: The file.
            find: Returns the current version of `source`.
            copy: Copies that version, and returns the etag of the copy.
            replaced: What `copy` raises if that version no longer exists.

        Raises:
            Unavailable: The file was replaced during each attempt.
        """
        failure: BaseException | None = None
        for _ in range(_COPY_ATTEMPTS):
            version = find(source)
            try:
                return copy(version)
            except replaced as error:
                failure = error.__cause__
        raise Unavailable(
            f"{self._label(source)} was replaced again and again while it was copied.", resource=source
        ) from failure

    def _no_file(self, key: str) -> NotFound:
        """Return the error for a file that does not exist, or whose bucket does not exist."""
        return NotFound(f"No file {key!r} in the bucket {self.bucket_name!r}.", resource=key)

    def _warn_no_bucket(self) -> None:
        """Log once for each bucket that it does not exist, because callers only see that files are missing."""
        bucket = self.environment.hyperscaler, self.bucket_name
        if bucket not in _missing_buckets:
            _missing_buckets.add(bucket)
            self.logger.log(
                self.cid, f"There is no bucket {self.bucket_name!r}, so all its files are missing.", "WARNING"
            )

    def _log(self, what: str) -> None:
        self.logger.log(self.cid, f"{what} in the bucket {self.bucket_name!r}.", "DEBUG")
