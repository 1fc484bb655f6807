"""How NATS' object store keeps a file: chunks under one subject, and a document about them under another.

All clients of NATS share this layout, so ``nats object get`` reads what is written here:
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
from totoms.plugin import FileInfo

CHUNK: Final = 128 * 1024
"""Bytes in a chunk: what NATS' own clients write."""
_CONTENT_TYPE: Final = "Content-Type"
_METADATA: Final = "Totoms-Metadata-"
_RUN: Final = "Totoms-Run"
"""First and last place of the chunks in the stream. If they lie side by side, the n-th is found without reading."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of one file.

    Attributes:
        info: What the core knows of a file; the etag is the name of the version.
        chunks: How many there are.
        digest: The digest of the content, as the document has it.
        ends: First and last place of the chunks in the stream; zeros when not known.
        chunk_size: Bytes of a chunk.
    """

    info: FileInfo
    chunks: int
    digest: str
    ends: tuple[int, int] = (0, 0)
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
    headers = {_CONTENT_TYPE: [info.content_type], _RUN: [str(place) for place in stored.ends]}
    headers |= {_METADATA + name: [value] for name, value in info.metadata.items()}
    document = {
        "name": info.key,
        "bucket": bucket,
        "nuid": info.etag,
        "size": info.size,
        "chunks": stored.chunks,
        "digest": stored.digest,
        "headers": headers,
        "options": {"max_chunk_size": stored.chunk_size},
        "mtime": datetime.now(UTC).isoformat(),
    }
    return json.dumps(document).encode()


def read_document(key: str, message: RawStreamMsg) -> StoredObject | None:
    """Return the version that a document describes, or None if it says that the file was deleted.

    Raises:
        CorruptData: The document is damaged.
    """
    try:
        document = json.loads(message.data or b"")
        if document.get("deleted"):
            return None
        headers = document.get("headers") or {}
        attached = [name for name in headers if name.startswith(_METADATA)]
        first, last = map(int, headers.get(_RUN) or (0, 0))
        return StoredObject(
            info=FileInfo(
                key=document["name"],
                size=int(document["size"]),
                content_type=_header(headers, _CONTENT_TYPE, "application/octet-stream"),
                etag=document["nuid"],
                updated=message.time or datetime.fromtimestamp(0, UTC),
                metadata={name.removeprefix(_METADATA): _header(headers, name, "") for name in attached},
            ),
            chunks=int(document["chunks"]),
            digest=document.get("digest", ""),
            ends=(first, last),
            chunk_size=int((document.get("options") or {}).get("max_chunk_size") or CHUNK),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptData(f"The document about {key!r} cannot be read.", resource=key) from error


def _header(headers: Mapping[str, Any], name: str, default: str) -> str:
    values = headers.get(name)
    return str(values[0] if isinstance(values, list) and values else values or default)
