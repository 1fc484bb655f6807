"""Etags that change with every write. S3's own is the same for the same bytes, so what is written carries a mark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from totoms.keys import MAX_METADATA_BYTES

_MARK: Final = "totoms-write"  # no name that a user may give: they have no hyphen
_MARKED: Final = re.compile(r"(.+)\.([0-9a-f]{32})")
_ETAG: Final = re.compile(r"[!#-~]{1,1024}")


def marked(metadata: Mapping[str, str], mark: str) -> dict[str, str]:
    """Return the metadata to store; without the mark where S3, which allows 2 KB, has no room for it."""
    kept = {name: value for name, value in metadata.items() if name != _MARK}
    size = sum(len(name) + len(value) for name, value in kept.items())
    return kept if size + len(_MARK) + len(mark) > MAX_METADATA_BYTES else {**kept, _MARK: mark}


def unmarked(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what the user stored."""
    return {name: value for name, value in metadata.items() if name != _MARK}


def mark_of(metadata: Mapping[str, str]) -> str | None:
    """Return the mark, which an object that somebody else wrote does not have."""
    return metadata.get(_MARK)


def etag_of(answer: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """Return our etag: S3's, and the mark."""
    etag, mark = str(answer["ETag"]).strip('"'), mark_of(metadata)
    return f"{etag}.{mark}" if mark else etag


def own_etag(etag: str) -> str | None:
    """Return S3's part of an etag of ours, for its headers; None for what cannot be one."""
    if not _ETAG.fullmatch(etag):
        return None
    found = _MARKED.fullmatch(etag)
    return f'"{found[1] if found else etag}"'
