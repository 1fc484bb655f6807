"""A stream cut into the parts of a multipart upload, each read whole before it is sent: it may be sent again."""

from __future__ import annotations

import base64
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Final

PART: Final = 5 * 1024 * 1024
"""The smallest part S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), held in memory."""
CHECKSUM: Final = "CRC32"  # what the SDK computes by default
_GROWN: Final = (PART, 10 * PART, 100 * PART, 1000 * PART)
_PARTS_OF_A_SIZE: Final = 1000
_PIECE: Final = 256 * 1024


@dataclass(eq=False)
class Part:
    """What is sent at once. It gives its memory, or its file, back with the end of a ``with``.

    Attributes:
        sent: The SDK's arguments: the body, and its checksum. Sent with the checksum, memory goes out as it is; the
            SDK's own way to compute one makes copies.
        last: Nothing follows.
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
    """Return the bytes of a part, by its number from 1: with at most 10,000 parts, small ones reach for 48 GiB only."""
    return _GROWN[min((number - 1) // _PARTS_OF_A_SIZE, len(_GROWN) - 1)]


def parts_of(source: BinaryIO) -> Iterator[Part]:
    """Give the parts of a source that ends nobody knows where; the first may be empty.

    Larger ones are written to temporary files, so that memory stays bounded for a file of any size.
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
    filled, checksum = len(ahead), zlib.crc32(ahead)
    with memoryview(memory) as view:
        while filled < len(view):
            count = _read_into(source, view[filled : filled + _PIECE])
            if not count:
                break
            checksum = zlib.crc32(view[filled : filled + count], checksum)
            filled += count
    del memory[filled:]
    return {"Body": memory, f"Checksum{CHECKSUM}": base64.b64encode(checksum.to_bytes(4, "big")).decode()}


def _read_into(source: Any, view: memoryview) -> int:
    if hasattr(source, "readinto"):
        return source.readinto(view) or 0
    piece = source.read(len(view))
    view[: len(piece)] = piece
    return len(piece)


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
