"""Files: what services use. Bodies follow."""

from __future__ import annotations

from abc import ABC
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from typing import BinaryIO, ClassVar, Final, Literal

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.logging import TotoLogger
from totoms.operations import backend_operation

SIGNED_URLS: Final = "signed_urls"


@dataclass(frozen=True, slots=True)
class FileInfo:
    key: str
    size: int
    content_type: str
    etag: str
    updated: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    if_absent: bool = False
    if_match: str | None = None


class CloudStorage(ABC):
    """The files in one bucket. ``CloudStorage("bucket")`` gives the current environment's implementation."""

    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __new__(
        cls, bucket_name: str, logger: TotoLogger | None = None, cid: str | None = None,
        *, environment: TotoEnvironment | None = None,
    ) -> CloudStorage:  # fmt: skip
        if cls is CloudStorage:
            cls = implementation(CloudStorage, environment or current_environment())
        return super().__new__(cls)

    def __init__(
        self, bucket_name: str, logger: TotoLogger | None = None, cid: str | None = None,
        *, environment: TotoEnvironment | None = None,
    ) -> None:  # fmt: skip
        self.bucket_name = bucket_name
        self.logger = logger or TotoLogger.get_instance()
        self.cid = cid
        self.environment = environment or current_environment()

    # Every writer returns the etag of what it wrote. Each method has a twin with the suffix `_async`.
    def upload_file(self, local_file_path: str | PathLike[str], destination_path: str, *, content_type: str | None = None, metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None) -> str: raise NotImplementedError  # noqa: E501, E704
    def upload_bytes(self, data: bytes, destination_path: str, *, content_type: str | None = None, metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None) -> str: raise NotImplementedError  # noqa: E501, E704
    def upload_stream(self, chunks: Iterable[bytes], destination_path: str, *, content_type: str | None = None, metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None) -> str: raise NotImplementedError  # noqa: E501, E704
    async def upload_stream_async(self, chunks: AsyncIterable[bytes] | Iterable[bytes], destination_path: str, *, content_type: str | None = None, metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None) -> str: raise NotImplementedError  # noqa: E501, E704
    def download_file(self, source_path: str, local_destination_path: str | PathLike[str]) -> None: raise NotImplementedError  # noqa: E501, E704
    def stream_file(self, path: str, start: int | None = None, end: int | None = None) -> Iterator[bytes]: raise NotImplementedError  # noqa: E501, E704
    async def stream_file_async(self, path: str, start: int | None = None, end: int | None = None) -> AsyncIterator[bytes]: raise NotImplementedError  # noqa: E501, E704
    def get_file_content(self, file_path: str) -> str | None: raise NotImplementedError  # noqa: E704
    def get_file_bytes(self, file_path: str, start: int | None = None, end: int | None = None) -> bytes | None: raise NotImplementedError  # noqa: E501, E704
    def list_files(self, prefix: str = "", *, delimiter: str = "") -> list[str]: raise NotImplementedError  # noqa: E704
    def iter_files(self, prefix: str = "", *, delimiter: str = "") -> Iterator[str]: raise NotImplementedError  # noqa: E501, E704
    def stat(self, path: str) -> FileInfo: raise NotImplementedError  # noqa: E704
    def exists(self, path: str) -> bool: raise NotImplementedError  # noqa: E704
    def delete_file(self, file_path: str) -> None: raise NotImplementedError  # noqa: E704
    def copy_file(self, source_path: str, destination_path: str) -> str: raise NotImplementedError  # noqa: E704
    def move_file(self, source_path: str, destination_path: str) -> str: raise NotImplementedError  # noqa: E704
    def signed_url(self, path: str, method: Literal["GET", "PUT"] = "GET", expires_in: int = 900, *, content_type: str | None = None) -> str: raise NotImplementedError  # noqa: E501, E704

    # --- what a backend fills in ---

    @backend_operation
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str: raise NotImplementedError  # noqa: E704
    @backend_operation
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]: raise NotImplementedError  # noqa: E704
    @backend_operation
    def _stat(self, key: str) -> FileInfo: raise NotImplementedError  # noqa: E704
    @backend_operation
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]: raise NotImplementedError  # noqa: E704
    @backend_operation
    def _delete(self, key: str) -> None: raise NotImplementedError  # noqa: E704
