"""Uploads to S3: in one request, or in parts; copies of large objects; and writes with a condition."""

from __future__ import annotations

import base64
import contextlib
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeVar

from botocore.exceptions import ClientError

from totoms.plugin import fill
from totoms_aws.clients import UPLOADING
from totoms_aws.errors import CONFLICT, code_of, mapped_errors

PART: Final = 5 * 1024 * 1024
"""The smallest part that S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), held in
memory."""
CHECKSUM: Final = "CRC32"
"""The SDK's default."""
PARTS_IN_FLIGHT: Final = 3
COPIED_PART: Final = 512 * 1024 * 1024
_PART_SIZES: Final = (PART, 10 * PART, 100 * PART, 1000 * PART)
_PARTS_OF_A_SIZE: Final = 1000
_MAX_PARTS: Final = 10_000
_PIECE: Final = 256 * 1024
_CONFLICT_PAUSES: Final = (0.1, 0.3, 0.9)
"""Seconds until a write is repeated; each at most doubled at random, so that competitors do not meet again."""
_sleep = time.sleep

_Result = TypeVar("_Result")
_Answer = dict[str, Any]
_Send = Callable[[str, int], _Answer]
"""Sends a part, given the upload's id and the part's number."""
Condition = Callable[[], dict[str, str]]


def repeat_on_conflict(write: Callable[[], _Result]) -> _Result:
    """Write, and write again if S3 did not check the condition, because another request was in progress.

    Args:
        write: The SDK's call. What it raises the last time is raised.
    """
    for pause in _CONFLICT_PAUSES:
        try:
            return write()
        except ClientError as error:
            if code_of(error) != CONFLICT:
                raise
        _sleep(pause * random.uniform(1.0, 2.0))
    return write()


@dataclass(eq=False)
class Part:
    """A part of a file, read whole before it is sent, because it may be sent again. Releases its memory on exit.

    Attributes:
        sent: The SDK's arguments: the body, and its checksum. The SDK would copy the body to compute the checksum.
        last: Whether it is the last one.
    """

    sent: dict[str, Any]
    last: bool
    _pool: list[bytearray] = field(repr=False)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        body = self.sent.pop("Body")
        if isinstance(body, bytearray):
            self._pool.append(body)
        else:
            body.close()


