"""The file of one stored object: a header, then the content. It is written once and never changed.

::

    8 bytes   magic, with the version of this layout
    4 bytes   length of the header, big-endian
    8 bytes   length of the content, big-endian
    header    JSON: key, content type, metadata, etag
    content

Both are in one file, so that an open descriptor reads content and metadata of the same version, even if the name is
replaced meanwhile.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Final

import orjson

from totoms.errors import CorruptData
from totoms.local.folders import os_errors
from totoms.storage.driver import FileInfo

CHUNK: Final = 256 * 1024
_MAGIC: Final = b"totoms\x00\x01"
_PREFIX: Final = struct.Struct(">8sIQ")
_FIRST_READ: Final = 4096
_MAX_HEADER: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The parsed header.

    Attributes:
        info: The metadata, for users.
        offset: The position of the content in the file.
    """

    info: FileInfo
    offset: int


def write_object(file: int, info: FileInfo, source: BinaryIO) -> None:
    """Write header and content to a new file and make them durable.

    Args:
        file: A descriptor.
        info: The metadata; `size` and `updated` are ignored.
        source: The content. Its own errors propagate unchanged.

    Raises:
        BackendError: The file cannot be written, for example because the disk is full.
    """
    header = orjson.dumps(
        {"key": info.key, "content_type": info.content_type, "metadata": dict(info.metadata), "etag": info.etag}
    )
    what = ascii(info.key)
    _write_all(file, b"\0" * _PREFIX.size + header, what)
    size = 0
    while chunk := source.read(CHUNK):
        _write_all(file, chunk, what)
        size += len(chunk)
    with os_errors(what):
        os.pwrite(file, _PREFIX.pack(_MAGIC, len(header), size), 0)
        os.fsync(file)


def read_header(file: int, name: str) -> StoredObject:
    """Read the header of an open file.

    Args:
        file: Its descriptor.
        name: The name of the file in errors.

    Raises:
        CorruptData: The header is damaged, or the file is shorter or longer than it says.
    """
    status = os.fstat(file)
    beginning = os.pread(file, _FIRST_READ, 0)
    try:
        magic, length, size = _PREFIX.unpack_from(beginning)
        offset = _PREFIX.size + length
        if magic == _MAGIC and length <= _MAX_HEADER and status.st_size == offset + size:
            if offset > len(beginning):
                beginning = os.pread(file, offset, 0)
            header = orjson.loads(beginning[_PREFIX.size : offset])
            info = FileInfo(
                key=header["key"],
                size=size,
                content_type=header["content_type"],
                etag=header["etag"],
                updated=datetime.fromtimestamp(status.st_mtime, UTC),
                metadata=header["metadata"],
            )
            return StoredObject(info, offset)
    except (struct.error, ValueError, KeyError, TypeError):
        pass
    raise CorruptData(f"The stored file {name} is damaged.", resource=name)


def read_content(file: int, position: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of an open file from `position`, in chunks."""
    while length > 0:
        with os_errors("A stored file"):
            chunk = os.pread(file, min(CHUNK, length), position)
        if not chunk:  # damage: the length was checked, and stored files never change
            raise CorruptData("A stored file was truncated while it was read.")
        yield chunk
        position += len(chunk)
        length -= len(chunk)


def _write_all(file: int, data: bytes, what: str) -> None:
    view = memoryview(data)
    with os_errors(what):
        while view:
            view = view[os.write(file, view) :]
