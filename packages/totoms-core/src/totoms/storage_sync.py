"""The synchronous half of :class:`totoms.storage.CloudStorage`, written once for all backends.

Here are the rules: for keys, ranges and media types, what a missing file means, downloads that leave nothing half done.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from totoms.errors import CorruptData, NotFound, PreconditionFailed, Unsupported, ValidationError
from totoms.keys import check_key, check_metadata, check_prefix, content_type_for
from totoms.storage_driver import SIGNED_URLS, FileInfo, StorageDriver, WriteOptions
from totoms.streams import ByteStream, ChunkReader

MAX_SIGNED_SECONDS: Final = 7 * 24 * 3600
"""A signed URL lives for at most seven days (S3 and GCS, signature version 4)."""


class SyncStorage(StorageDriver):
    """See :class:`totoms.storage.CloudStorage`."""

    # --- writing ---

    def upload_file(
        self, local_file_path: str | PathLike[str], destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload a local file, replacing the one there may be. A reader sees the old or the new, nothing between.

        Args:
            local_file_path: What to upload.
            destination_path: The key. Its ending decides the media type unless `content_type` is given.
            content_type: The media type.
            metadata: Attached to the file; lower-case identifiers with visible ASCII values.
            if_absent: Write only if there is no such file.
            if_match: Write only if the file's etag is this, thus nobody wrote since it was read.

        Returns:
            The etag of what was written.

        Raises:
            OSError: The local file is missing or cannot be read.
            InvalidKey: The key, media type or metadata is refused, before anything is read.
            PreconditionFailed: `if_absent` or `if_match` does not hold.
            NotFound: There is no such bucket.
            BackendError: The storage denies, is full or is away. What was there is unchanged.
        """
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        with Path(local_file_path).open("rb") as source:
            return self._upload(destination_path, source, options)

    def upload_bytes(
        self, data: bytes, destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload bytes. The rest is as for :meth:`upload_file`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ValidationError(f"upload_bytes takes bytes, not {type(data).__name__}.")
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return self._upload(destination_path, io.BytesIO(data), options)

    def upload_stream(
        self, chunks: Iterable[bytes], destination_path: str, *, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, if_absent: bool = False, if_match: str | None = None,
    ) -> str:  # fmt: skip
        """Upload chunks of bytes as they come, without holding them all. The rest is as for :meth:`upload_file`.

        When `chunks` raises, nothing is written and the error is passed on.
        """
        options = self._options(destination_path, content_type, metadata, if_absent, if_match)
        return self._upload(destination_path, cast(BinaryIO, ChunkReader(chunks)), options)

    def copy_file(self, source_path: str, destination_path: str) -> str:
        """Copy a file within the bucket, with its media type and metadata, and return the copy's etag.

        Raises:
            NotFound: There is no such file.
        """
        check_key(source_path)
        check_key(destination_path)
        if source_path == destination_path:  # S3 refuses it, and nothing would change
            return self._stat(source_path).etag
        etag = self._copy(source_path, destination_path)
        self._log(f"Copied {source_path!r} to {destination_path!r}")
        return etag

    def move_file(self, source_path: str, destination_path: str) -> str:
        """Copy a file, then delete the source; return the new file's etag.

        These are two steps: ended between them, both exist; what is written to the source between them is lost.

        Raises:
            NotFound: There is no such file.
        """
        etag = self.copy_file(source_path, destination_path)
        if source_path != destination_path:
            self._delete(source_path)
        return etag

    def delete_file(self, file_path: str) -> None:
        """Delete a file. One that does not exist is no error."""
        self._delete(check_key(file_path))
        self._log(f"Deleted {file_path!r}")

    # --- reading ---

    def download_file(self, source_path: str, local_destination_path: str | PathLike[str]) -> None:
        """Download into a local file, whose folder is made if it is missing. A failure leaves what was there.

        Raises:
            NotFound: There is no such file.
            OSError: The local file cannot be written.
        """
        destination = Path(local_destination_path)
        with self.stream_file(source_path) as chunks:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # Beside the destination, so that replacing it is one step; a plain open gives it the usual permissions.
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
        """Open a file, or a part of it, and return its chunks. Memory is bounded by the chunk, not by the file.

        Args:
            path: The key.
            start: The first byte; negative counts from the end, as in a slice.
            end: The byte to stop before; negative counts from the end. Beyond the end is no error.

        Raises:
            NotFound: There is no such file. Raised here, not at the first chunk.
        """
        first, length = self._range(check_key(path), start, end)
        if length == 0:
            self._stat(path)
            return ByteStream(iter(()))
        chunks = self._read(path, first, length)
        return chunks if isinstance(chunks, ByteStream) else ByteStream(chunks)

    def get_file_bytes(self, file_path: str) -> bytes | None:
        """Return a file's bytes, all in memory, or None when there is no such file."""
        try:
            with self.stream_file(file_path) as chunks:
                return b"".join(chunks)
        except NotFound:
            return None

    def get_file_content(self, file_path: str) -> str | None:
        """Return a text file's content, decoded as UTF-8, or None when there is no such file.

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
            NotFound: There is no such file.
        """
        return self._stat(check_key(path))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def list_files(self, prefix: str = "", *, delimiter: str = "") -> list[str]:
        """List the keys that start with `prefix`, all of them, ordered by code point.

        Args:
            prefix: With what a key starts.
            delimiter: Where given, usually ``/``, keys that have it behind the prefix appear once for all as their
                part up to and with it: the "folders".
        """
        return list(self.iter_files(prefix, delimiter=delimiter))

    def iter_files(self, prefix: str = "", *, delimiter: str = "") -> Iterator[str]:
        """Like :meth:`list_files`, page by page, as far as the caller goes on."""
        return self._list(check_prefix(prefix), check_prefix(delimiter))

    def signed_url(
        self, path: str, method: Literal["GET", "PUT"] = "GET", expires_in: int = 900,
        *, content_type: str | None = None,
    ) -> str:  # fmt: skip
        """Return a URL with which anybody may do `method` on the file until it expires.

        Args:
            path: The key.
            method: ``GET``, or ``PUT`` to upload.
            expires_in: Seconds, at most seven days.
            content_type: For PUT: the ``Content-Type`` that the uploader must send; by default by the key's ending.

        Raises:
            Unsupported: The backend has no signed URLs.
        """
        check_key(path)
        if SIGNED_URLS not in self.capabilities:
            raise Unsupported(f"The {self.environment.hyperscaler} storage has no {SIGNED_URLS}.", resource=SIGNED_URLS)
        if method not in ("GET", "PUT"):
            raise ValidationError("A signed URL is for GET or PUT.")
        if isinstance(expires_in, bool) or not 1 <= expires_in <= MAX_SIGNED_SECONDS:
            raise ValidationError(f"expires_in must be 1 to {MAX_SIGNED_SECONDS} seconds.")
        return self._signed_url(path, method, int(expires_in), content_type_for(path, content_type))

    # --- checks and helpers, once for all backends ---

    def _upload(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        etag = self._write(key, source, options)
        self._log(f"Uploaded {key!r}")
        return etag

    def _options(
        self, key: str, content_type: str | None, metadata: Mapping[str, str] | None, if_absent: bool,
        if_match: str | None,
    ) -> WriteOptions:  # fmt: skip
        check_key(key)
        if if_absent and if_match is not None:
            raise ValidationError("if_absent and if_match exclude each other.")
        if if_match == "":
            raise PreconditionFailed(f"No file has an empty etag: {key!r} is not written.", resource=key)
        return WriteOptions(content_type_for(key, content_type), check_metadata(metadata), if_absent, if_match)

    def _range(self, key: str, start: int | None, end: int | None) -> tuple[int, int | None]:
        if any(bound is not None and (isinstance(bound, bool) or not isinstance(bound, int)) for bound in (start, end)):
            raise ValidationError("start and end of a range must be whole numbers.")
        if (start or 0) < 0 or (end or 0) < 0:
            start, end, _ = slice(start, end).indices(self._stat(key).size)
        first = start or 0
        return first, None if end is None else max(0, end - first)
