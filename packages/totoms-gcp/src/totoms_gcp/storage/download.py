"""Streaming an object out of Cloud Storage."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import quote

import google_crc32c
from google.api_core import exceptions as api
from urllib3.exceptions import HTTPError

from totoms.errors import CorruptData, NotFound, Unavailable
from totoms_gcp.clients import Files
from totoms_gcp.errors import translate
from totoms_gcp.storage import retries

_CHUNK: Final = 1024 * 1024
_MAX_RESUMES: Final = 3
"""How many times in a row it asks for the rest before a byte comes."""
_CRC32C: Final = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


class Download(Iterator[bytes]):
    """The chunks of one generation of an object, as they are stored; a whole one is checked against its checksum.

    When the connection breaks it asks for the rest of that generation.

    Args:
        files: The clients.
        bucket: The bucket.
        key: The object.
        what: How errors call the object: the argument `what` of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    def __init__(self, files: Files, bucket: str, key: str, what: str, start: int, length: int | None) -> None:
        self._files, self._key, self._what = files, key, what
        self._address = f"{files.address}/download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        self._position, self._end = start, None if length is None else start + length
        self._whole = start == 0 and length is None
        self._generation = ""
        self._expected = ""
        self._checksum = google_crc32c.Checksum()
        self._body: Any = None
        self._failures = 0
        try:
            retries.RETRY(self._open)()
        except api.RequestRangeNotSatisfiable:  # it ends before `start`
            pass
        except Exception as error:
            raise translate(error, what, key) from error

    def __next__(self) -> bytes:
        while self._body is not None:
            try:
                chunk: bytes = self._read(_CHUNK)
            except (HTTPError, HTTPException, OSError) as error:
                self._resume(error)
                continue
            if chunk:
                self._position += len(chunk)
                self._failures = 0
                if self._expected:
                    self._checksum.update(chunk)
                return chunk
            self._finish()
        raise StopIteration

    def close(self) -> None:
        """Return the connection to the pool, or close it if the answer is not read to its end."""
        if self._body is not None:
            self._body.close()
            self._body = None

    @property
    def _read(self) -> Callable[[int], bytes]:
        return self._body.raw.read  # type: ignore[no-any-return]

    def _finish(self) -> None:
        self.close()
        if self._expected and base64.b64encode(self._checksum.digest()).decode() != self._expected:
            raise CorruptData(
                f"What was received of {self._what} {self._key!r} does not match its checksum.", resource=self._key
            )

    def _open(self) -> None:
        query = {"alt": "media"} | ({"generation": self._generation} if self._generation else {})
        # Without this header Google decompresses what is stored compressed, and ranges and sizes no longer fit.
        headers = {"Accept-Encoding": "gzip"}
        ranged = bool(self._position) or self._end is not None
        if ranged:
            headers["Range"] = f"bytes={self._position}-" + ("" if self._end is None else str(self._end - 1))
        answer = self._files.session.get(
            self._address,
            params=query,
            headers=headers,
            stream=True,
            timeout=retries.TIMEOUT,
            hooks={"response": retries.read_error},
        )
        self._body = retries.check(answer, 206 if ranged else 200)  # a range that is ignored must not pass for a part
        if not self._generation:
            self._generation = answer.headers.get("X-Goog-Generation", "")
            found = _CRC32C.search(answer.headers.get("X-Goog-Hash", ""))
            self._expected = found[1] if found and self._whole else ""

    def _resume(self, error: Exception) -> None:
        self.close()
        self._failures += 1
        if self._failures > _MAX_RESUMES or not self._generation:
            raise translate(error, self._what, self._key) from error
        try:
            retries.RETRY(self._open)()
        except Exception as failure:
            mapped = translate(failure, self._what, self._key)
            if isinstance(mapped, NotFound):
                message = f"It was replaced while it was read: {self._what} {self._key!r}."
                mapped = Unavailable(message, resource=self._key)
            raise mapped from failure
