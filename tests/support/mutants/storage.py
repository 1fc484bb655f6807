"""Local storages that are broken on purpose, each in one way."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast
from urllib.parse import parse_qs, unquote

import pytest
from starlette.requests import Request
from starlette.responses import Response

from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, InvalidKey, NotFound, PreconditionFailed
from totoms.local.storage import signed_urls
from totoms.local.storage.storage import LocalCloudStorage
from totoms.storage.driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms.storage.streams import ByteStream, UploadCancelled

# --- content ---


class HoldsWholeUploads(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(key, io.BytesIO(source.read()), options)


class HoldsWholeDownloads(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return iter([b"".join(super()._read(key, start, length))])


class TakesContentForText(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return iter([b"".join(super()._read(key, start, length)).decode("utf-8", "replace").encode()])


class LosesEmptyFiles(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        content = source.read()
        return super()._write(key, io.BytesIO(content), options) if content else ""


class DecodesWhatItReads(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        content = b"".join(super()._read(key, 0, None))
        with contextlib.suppress(gzip.BadGzipFile):
            content = gzip.decompress(content)
        return iter([content[start : None if length is None else start + length]])


class DecodesAndCutsAtTheStoredSize(DecodesWhatItReads):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return iter([b"".join(super()._read(key, start, length))[: self._stat(key).size - start]])


class EndsAtAnEmptyChunk(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(key, io.BytesIO(source.read(100)), options)


class GivesOneByteMore(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return super()._read(key, start, None if length is None else length + 1)


class IgnoresRangesAcrossItsChunks(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return super()._read(key, min(start, 256 * 1024), length)


class FailsBeyondTheEnd(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        if start >= self._stat(key).size:
            raise BackendError("416", resource=key)
        return super()._read(key, start, length)


class LosesContentTypes(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(key, source, replace(options, content_type="application/octet-stream"))


class ChangesMetadataNames(LocalCloudStorage):
    def _stat(self, key: str) -> FileInfo:
        info = super()._stat(key)
        return replace(info, metadata={name.title(): value for name, value in info.metadata.items()})


class KeepsOldMetadata(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        with contextlib.suppress(NotFound):
            options = replace(options, metadata={**self._stat(key).metadata, **options.metadata})
        return super()._write(key, source, options)


class MakesEtagsOfContent(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        super()._write(key, source, options)
        return self._stat(key).etag

    def _stat(self, key: str) -> FileInfo:
        return replace(super()._stat(key), etag=hashlib.md5(b"".join(self._read(key, 0, None))).hexdigest())


class CopiesContentOnly(LocalCloudStorage):
    def _copy(self, source: str, destination: str) -> str:
        return self._write(destination, io.BytesIO(b"".join(self._read(source, 0, None))), WriteOptions("text/plain"))


class MovesByCopying(LocalCloudStorage):
    def move_file(self, source_path: str, destination_path: str) -> str:
        return self.copy_file(source_path, destination_path)


class MovesOntoItselfByDeleting(LocalCloudStorage):
    def move_file(self, source_path: str, destination_path: str) -> str:
        etag = self.copy_file(source_path, destination_path)
        self.delete_file(source_path)
        return etag


class CopiesWhatIsMissing(LocalCloudStorage):
    def _copy(self, source: str, destination: str) -> str:
        try:
            return super()._copy(source, destination)
        except NotFound:
            self._write(destination, io.BytesIO(), WriteOptions("text/plain"))
            raise


# --- what is there ---


class ListsOnePage(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        return islice(super()._list(prefix, delimiter), 1000)


class ListsOutOfOrder(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        return iter(sorted(super()._list(prefix, delimiter), key=lambda key: hashlib.md5(key.encode()).digest()))


class ListsInTheOrderOfUTF16(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        return iter(sorted(super()._list(prefix, delimiter), key=lambda key: key.encode("utf-16-be")))


class ListsAtOnce(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        return iter(list(super()._list(prefix, delimiter)))


class ListsFoldersOncePerPage(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        keys = super()._list(prefix, "")
        while page := list(islice(keys, 1000)):
            folded = {key[: key.find(delimiter, len(prefix)) + 1] or key if delimiter else key for key in page}
            yield from sorted(folded)


class TakesPrefixesForFolders(LocalCloudStorage):
    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
        return (key for key in super()._list(prefix, delimiter) if key == prefix or key.startswith(folder))


class NamesNothing(LocalCloudStorage):
    def _no_file(self, key: str) -> NotFound:
        return NotFound("The specified key does not exist.")


class TellsMissingBucketsApart(LocalCloudStorage):
    def _open(self, key: str) -> Any:
        if not (self._root / "storage" / self.bucket_name).exists() and key != "copy":
            raise NotFound(f"No bucket {self.bucket_name}.", resource=self.bucket_name)
        return super()._open(key)


class ReadsMissingFilesAsEmpty(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        try:
            return super()._read(key, start, length)
        except NotFound:
            return ByteStream(iter(()))


class DeletesOnlyWhatIsThere(LocalCloudStorage):
    def _delete(self, key: str) -> None:
        self._stat(key)
        super()._delete(key)


class DeletesFolders(LocalCloudStorage):
    def _delete(self, key: str) -> None:
        for one in list(self._list(key, "")):
            super()._delete(one)


class WrapsOSErrors(LocalCloudStorage):
    async def upload_file_async(self, *arguments: Any, **options: Any) -> str:
        try:
            return await super().upload_file_async(*arguments, **options)
        except OSError as error:
            raise NotFound(str(error)) from error


class LeavesPartsOfDownloads(LocalCloudStorage):
    def download_file(self, source_path: str, local_destination_path: Any) -> None:
        with self.stream_file(source_path) as chunks:
            destination = Path(local_destination_path)
            destination.parent.mkdir(parents=True, exist_ok=True)
            with destination.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)


class MakesNoFolders(LocalCloudStorage):
    def download_file(self, source_path: str, local_destination_path: Any) -> None:
        if not Path(local_destination_path).parent.is_dir():
            raise FileNotFoundError(local_destination_path)
        super().download_file(source_path, local_destination_path)


# --- keys ---


class _Folding(LocalCloudStorage):
    """Files of several keys are one."""

    @staticmethod
    def fold(key: str) -> str:
        raise NotImplementedError

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(self.fold(key), source, options)

    def _open(self, key: str) -> Any:
        return super()._open(self.fold(key))

    def _stat(self, key: str) -> FileInfo:
        return replace(super()._stat(key), key=key)

    def _delete(self, key: str) -> None:
        super()._delete(self.fold(key))


class NormalisesUnicode(_Folding):
    @staticmethod
    def fold(key: str) -> str:
        return unicodedata.normalize("NFC", key)


class JoinsSlashes(_Folding):
    @staticmethod
    def fold(key: str) -> str:
        while "//" in key:
            key = key.replace("//", "/")
        return key


class IgnoresCase(_Folding):
    @staticmethod
    def fold(key: str) -> str:
        return key.lower()


class DecodesPercents(_Folding):
    @staticmethod
    def fold(key: str) -> str:
        return unquote(key, errors="surrogateescape").encode("utf-8", "replace").decode()


class StripsSlashes(_Folding):
    @staticmethod
    def fold(key: str) -> str:
        return key.strip("/") or "/"


class RefusesNamesOfDevices(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        if key.upper() in ("CON", "NUL"):
            raise InvalidKey(f"The key {key!r} is reserved.")
        return super()._write(key, source, options)


class LooksBeforeItChecks(LocalCloudStorage):
    def upload_file(self, local_file_path: Any, destination_path: str, **options: Any) -> str:
        os.stat(local_file_path)
        return super().upload_file(local_file_path, destination_path, **options)

    async def upload_file_async(self, local_file_path: Any, destination_path: str, **options: Any) -> str:
        return self.upload_file(local_file_path, destination_path, **options)


class TellsThatNoSuchKeyExists(LocalCloudStorage):
    def exists(self, path: str) -> bool:
        try:
            return super().exists(path)
        except InvalidKey:
            return False


# --- many at once ---


class WritesInPlace(LocalCloudStorage):
    """As a plain file: a header that tells no size, and content that grows."""

    def _path(self, key: str) -> Path:
        folder = self._root / "plain" / self.bucket_name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / hashlib.sha256(key.encode()).hexdigest()

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        etag = super()._write(key, io.BytesIO(), options)
        with self._path(key).open("wb") as file:
            shutil.copyfileobj(source, file, 4096)
        return etag

    def _stat(self, key: str) -> FileInfo:
        return replace(super()._stat(key), size=self._path(key).stat().st_size)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        super()._stat(key)

        def chunks() -> Iterator[bytes]:
            with self._path(key).open("rb") as file:
                while chunk := file.read(65536):
                    yield chunk

        return chunks()


class StreamsMixVersions(LocalCloudStorage):
    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        step = 256 * 1024
        end = min(self._stat(key).size, start + (length if length is not None else 1 << 60))
        return (
            b"".join(super(StreamsMixVersions, self)._read(key, at, min(step, end - at)))
            for at in range(start, end, step)
        )


class KeepsHalfOfWhatIsCancelled(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        content = b""
        with contextlib.suppress(UploadCancelled, ConnectionResetError):
            while chunk := source.read(65536):
                content += chunk
        return super()._write(key, io.BytesIO(content), options)


class IgnoresIfAbsent(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(key, source, replace(options, if_absent=False))


class IgnoresIfMatch(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        return super()._write(key, source, replace(options, if_match=None))


class ChecksConditionsAtTheBegin(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        try:
            etag = self._stat(key).etag
        except NotFound:
            etag = None
        if (options.if_absent and etag) or (options.if_match and etag != options.if_match):
            raise PreconditionFailed(f"{key!r} is not as it should be.", resource=key)
        return super()._write(key, source, replace(options, if_absent=False, if_match=None))


class SharesABuffer(LocalCloudStorage):
    buffer: ClassVar[bytes] = b""

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        SharesABuffer.buffer = source.read()
        os.sched_yield()
        time.sleep(0.001)  # lets the others in
        return super()._write(key, io.BytesIO(SharesABuffer.buffer), options)


class BlocksTheLoop(LocalCloudStorage):
    async def stat_async(self, path: str) -> FileInfo:
        time.sleep(1.0)  # noqa: ASYNC251 - that is what is broken
        return self.stat(path)


# --- signed URLs ---


class _Lenient(LocalCloudStorage):
    """Serves URLs that are verified by `lenient`."""

    @staticmethod
    def lenient(root: Path, method: str, query: str, content_type: str) -> signed_urls.Grant:
        raise NotImplementedError

    @classmethod
    async def _answer_signed(cls, request: Request, environment: TotoEnvironment) -> Response:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signed_urls, "verify", cls.lenient)
            return await super()._answer_signed(request, environment)


def _given(query: str, name: str) -> str:
    return parse_qs(query, keep_blank_values=True).get(name, [""])[0]


_verify = signed_urls.verify


class URLsNeverExpire(LocalCloudStorage):
    def _signed_url(self, key: str, method: str, expires_in: int, content_type: str) -> str:
        return super()._signed_url(key, method, 10**6, content_type)


class URLsAreForEveryMethod(_Lenient):
    @staticmethod
    def lenient(root: Path, method: str, query: str, content_type: str) -> signed_urls.Grant:
        grant = _verify(root, _given(query, "method"), query, _given(query, "content_type"))
        return replace(grant, method=method, content_type=content_type or "text/plain")


class URLsAreForEveryKey(_Lenient):
    @staticmethod
    def lenient(root: Path, method: str, query: str, content_type: str) -> signed_urls.Grant:
        grant = signed_urls.Grant(*(_given(query, name) for name in signed_urls._NAMES))
        signed = replace(grant, key="file-one.txt")
        good = _given(query, "signature") in (signed_urls._signature(root, one) for one in (grant, signed))
        return grant if good else _verify(root, method, query, content_type)


class URLsAreForEveryContentType(_Lenient):
    @staticmethod
    def lenient(root: Path, method: str, query: str, content_type: str) -> signed_urls.Grant:
        grant = _verify(root, method, query, _given(query, "content_type"))
        return replace(grant, content_type=content_type or "text/plain")


class URLsLoseTheContentType(LocalCloudStorage):
    @classmethod
    async def _answer_signed(cls, request: Request, environment: TotoEnvironment) -> Response:
        answer = await super()._answer_signed(request, environment)
        answer.headers["content-type"] = "application/octet-stream"
        return answer


class DeclaresNoURLs(LocalCloudStorage):
    capabilities = frozenset()


class SignsUndeclared(LocalCloudStorage):
    capabilities = frozenset()

    def signed_url(self, path: str, *arguments: Any, **options: Any) -> str:
        return cast(str, vars(LocalCloudStorage)["_signed_url"](self, path, "GET", 60, "text/plain"))


assert SIGNED_URLS in LocalCloudStorage.capabilities
