"""Downloads from Cloud Storage, resumed when the connection breaks."""

from __future__ import annotations

import base64
import re
from http.client import HTTPException
from typing import Final
from urllib.parse import quote

import google_crc32c
from google.api_core import exceptions as api
from urllib3.exceptions import HTTPError

from totoms.errors import BackendError, CorruptData, NotFound, Unavailable
from totoms.plugin import ResumingDownload
from totoms_gcp import clients
from totoms_gcp.errors import translate

_CRC32C: Final = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


class Download(ResumingDownload):
    """The chunks of one generation of an object, as they are stored; a whole one is checked against its checksum.

    Args:
        files: The clients.
        bucket: The bucket.
        about: How errors name the object: arguments of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    broken = (HTTPError, HTTPException, OSError)

    def __init__(
        self, files: clients.Files, bucket: str, about: tuple[str, str], start: int, length: int | None
    ) -> None:
        self._files, self._about, (_, key) = files, about, about
        self._address = f"{files.address}/download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        self._whole = start == 0 and length is None
        self._expected = ""
        self._checksum = google_crc32c.Checksum()
        super().__init__(start, length)

    def _open(self) -> None:
        clients.RETRY(self._request)()

    def _request(self) -> None:
        query = {"alt": "media"} | ({"generation": self.version} if self.version else {})
        # Without this header Google decompresses what is stored compressed, and ranges and sizes no longer fit.
        headers = {"Accept-Encoding": "gzip"}
        if self.byte_range:
            headers["Range"] = self.byte_range
        answer = self._files.session.get(
            self._address,
            params=query,
            headers=headers,
            stream=True,
            timeout=clients.TIMEOUT,
            hooks={"response": clients.read_error},
        )
        # A range that is ignored must not pass for a part.
        self.body = clients.check(answer, 206 if self.byte_range else 200)
        if not self.version:
            self.version = answer.headers.get("X-Goog-Generation", "")
            found = _CRC32C.search(answer.headers.get("X-Goog-Hash", ""))
            self._expected = found[1] if found and self._whole else ""

    def _read(self, size: int) -> bytes:
        chunk: bytes = self.body.raw.read(size)
        if self._expected:
            self._checksum.update(chunk)
        return chunk

    def _finish(self) -> None:
        if self._expected and base64.b64encode(self._checksum.digest()).decode() != self._expected:
            what, key = self._about
            raise CorruptData(f"What was received of {what} {key!r} does not match its checksum.", resource=key)

    def _is_past_end(self, error: Exception) -> bool:
        return isinstance(error, api.RequestRangeNotSatisfiable)

    def _translate(self, error: Exception, *, resuming: bool = False) -> BackendError:
        mapped = translate(error, *self._about)
        if resuming and isinstance(mapped, NotFound):
            what, key = self._about
            return Unavailable(f"The file was replaced while it was read: {what} {key!r}.", resource=key)
        return mapped
