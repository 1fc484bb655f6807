"""Downloads from S3, resumed when the connection breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from totoms.errors import Unavailable
from totoms_aws.errors import mapped

_CHUNK: Final = 1024 * 1024
_MAX_RESUMES: Final = 3
"""How often the rest is requested in a row without a byte coming."""


class Download(Iterator[bytes]):
    """The chunks of one version of an object; when the connection breaks, the rest of that version is requested.

    Args:
        s3: The client.
        place: ``Bucket`` and ``Key``.
        about: How errors name the object: arguments of `mapped`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    def __init__(self, s3: Any, place: dict[str, str], about: tuple[str, str], start: int, length: int | None) -> None:
        self._s3, self._place, self._about = s3, place, about
        self._position, self._end = start, None if length is None else start + length
        self._version: dict[str, str] = {}
        self._body: Any = None
        self._failures = 0
        try:
            self._open()
        except ClientError as error:
            if _status(error) != 416:  # it ends before `start`
                raise mapped(error, *about) from error
        except Exception as error:
            raise mapped(error, *about) from error

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
        """Return the connection to the pool, or close it if the body was not read to its end."""
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
        if self._failures > _MAX_RESUMES or self._position == self._end:
            raise mapped(error, *self._about) from error
        try:
            self._open()
        except ClientError as refusal:
            if _status(refusal) == 412:
                what, key = self._about
                problem = f"The file was replaced while it was read: {what} {key!r}."
                raise Unavailable(problem, resource=key) from refusal
            raise mapped(refusal, *self._about) from refusal
        except Exception as failure:
            raise mapped(failure, *self._about) from failure


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
