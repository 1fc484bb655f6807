"""The blocking methods of :class:`totoms.storage.storage.CloudStorage`, the same for all backends.

They check keys, ranges and media types, and leave no partial file when a download fails.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from totoms.errors import CorruptData, InvalidArgument, NotFound, PreconditionFailed, Unsupported
from totoms.names import check_key, check_metadata, check_prefix, content_type_for
from totoms.storage.driver import SIGNED_URLS, FileInfo, StorageDriver, WriteOptions
from totoms.storage.streams import ByteStream, ChunkReader
from totoms.telemetry import state as telemetry

MAX_SIGNED_SECONDS: Final = 7 * 24 * 3600
"""A signed URL is valid for at most seven days (S3 and GCS, signature version 4)."""


class SyncStorage(StorageDriver):
    """See :class:`totoms.storage.storage.CloudStorage`."""

    # --- writing ---

    def upload_file(
        self,
        local_file_path: str | PathLike[str],
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload a local file, replacing an existing one atomically: readers see the old or the new content.

        Args:
            local_file_path: The file to upload.
            destination_path: The key.
            content_type: The media type; by default by the extension of the key.
            metadata: Attached to the file; lower-case identifiers with visible ASCII values.
            if_absent: Write only if the file does not exist.
            if_match: Write only if the file has this etag, so was not written since it was read.

        Returns:
            The etag of the new file.

        Raises:
            OSError: The local file does not exist or cannot be read.
            InvalidKey: The key, media type or metadata is invalid. Checked before anything is read.
            PreconditionFailed: `if_absent` or `if_match` does not hold.
            NotFound: The bucket does not exist.
            BackendError: The storage denies access, is full or is unavailable. An existing file is unchanged.
        """
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        with Path(local_file_path).open("rb") as source:
            return self._upload(destination_path, source, options)

    def upload_bytes(
        self,
        data: bytes,
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload bytes. The rest is as for :meth:`upload_file`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidArgument(f"upload_bytes takes bytes, not {type(data).__name__}.")
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return self._upload(destination_path, io.BytesIO(data), options)

    def upload_stream(
        self,
        chunks: Iterable[bytes],
        destination_path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Upload chunks of bytes without holding them all in memory. The rest is as for :meth:`upload_file`.

        If `chunks` raises, nothing is written and the error is passed on.
        """
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return self._upload(destination_path, cast(BinaryIO, ChunkReader(chunks)), options)

    def copy_file(self, source_path: str, destination_path: str) -> str:
        """Copy a file within the bucket, with its media type and metadata, and return the copy's etag.

        Raises:
            NotFound: The file does not exist.
        """
        check_key(source_path)
        check_key(destination_path)
        if source_path == destination_path:  # S3 rejects it
            return self._stat(source_path).etag
        with self._span("copy"):
            etag = self._copy(source_path, destination_path)
        self._log(f"Copied {source_path!r} to {destination_path!r}")
        return etag

    def move_file(self, source_path: str, destination_path: str) -> str:
        """Copy a file, then delete the source; return the new file's etag.

        This is not atomic: after a crash in between both exist, and a write to the source in between is lost.

        Raises:
            NotFound: The file does not exist.
        """
        etag = self.copy_file(source_path, destination_path)
        if source_path != destination_path:
            with self._span("delete"):
                self._delete(source_path)
        return etag

    def delete_file(self, file_path: str) -> None:
        """Delete a file. Do nothing if it does not exist."""
        check_key(file_path)
        with self._span("delete"):
            self._delete(file_path)
        self._log(f"Deleted {file_path!r}")

    # --- reading ---

    def download_file(self, source_path: str, local_destination_path: str | PathLike[str]) -> None:
        """Download into a local file and create its folder. On failure, an existing local file is unchanged.

        Raises:
            NotFound: The file does not exist.
            OSError: The local file cannot be written.
        """
        destination = Path(local_destination_path)
        with self._span("download"), self.stream_file(source_path) as chunks:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, so that the replacement is atomic; a plain open gives it the usual permissions.
            part = destination.with_name(f".{secrets.token_hex(8)}.part")
            try:
                with part.open("xb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                part.replace(destination)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()
                raise

    def stream_file(self, path: str, start: int | None = None, end: int | None = None) -> ByteStream:
        """Open a file, or a part of it, and return its chunks. Only one chunk at a time is in memory.

        Args:
            path: The key.
            start: The first byte; negative counts from the end, as in a slice.
            end: The byte to stop before; negative counts from the end. It may be beyond the end.

        Raises:
            NotFound: The file does not exist. Raised here, not at the first chunk.
        """
        first, length = self._range(check_key(path), start, end)
        if length == 0:
            self._stat(path)
            return ByteStream(iter(()))
        with self._span("open"):
            chunks = self._read(path, first, length)
        return chunks if isinstance(chunks, ByteStream) else ByteStream(chunks)

    def get_file_bytes(self, file_path: str) -> bytes | None:
        """Return a file's bytes, or None if it does not exist."""
        try:
            with self._span("download"), self.stream_file(file_path) as chunks:
                return b"".join(chunks)
        except NotFound:
            return None

    def get_file_content(self, file_path: str) -> str | None:
        """Return a text file's content, decoded as UTF-8, or None if it does not exist.

        Raises:
            CorruptData: It is not UTF-8. Use :meth:`get_file_bytes`.
        """
        content = self.get_file_bytes(file_path)
        with contextlib.suppress(UnicodeDecodeError):
            return None if content is None else content.decode()
        raise CorruptData(f"{file_path!r} is not UTF-8 text: read it with get_file_bytes.", resource=file_path)

    def stat(self, path: str) -> FileInfo:
        """Return a file's size, media type, metadata and etag.

        Raises:
            NotFound: The file does not exist.
        """
        check_key(path)
        with self._span("stat"):
            return self._stat(path)

    def exists(self, path: str) -> bool:
        """Return whether a file exists."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def list_files(self, prefix: str = "", *, delimiter: str = "") -> list[str]:
        """List all keys that start with `prefix`, ordered by code point.

        Args:
            prefix: The prefix.
            delimiter: If given, usually ``/``, keys with a delimiter after the prefix are grouped into one entry that
                ends with the first such delimiter: a "folder".
        """
        with self._span("list"):
            return list(self.iter_files(prefix, delimiter=delimiter))

    def iter_files(self, prefix: str = "", *, delimiter: str = "") -> Iterator[str]:
        """Yield the same as :meth:`list_files`, fetching pages as needed."""
        return self._list(check_prefix(prefix), check_prefix(delimiter))

    def signed_url(
        self,
        path: str,
        method: Literal["GET", "PUT"] = "GET",
        expires_in: int = 900,
        *,
        content_type: str | None = None,
    ) -> str:
        """Return a URL with which anyone may read or upload the file until it expires.

        Args:
            path: The key.
            method: ``GET``, or ``PUT`` to upload.
            expires_in: Seconds, at most seven days.
            content_type: For PUT, the ``Content-Type`` that the uploader must send; by default by the key's extension.

        Raises:
            Unsupported: The backend has no signed URLs.
        """
        check_key(path)
        if SIGNED_URLS not in self.capabilities:
            raise Unsupported(f"The {self.environment.hyperscaler} storage has no {SIGNED_URLS}.", resource=SIGNED_URLS)
        if method not in ("GET", "PUT"):
            raise InvalidArgument("A signed URL is for GET or PUT.")
        if isinstance(expires_in, bool) or not 1 <= expires_in <= MAX_SIGNED_SECONDS:
            raise InvalidArgument(f"expires_in must be 1 to {MAX_SIGNED_SECONDS} seconds.")
        return self._signed_url(path, method, int(expires_in), content_type_for(path, content_type))

    # --- checks and helpers ---

    def _span(self, operation: str) -> AbstractContextManager[object]:
        attributes = {"totoms.storage.bucket": self.bucket_name, "totoms.storage.operation": operation}
        return telemetry.span(f"storage {operation}", attributes)

    def _upload(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        with self._span("upload"):
            etag = self._write(key, source, options)
        self._log(f"Uploaded {key!r}")
        return etag

    def _options(
        self,
        key: str,
        content_type: str | None,
        metadata: Mapping[str, str] | None,
        if_absent: bool,
        if_match: str | None,
    ) -> WriteOptions:
        check_key(key)
        if if_absent and if_match is not None:
            raise InvalidArgument("if_absent and if_match exclude each other.")
        if if_match == "":
            raise PreconditionFailed(f"No file has an empty etag: {key!r} was not written.", resource=key)
        return WriteOptions(content_type_for(key, content_type), check_metadata(metadata), if_absent, if_match)

    def _range(self, key: str, start: int | None, end: int | None) -> tuple[int, int | None]:
        if any(bound is not None and (isinstance(bound, bool) or not isinstance(bound, int)) for bound in (start, end)):
            raise InvalidArgument("start and end of a range must be integers.")
        if (start or 0) < 0 or (end or 0) < 0:
            start, end, _ = slice(start, end).indices(self._stat(key).size)
        first = start or 0
        return first, None if end is None else max(0, end - first)
