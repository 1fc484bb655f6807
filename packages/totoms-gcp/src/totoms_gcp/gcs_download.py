"""An object as it streams out of Cloud Storage."""

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
from totoms_gcp import gcs_calls
from totoms_gcp.clients import Files
from totoms_gcp.errors import translate

_CHUNK: Final = 1024 * 1024
_RESUMED: Final = 3
"""How many times in a row it is asked for the rest before a byte comes."""
_CRC32C: Final = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


class Download(Iterator[bytes]):
    """The chunks of one generation of an object, as they are stored; a whole one is checked against its checksum.

    When the connection breaks it asks for the rest of that generation.

    Args:
        files: The clients.
        bucket: The bucket.
        key: The object.
        told: How errors name the object: the argument `what` of `translate`.
        start: The first byte.
        length: How many bytes at most; None for all.

    Raises:
        NotFound: There is no such object.
    """

    def __init__(self, files: Files, bucket: str, key: str, told: str, start: int, length: int | None) -> None:
        self._files, self._key, self._told = files, key, told
        self._address = f"{files.address}/download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        self._position, self._end = start, None if length is None else start + length
        self._whole = start == 0 and length is None
        self._generation = ""
        self._expected = ""
        self._checksum = google_crc32c.Checksum()
        self._body: Any = None
        self._failures = 0
        try:
            gcs_calls.RETRY(self._open)()
        except api.RequestRangeNotSatisfiable:  # it ends before `start`
            pass
        except Exception as error:
            raise translate(error, told, key) from error

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
        """Give the connection back, or close it where there is more to come."""
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
                f"What came of {self._told} {self._key!r} does not have its checksum.", resource=self._key
            )

    def _open(self) -> None:
        asked = {"alt": "media"} | ({"generation": self._generation} if self._generation else {})
        # Without the second, Google unpacks what is stored compressed, of which ranges and sizes then say nothing.
        headers = {"Accept-Encoding": "gzip"}
        ranged = bool(self._position) or self._end is not None
        if ranged:
            headers["Range"] = f"bytes={self._position}-" + ("" if self._end is None else str(self._end - 1))
        answer = gcs_calls.check(
            self._files.session.get(
                self._address, params=asked, headers=headers, stream=True, timeout=gcs_calls.TIMEOUT,
                hooks={"response": gcs_calls.read_refusal},
            ),
            206 if ranged else 200,  # all of it instead of a part would be taken for that part
        )  # fmt: skip
        self._body = answer
        if not self._generation:
            self._generation = answer.headers.get("X-Goog-Generation", "")
            found = _CRC32C.search(answer.headers.get("X-Goog-Hash", ""))
            self._expected = found[1] if found and self._whole else ""

    def _resume(self, error: Exception) -> None:
        self.close()
        self._failures += 1
        if self._failures > _RESUMED or not self._generation:
            raise translate(error, self._told, self._key) from error
        try:
            gcs_calls.RETRY(self._open)()
        except Exception as failure:
            told = translate(failure, self._told, self._key)
            if isinstance(told, NotFound):
                told = Unavailable(
                    f"It was replaced while it was read: {self._told} {self._key!r}.", resource=self._key
                )
            raise told from failure
