"""Files of the local backend: one file under the root for each object, named by the hash of its key.

::

    <root>/storage/<bucket>/objects/<2 hex>/<62 hex>   the objects, by the SHA-256 of their keys
    <root>/storage/<bucket>/incoming/                  temporary files of running writes
    <root>/storage/<bucket>/locks/<2 hex>              locked while an object is replaced or deleted
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from totoms.context import new_cid
from totoms.errors import CorruptData, PreconditionFailed
from totoms.local.configuration import LocalConfiguration
from totoms.local.folders import new_file, open_child, open_folder, open_to_read, os_errors, sweep
from totoms.local.locks import locked
from totoms.local.storage.objects import StoredObject, read_content, read_header, write_object
from totoms.storage.driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms.storage.storage import CloudStorage
from totoms.storage.streams import ByteStream, ChunkReader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from totoms.environment import TotoEnvironment

_OBJECTS: Final = "objects"
_INCOMING: Final = "incoming"
_LOCKS: Final = "locks"
_SWEEP_SECONDS: Final = 60.0
_NEVER: Final = datetime.fromtimestamp(0, UTC)


class LocalCloudStorage(CloudStorage):
    """Files in a folder, for several processes at once.

    The first write creates a bucket. One that was never written to is empty: reading raises `NotFound`, and listing
    yields nothing.

    A write goes to a temporary file, is flushed, and replaces the object: a reader sees the old or the new content, and
    a process killed meanwhile leaves the old; a later write deletes its temporary file. Any service with the same root
    folder serves signed URLs.
    """

    capabilities = frozenset({SIGNED_URLS})

    @property
    def _root(self) -> Path:
        return cast(LocalConfiguration, self.environment.hyperscaler_configuration).root

    def _folder(self, *names: str, create: bool = False) -> contextlib.AbstractContextManager[int]:
        return open_folder(self._root, "storage", self.bucket_name, *names, create=create)

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        info = FileInfo(key, 0, options.content_type, new_cid(), _NEVER, options.metadata)
        shard, name = _place(key)
        with contextlib.ExitStack() as stack:
            with os_errors(self._describe(key)):
                incoming = stack.enter_context(self._folder(_INCOMING, create=True))
                _sweep_sometimes(f"{self._root}/{self.bucket_name}", incoming)
                file, temporary = stack.enter_context(new_file(incoming))
            write_object(file, info, source)  # outside of `os_errors`: the source's own errors propagate
            with os_errors(self._describe(key)):
                objects = stack.enter_context(self._folder(_OBJECTS, shard, create=True))
                with self._locked(shard):
                    self._check_precondition(key, objects, name, options)
                    os.replace(temporary, name, src_dir_fd=incoming, dst_dir_fd=objects)
                os.fsync(objects)
        return info.etag

    def _check_precondition(self, key: str, objects: int, name: str, options: WriteOptions) -> None:
        if not options.if_absent and options.if_match is None:
            return
        etag = None
        with contextlib.suppress(FileNotFoundError):
            file = open_to_read(objects, name)
            try:
                etag = read_header(file, name).info.etag
            finally:
                os.close(file)
        if options.if_absent and etag is not None:
            raise PreconditionFailed(f"{self._describe(key)} exists already.", resource=key)
        if options.if_match is not None and etag != options.if_match:
            how = "does not exist" if etag is None else "has changed"
            raise PreconditionFailed(f"{self._describe(key)} {how}.", resource=key)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        info, read = self.open_version(key)
        return read(start, info.size if length is None else min(info.size, start + length))

    def open_version(self, key: str) -> tuple[FileInfo, Callable[[int, int], ByteStream]]:
        """Open a file; return its metadata, and a function that returns its bytes from `start` to before `end`, once.

        Raises:
            NotFound: There is no such file.
        """
        file, stored = self._open(key)

        def read(start: int, end: int) -> ByteStream:
            return ByteStream(read_content(file, stored.offset + start, end - start), close=lambda: os.close(file))

        return stored.info, read

    def _stat(self, key: str) -> FileInfo:
        file, stored = self._open(key)
        os.close(file)
        return stored.info

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        folded = None
        for key in sorted(self._keys(prefix)):
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                yield key
            elif key[: end + len(delimiter)] != folded:
                folded = key[: end + len(delimiter)]
                yield folded

    def _keys(self, prefix: str) -> Iterator[str]:
        with os_errors(f"The bucket {self.bucket_name!r}"), contextlib.ExitStack() as stack:
            try:
                objects = stack.enter_context(self._folder(_OBJECTS))
            except FileNotFoundError:
                return
            for shard in os.listdir(objects):  # noqa: PTH208 - a descriptor, not a path
                if len(shard) == 2:  # skip other names: file managers leave files in folders
                    child = open_child(objects, shard)
                    try:
                        yield from (key for key in _keys_in(child, shard) if key.startswith(prefix))
                    finally:
                        os.close(child)

    def _copy(self, source: str, destination: str) -> str:
        file, stored = self._open(source)
        try:
            chunks = ChunkReader(read_content(file, stored.offset, stored.info.size))
            options = WriteOptions(stored.info.content_type, stored.info.metadata)
            return self._write(destination, cast(BinaryIO, chunks), options)
        finally:
            os.close(file)

    def _delete(self, key: str) -> None:
        shard, name = _place(key)
        missing = contextlib.suppress(FileNotFoundError)  # deleting a missing file is not an error
        with os_errors(self._describe(key)), missing, self._folder(_OBJECTS, shard) as objects:
            with self._locked(shard):
                os.unlink(name, dir_fd=objects)
            os.fsync(objects)

    def _signed_url(self, key: str, method: str, expires_in: int, content_type: str) -> str:
        from totoms.local.storage.signed_urls import sign  # loaded only when used

        return sign(self._root, self.bucket_name, key, method, expires_in, content_type)

    @classmethod
    async def _answer_signed(cls, request: Request, environment: TotoEnvironment) -> Response:
        from totoms.local.storage.signed_urls import respond

        return await respond(request, environment)

    def _open(self, key: str) -> tuple[int, StoredObject]:
        shard, name = _place(key)
        with os_errors(self._describe(key)):
            try:
                with self._folder(_OBJECTS, shard) as objects:
                    file = open_to_read(objects, name)
            except FileNotFoundError:
                raise self._no_file(key) from None
            try:
                stored = read_header(file, f"{shard}/{name}")
                if stored.info.key != key:
                    raise CorruptData(
                        f"The stored file {shard}/{name} belongs to another key.", resource=f"{shard}/{name}"
                    )
            except BaseException:
                os.close(file)
                raise
        return file, stored

    @contextlib.contextmanager
    def _locked(self, shard: str) -> Iterator[None]:
        with self._folder(_LOCKS, create=True) as locks, locked(locks, shard):
            yield

    def _describe(self, key: str) -> str:
        return f"{key!r} in the bucket {self.bucket_name!r}"


def _place(key: str) -> tuple[str, str]:
    # 256 folders: few enough for listing to read all of them, and enough that none grows large.
    digest = hashlib.sha256(key.encode()).hexdigest()
    return digest[:2], digest[2:]


def _keys_in(folder: int, shard: str) -> Iterator[str]:
    for name in os.listdir(folder):
        if len(name) != 62:
            continue
        try:
            file = open_to_read(folder, name)
        except FileNotFoundError:  # deleted meanwhile
            continue
        try:
            yield read_header(file, f"{shard}/{name}").info.key
        finally:
            os.close(file)


_swept: Final[dict[str, float]] = {}
_swept_lock: Final = threading.Lock()


def _sweep_sometimes(bucket: str, incoming: int) -> None:
    now = time.monotonic()
    with _swept_lock:
        if now < _swept.get(bucket, float("-inf")) + _SWEEP_SECONDS:
            return
        _swept[bucket] = now
    sweep(incoming)
