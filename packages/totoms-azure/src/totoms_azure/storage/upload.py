"""Writes a blob in blocks, which become visible together when their list is committed.

https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from totoms.errors import PreconditionFailed, Unavailable
from totoms.plugin import WriteOptions
from totoms_azure.errors import mapped_errors

BLOCK: Final = 6 * 1024 * 1024
"""Bytes: the most that one request sends."""
_CONDITION_FAILED: Final = ("BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet")
"""Other conflicts, such as a lease or a policy on the blob, have nothing to do with the condition
(https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes)."""
_BLOCKS_GONE: Final = "InvalidBlockList"


class Upload:
    """Writes a blob in blocks.

    Args:
        blob: The SDK's client of the blob.
        about: How errors name it: arguments of `translate`.
        label: Its name and bucket, for errors.
        options: The conditions and properties.
    """

    def __init__(self, blob: BlobClient, about: tuple[str, str], label: str, options: WriteOptions) -> None:
        self._blob, self._about, self._label, self._options = blob, about, label, options
        self._key = about[1]
        # Part of the block ids, so that this upload recognizes its own list if the answer to the commit is lost.
        self._upload = uuid.uuid4().bytes
        self._blocks: list[str] = []

    def send(self, blocks: Iterable[bytes]) -> str:
        """Send the content, in blocks of at most `BLOCK` bytes; return the etag. What `blocks` raises is passed on.

        Raises:
            PreconditionFailed: The condition of `options` does not hold.
            Unavailable: Another upload of the same blob ended meanwhile, which drops the blocks of this one.
        """
        for block in blocks:
            self._blocks.append(base64.b64encode(self._upload + len(self._blocks).to_bytes(4, "big")).decode())
            with mapped_errors(*self._about):
                self._blob.stage_block(self._blocks[-1], block, length=len(block))
        with mapped_errors(*self._about):
            arguments = {**properties(self._options), **_condition(self._options)}
            try:
                made = self._blob.commit_block_list([BlobBlock(name) for name in self._blocks], **arguments)
            except HttpResponseError as error:
                return self._check_commit(error)
            return str(made["etag"])

    def _check_commit(self, error: HttpResponseError) -> str:
        """Return the etag if the list was committed and only the answer was lost; else raise what went wrong."""
        gone = error_code(error) == _BLOCKS_GONE
        if not gone and error_code(error) not in _CONDITION_FAILED and (error.status_code != 412 or error_code(error)):
            raise error
        try:
            committed, _ = self._blob.get_block_list("committed")
            found = self._blob.get_blob_properties()
        except ResourceNotFoundError:
            committed, found = [], None
        if found is not None and self._blocks and [block.id for block in committed] == self._blocks:
            return str(found.etag)
        if self._options.if_absent and (not gone or found is not None):
            raise PreconditionFailed(f"{self._label} exists already.", resource=self._key) from error
        if self._options.if_match and (not gone or found is None or found.etag != self._options.if_match):
            raise PreconditionFailed(f"{self._label} has changed, or does not exist.", resource=self._key) from error
        if not gone:
            raise error
        raise Unavailable(
            f"Another upload of {self._label} ended during this one and dropped its blocks.", resource=self._key
        ) from error


def properties(options: WriteOptions) -> dict[str, Any]:
    """Return the SDK's arguments for the properties of a blob."""
    settings = ContentSettings(content_type=options.content_type)
    return {"content_settings": settings, "metadata": dict(options.metadata)}


def error_code(error: Exception) -> str:
    """Return the storage's own code of an error, such as ``BlobNotFound``."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _condition(options: WriteOptions) -> dict[str, Any]:
    if options.if_absent:
        return {"etag": "*", "match_condition": MatchConditions.IfModified}  # If-None-Match: *
    if options.if_match:
        return {"etag": options.if_match, "match_condition": MatchConditions.IfNotModified}
    return {}
