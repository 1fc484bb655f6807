"""An object as it streams out of S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from totoms.errors import Unavailable
from totoms_aws.errors import translate

_CHUNK: Final = 1024 * 1024
_RESUMED: Final = 3
"""How many times in a row it is asked for the rest before a byte comes."""


class Download(Iterator[bytes]):
    """The chunks of one version of an object; when the connection breaks it asks for the rest of that version.

    Args:
        s3: The client.
        place: ``Bucket`` and ``Key``.
        told: How errors name the object: arguments of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    def __init__(self, s3: Any, place: dict[str, str], told: tuple[str, str], start: int, length: int | None) -> None:
        self._s3, self._place, self._told = s3, place, told
        self._position, self._end = start, None if length is None else start + length
        self._version: dict[str, str] = {}
        self._body: Any = None
        self._failures = 0
        try:
            self._open()
        except ClientError as error:
            if _status(error) != 416:  # it ends before `start`
                raise translate(error, *told) from error
        except Exception as error:
            raise translate(error, *told) from error

    def __next__(self) -> bytes:
        while self._body is not None:
            try:
                chunk: bytes = self._body.read(_CHUNK)
            except (BotoCoreError, OSError) as error:
                self._resume(error)
                continue
            if chunk:
                self._position += len(chunk)
                self._failures = 0
                return chunk
            self.close()
        raise StopIteration

    def close(self) -> None:
        """Give the connection back, or close it where there is more to come."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _open(self) -> None:
        span: dict[str, str] = {}
        if self._position or self._end is not None:
            span["Range"] = f"bytes={self._position}-" + ("" if self._end is None else str(self._end - 1))
        answer = self._s3.get_object(**self._place, **span, **self._version)
        self._body = answer["Body"]
        self._version = {"IfMatch": answer["ETag"]}
        self._end = self._position + int(answer["ContentLength"])

    def _resume(self, error: Exception) -> None:
        self.close()
        self._failures += 1
        if self._failures > _RESUMED or self._position == self._end:
            raise translate(error, *self._told) from error
        try:
            self._open()
        except ClientError as refusal:
            if _status(refusal) == 412:
                what, key = self._told
                raise Unavailable(f"It was replaced while it was read: {what} {key!r}.", resource=key) from refusal
            raise translate(refusal, *self._told) from refusal
        except Exception as failure:
            raise translate(failure, *self._told) from failure


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