def part_size(number: int) -> int:
    """Return the bytes of a part, by its number from 1. Parts grow: 10,000 small ones would hold 48 GiB only."""
    return _PART_SIZES[min((number - 1) // _PARTS_OF_A_SIZE, len(_PART_SIZES) - 1)]


def parts_of(source: BinaryIO) -> Iterator[Part]:
    """Yield the parts of a source of unknown length; the first may be empty.

    Larger parts are written to temporary files, so that memory is bounded for a file of any size.
    """
    number, ahead, pool = 0, b"", list[bytearray]()
    while True:
        number += 1
        size = part_size(number)
        if size <= PART:
            memory = pool.pop() if pool else bytearray(PART)
            sent = _in_memory(source, memory, ahead)
        else:
            sent = _in_file(source, size, ahead)
        ahead = source.read(1)
        yield Part(sent, not ahead, pool)
        if not ahead:
            return


def _in_memory(source: BinaryIO, memory: bytearray, ahead: bytes) -> dict[str, Any]:
    memory[: len(ahead)] = ahead
    checksum = zlib.crc32(ahead)

    def add(piece: memoryview) -> None:
        nonlocal checksum
        checksum = zlib.crc32(piece, checksum)

    with memoryview(memory) as view, view[len(ahead) :] as rest:
        filled = len(ahead) + fill(rest, source, _PIECE, add)
    del memory[filled:]
    return {"Body": memory, f"Checksum{CHECKSUM}": base64.b64encode(checksum.to_bytes(4, "big")).decode()}


def _in_file(source: BinaryIO, size: int, ahead: bytes) -> dict[str, Any]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the part closes it
    try:
        missing = size - file.write(ahead)
        while missing and (piece := source.read(min(missing, _PIECE))):
            missing -= file.write(piece)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return {"Body": file, "ChecksumAlgorithm": CHECKSUM}


class Multipart:
    """A multipart upload. The object appears as a whole at the end, or not at all.

    Args:
        s3: The client.
        place: ``Bucket`` and ``Key``.
        about: How errors name the object: arguments of `mapped_errors`.
    """

    def __init__(self, s3: Any, place: dict[str, str], about: tuple[str, str]) -> None:
        self._s3, self._place, self._about = s3, place, about

    def upload(self, parts: Iterable[Part], described: dict[str, Any], condition: Condition) -> str:
        """Upload parts, and return S3's etag.

        Args:
            parts: The parts, in order.
            described: Arguments of the object.
            condition: Returns the arguments of the condition; called just before the object appears.
        """

        def send(part: Part, upload: str, number: int) -> _Answer:
            with part:
                answer: _Answer = self._s3.upload_part(**self._place, UploadId=upload, PartNumber=number, **part.sent)
            return answer

        senders = (partial(send, part) for part in parts)
        return self._run(senders, {**described, "ChecksumAlgorithm": CHECKSUM}, condition)

    def copy(self, source: dict[str, str], size: int, described: dict[str, Any]) -> str:
        """Copy an object of `size` bytes inside S3, in parts, and return its etag.

        Args:
            source: ``CopySource`` and ``CopySourceIfMatch``.
            size: Its bytes.
            described: Arguments of the object.
        """
        length = max(COPIED_PART, -(-size // _MAX_PARTS))

        def send(start: int, upload: str, number: int) -> _Answer:
            span = f"bytes={start}-{min(start + length, size) - 1}"
            copied: _Answer = self._s3.upload_part_copy(
                **self._place, **source, UploadId=upload, PartNumber=number, CopySourceRange=span
            )["CopyPartResult"]
            return copied

        return self._run((partial(send, start) for start in range(0, size, length)), described, dict)

    def _run(self, parts: Iterable[_Send], described: dict[str, Any], condition: Condition) -> str:
        with mapped_errors(*self._about):
            upload: str = self._s3.create_multipart_upload(**self._place, **described)["UploadId"]
        try:
            done = self._send(parts, upload)
            with mapped_errors(*self._about):
                finished = repeat_on_conflict(
                    lambda: self._s3.complete_multipart_upload(
                        **self._place, UploadId=upload, MultipartUpload={"Parts": done}, **condition()
                    )
                )
            etag: str = finished["ETag"]
            return etag
        except BaseException:
            # No part is in flight any more, so nothing is left that would be paid for.
            with contextlib.suppress(Exception):
                self._s3.abort_multipart_upload(**self._place, UploadId=upload)
            raise

    def _send(self, parts: Iterable[_Send], upload: str) -> list[_Answer]:
        in_flight: set[Future[_Answer]] = set()
        futures: list[Future[_Answer]] = []
        try:
            for number, send in enumerate(parts, 1):
                started = UPLOADING.submit(send, upload, number)
                futures.append(started)
                in_flight.add(started)
                if len(in_flight) >= PARTS_IN_FLIGHT:
                    ended, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                    for one in ended:
                        self._answer(one)
            answers = [self._answer(one) for one in futures]
        finally:
            for one in in_flight:
                one.cancel()
            wait(in_flight)
        return [_described(number, answer) for number, answer in enumerate(answers, 1)]

    def _answer(self, sent: Future[_Answer]) -> _Answer:
        with mapped_errors(*self._about):
            return sent.result()


def _described(number: int, answer: _Answer) -> _Answer:
    # S3 wants the parts' checksums again at the end of an upload that began with an algorithm.
    checksums = {name: value for name, value in answer.items() if name == f"Checksum{CHECKSUM}"}
    return {"PartNumber": number, "ETag": answer["ETag"], **checksums}
