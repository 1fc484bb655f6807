"""Downloads from S3, resumed when the connection breaks."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from totoms.errors import BackendError, Unavailable
from totoms.plugin import ResumingDownload
from totoms_aws.errors import status_of, translate


class Download(ResumingDownload):
    """The chunks of one version of an object. The version is its etag.

    Args:
        s3: The client.
        place: ``Bucket`` and ``Key``.
        about: How errors name the object: arguments of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    broken = (BotoCoreError, OSError)

    def __init__(self, s3: Any, place: dict[str, str], about: tuple[str, str], start: int, length: int | None) -> None:
        self._s3, self._place, self._about = s3, place, about
        super().__init__(start, length)

    def _open(self) -> None:
        wanted = {"Range": self.byte_range, "IfMatch": self.version}
        answer = self._s3.get_object(**self._place, **{name: value for name, value in wanted.items() if value})
        self.body, self.version = answer["Body"], answer["ETag"]
        self.end = self.position + int(answer["ContentLength"])

    def _read(self, size: int) -> bytes:
        chunk: bytes = self.body.read(size)
        return chunk

    def _is_past_end(self, error: Exception) -> bool:
        return isinstance(error, ClientError) and status_of(error) == 416

    def _translate(self, error: Exception, *, resuming: bool = False) -> BackendError:
        if resuming and isinstance(error, ClientError) and status_of(error) == 412:
            what, key = self._about
            return Unavailable(f"The file was replaced while it was read: {what} {key!r}.", resource=key)
        return translate(error, *self._about)
