"""A blob as it streams out of Blob Storage: chunk by chunk, each a request that is tried again by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobClient

from totoms.errors import Unavailable
from totoms_azure.errors import translate

_BEYOND: Final = 416


class Download(Iterator[bytes]):
    """The chunks of one version of a blob: the SDK asks for each further one on condition that it is the same.

    Args:
        blob: The SDK's client of it.
        key: Its name.
        called: How errors name it: the argument `what` of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        HttpResponseError: As it is: there is no such blob, or it cannot be had.
    """

    def __init__(self, blob: BlobClient, key: str, called: str, start: int, length: int | None) -> None:
        self._key, self._called = key, called
        self._chunks: Iterator[Any] = iter(())
        try:
            # A length needs a start.
            offset = start if start or length is not None else None
            self._chunks = blob.download_blob(offset, length, max_concurrency=1).chunks()
        except HttpResponseError as error:
            if error.status_code != _BEYOND:
                raise

    def __next__(self) -> bytes:
        try:
            return bytes(next(self._chunks))
        except StopIteration:
            raise
        except (ResourceModifiedError, ResourceNotFoundError) as error:
            raise Unavailable(
                f"It was replaced while it was read: {self._called} {self._key!r}.", resource=self._key
            ) from error
        except Exception as error:
            raise translate(error, self._called, self._key) from error

