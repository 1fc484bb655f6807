"""What a backend fills in to store files: a few small operations, and what they are given.

The public methods stand on them, in :mod:`totoms.storage_sync` and :mod:`totoms.storage`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Literal

from totoms.environment import TotoEnvironment, current_environment
from totoms.errors import NotFound
from totoms.keys import check_bucket_name
from totoms.logging import TotoLogger
from totoms.operations import backend_operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SIGNED_URLS: Final = "signed_urls"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a storage knows about a file.

    Attributes:
        key: Its name.
        size: Bytes.
        content_type: Its media type.
        etag: Changes with every write, whatever was written; opaque.
        updated: When it was written, in UTC.
        metadata: What the writer attached.
    """

    key: str
    size: int
    content_type: str
    etag: str
    updated: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a file is to be written, checked by the base class.

    Attributes:
        content_type: Its media type.
        metadata: What to attach.
        if_absent: Write only if there is no such file.
        if_match: Write only if the file's etag is this.
    """

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    if_absent: bool = False
    if_match: str | None = None


class StorageDriver(ABC):  # noqa: B024 - it has them: see backend_operation
    """The files of one bucket, as a backend stores them. All operations raise `BackendError` only.

    Keys, prefixes and options were checked before. See :class:`totoms.storage.CloudStorage` for the arguments.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """What the backend can do beyond the required: `SIGNED_URLS`. Using another raises `Unsupported`."""

    def __init__(
        self, bucket_name: str, logger: TotoLogger | None = None, cid: str | None = None,
        *, environment: TotoEnvironment | None = None,
    ) -> None:  # fmt: skip
        self.bucket_name = check_bucket_name(bucket_name)
        self.logger = logger or TotoLogger.get_instance()
        self.cid = cid
        self.environment = environment or current_environment()

    # --- the operations ---

    @backend_operation
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        """Read `source` to its end and make that the file, all or nothing; return the etag.

        An error raised by `source` is passed on as it is, and leaves what was there. `source` may not be seekable.
        PreconditionFailed when `options.if_absent` or `options.if_match` does not hold, decided when it is put in
        place: of several writers with one precondition a single one wins.
        """
        raise NotImplementedError

    @backend_operation
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        """Open the file and return its chunks from the byte `start`, at most `length` (not 0), or to the end.

        `NotFound` (made by `_no_file`) is raised before anything is returned. All chunks are of one version. A start
        beyond the end gives no chunks. An iterator with a method ``close`` has it called.
        """
        raise NotImplementedError

    @backend_operation
    def _stat(self, key: str) -> FileInfo:
        """Return what is known about the file; `_no_file` when there is none."""
        raise NotImplementedError

    @backend_operation
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        """Give the keys, or with a delimiter their common beginnings, in order, page by page. Lazy."""
        raise NotImplementedError

    @backend_operation
    def _copy(self, source: str, destination: str) -> str:
        """Copy with media type and metadata, all or nothing, and return the etag; `_no_file` for a missing source."""
        raise NotImplementedError

    @backend_operation
    def _delete(self, key: str) -> None:
        """Delete the file, if there is one."""
        raise NotImplementedError

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        """Sign. Only called when the capability is declared."""
        raise NotImplementedError

    @classmethod
    async def _answer_signed(cls, request: Request, environment: TotoEnvironment) -> Response:
        """Answer a request that came to the settings' `signed_urls_path`; `Forbidden` if no URL of ours allows it.

        Only for a backend whose files have no server of their own. It verifies before it does anything else.

        Args:
            request: The request; its body is bounded.
            environment: Where the service runs.
        """
        raise NotImplementedError

    # --- helpers ---

    def _no_file(self, key: str) -> NotFound:
        """The error for a file that does not exist, whether or not its bucket does."""
        return NotFound(f"No file {key!r} in the bucket {self.bucket_name!r}.", resource=key)

    def _log(self, what: str) -> None:
        self.logger.log(self.cid, f"{what} in the bucket {self.bucket_name!r}.", "DEBUG")
