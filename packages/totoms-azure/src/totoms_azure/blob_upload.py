"""A blob on its way into Blob Storage, in blocks: nothing of it is to be seen before the list of them is committed.

https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from __future__ import annotations

import base64
import uuid
from typing import Any, BinaryIO, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from totoms.errors import PreconditionFailed, Unavailable
from totoms.storage_driver import WriteOptions
from totoms_azure.blob_client import CHUNK
from totoms_azure.errors import told_as

_FAILED: Final = (409, 412)
_LOST: Final = "InvalidBlockList"


class Upload:
    """Sends a source to its end.

    Args:
        blob: The SDK's client of it.
        key: Its name.
        bucket: The container's.
        options: How it is to be written.
    """

    def __init__(self, blob: BlobClient, key: str, bucket: str, options: WriteOptions) -> None:
        self._blob, self._key, self._options = blob, key, options
        self._called, self._told = f"{key!r} in the bucket {bucket!r}", f"the bucket {bucket!r} and its file"
        # Of this upload alone, so that whose list was committed can be told when the answer gets lost.
        self._upload = uuid.uuid4().bytes
        self._blocks: list[str] = []

    def send(self, first: bytes, source: BinaryIO) -> str:
        """Send `first` and then what `source` has; return the etag. What `source` raises is passed on.

        Raises:
            PreconditionFailed: Another was first.
            Unavailable: Another upload of the same blob has ended meanwhile, which drops the blocks of this one.
        """
        block = first
        while block:
            self._blocks.append(base64.b64encode(self._upload + len(self._blocks).to_bytes(4, "big")).decode())
            with told_as(self._told, self._key):
                self._blob.stage_block(self._blocks[-1], block, length=len(block))
            block, _ = read(source)
        with told_as(self._told, self._key):
            how = {**described(self._options), **_condition(self._options)}
            try:
                made = self._blob.commit_block_list([BlobBlock(name) for name in self._blocks], **how)
            except HttpResponseError as error:
                return self._decide(error)
            return str(made["etag"])

    def _decide(self, error: HttpResponseError) -> str:
        """Return the etag, if the list was committed all the same and only the answer was lost."""
        lost = code_of(error) == _LOST
        if not lost and error.status_code not in _FAILED:
            raise error
        try:
            committed, _ = self._blob.get_block_list("committed")
            found = self._blob.get_blob_properties()
        except ResourceNotFoundError:
            committed, found = [], None
        if found is not None and self._blocks and [block.id for block in committed] == self._blocks:
            return str(found.etag)
        if self._options.if_absent and (not lost or found is not None):
            raise PreconditionFailed(f"{self._called} exists already.", resource=self._key) from error
        if self._options.if_match and (not lost or found is None or found.etag != self._options.if_match):
            raise PreconditionFailed(f"{self._called} has changed, or is gone.", resource=self._key) from error
        if not lost:
            raise error
        raise Unavailable(
            f"Another upload of {self._called} ended while this one was under way.", resource=self._key
        ) from error


def described(options: WriteOptions) -> dict[str, Any]:
    """Return what the SDK's methods are told of a blob."""
    settings = ContentSettings(content_type=options.content_type)
    return {"content_settings": settings, "metadata": dict(options.metadata)}


def read(source: BinaryIO) -> tuple[bytes, bool]:
    """Read one block; return it, and whether it is all there is."""
    pieces, missing = [], CHUNK
    while missing and (piece := source.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces) if len(pieces) != 1 else pieces[0], missing > 0


def code_of(error: Exception) -> str:
    """Return the storage's own code of an error: ``BlobNotFound``."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _condition(options: WriteOptions) -> dict[str, Any]:
    if options.if_absent:
        return {"etag": "*", "match_condition": MatchConditions.IfModified}  # If-None-Match: *
    if options.if_match:
        return {"etag": options.if_match, "match_condition": MatchConditions.IfNotModified}
    return {}
