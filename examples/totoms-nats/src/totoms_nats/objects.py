"""What NATS' object store keeps of one file: chunks under one subject, and about them a document under another.

The layout is the one that all of NATS' clients share, so that ``nats object get`` reads what is written here:
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-20.md
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from nats.js.api import RawStreamMsg

from totoms.errors import CorruptData
from totoms.storage_driver import FileInfo

CHUNK: Final = 128 * 1024
"""Bytes in a chunk: what NATS' own clients write."""
_CONTENT_TYPE: Final = "Content-Type"
_METADATA: Final = "Totoms-Metadata-"
_RUN: Final = "Totoms-Run"
"""First and last place of the chunks in the stream. Where they lie side by side, the n-th is found at once."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of one file.

    Attributes:
        info: What the core is told of it; the etag is the version's name.
        chunks: How many.
        digest: Of its content, as the document holds it.
        run: First and last place of its chunks in the stream; zeros when not known.
        sequence: The place of the document.
    """

    info: FileInfo
    chunks: int
    digest: str
    run: tuple[int, int] = (0, 0)
    sequence: int = 0
    chunk_size: int = field(default=CHUNK)


def document_subject(bucket: str, key: str) -> str:
    """The subject of the document about a file."""
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"


def chunk_subject(bucket: str, version: str) -> str:
    """The subject of a version's chunks."""
    return f"$O.{bucket}.C.{version}"


def write_document(bucket: str, stored: StoredObject) -> bytes:
    """Return the document about a file."""
    info = stored.info
    headers = {_CONTENT_TYPE: [info.content_type], _RUN: [str(place) for place in stored.run]}
    headers |= {_METADATA + name: [value] for name, value in info.metadata.items()}
    document = {
        "name": info.key, "bucket": bucket, "nuid": info.etag, "size": info.size, "chunks": stored.chunks,
        "digest": stored.digest, "headers": headers, "options": {"max_chunk_size": stored.chunk_size},
        "mtime": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    return json.dumps(document).encode()


def read_document(key: str, message: RawStreamMsg) -> StoredObject | None:
    """Return what a document says, or None where it says that the file was deleted.

    Raises:
        CorruptData: It is none.
    """
    try:
        document = json.loads(message.data or b"")
        if document.get("deleted"):
            return None
        headers = document.get("headers") or {}
        info = FileInfo(
            document["name"], int(document["size"]), _header(headers, _CONTENT_TYPE, "application/octet-stream"),
            document["nuid"], message.time or datetime.fromtimestamp(0, UTC),
            {
                name.removeprefix(_METADATA): _header(headers, name, "")
                for name in headers
                if name.startswith(_METADATA)
            },
        )  # fmt: skip
        first, last = map(int, headers.get(_RUN) or (0, 0))
        options = document.get("options") or {}
        return StoredObject(
            info, int(document["chunks"]), document.get("digest", ""), (first, last), message.seq or 0,
            int(options.get("max_chunk_size") or CHUNK),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptData(f"What is stored about {key!r} cannot be read.", resource=key) from error


def _header(headers: Mapping[str, Any], name: str, default: str) -> str:
    values = headers.get(name)
    return str(values[0] if isinstance(values, list) and values else values or default)
