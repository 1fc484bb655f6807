"""A stream cut into the parts of a multipart upload, each read whole before it is sent: it may be sent again."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

PART: Final = 5 * 1024 * 1024
"""The smallest part S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), held in memory."""
_GROWN: Final = (PART, 10 * PART, 100 * PART, 1000 * PART)
_PARTS_OF_A_SIZE: Final = 1000
_PIECE: Final = 256 * 1024


def part_size(number: int) -> int:
    """Return the bytes of a part, by its number from 1: with at most 10,000 parts, small ones reach for 48 GiB only."""
    return _GROWN[min((number - 1) // _PARTS_OF_A_SIZE, len(_GROWN) - 1)]


def parts_of(source: BinaryIO) -> Iterator[BinaryIO]:
    """Give the parts of a source that ends nobody knows where; the first may be empty, each is to be closed.

    Larger ones are written to temporary files, so that memory stays bounded for a file of any size.
    """
    number = 1
    while True:
        size = part_size(number)
        part = _filled(source, size)
        length = part.tell()
        if length or number == 1:
            part.seek(0)
            yield part
        if length < size:
            return
        number += 1


def _filled(source: BinaryIO, size: int) -> BinaryIO:
    part: BinaryIO = io.BytesIO() if size <= PART else tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    missing = size
    try:
        while missing and (piece := source.read(min(missing, _PIECE))):
            part.write(piece)
            missing -= len(piece)
    except BaseException:
        part.close()
        raise
    return part
