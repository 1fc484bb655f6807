"""Uploading an object to Cloud Storage in a resumable session.

The session has its own address. It reports how much has arrived, and answers the same if its last part is sent again,
so a lost answer leaves no doubt. The protocol:
https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import base64
import contextlib
import time
from typing import Any, BinaryIO, Final, cast

import google_crc32c
from google.api_core import exceptions as api

from totoms.errors import Unavailable
from totoms.plugin import fill
from totoms_gcp import clients
from totoms_gcp.errors import is_transient, mapped_errors

PART: Final = 16 * 1024 * 1024
"""Bytes held in memory and sent in one request; Google wants a multiple of 256 KiB, and advises 8 MiB or more."""
_PIECE: Final = 1024 * 1024
_RESUME_INCOMPLETE: Final = 308
_SESSION_GONE: Final = (404, 410)
_CANCEL_SECONDS: Final = 5.0


class Upload:
    """Uploads a source to its end.

    Args:
        files: The clients.
        blob: The object, with its metadata.
        about: How errors name the object: arguments of `translate`.
        content_type: Its media type.
        generation: The generation that the object must have when the upload completes; 0 for none, None for any.
    """

    def __init__(
        self, files: clients.Files, blob: Any, about: tuple[str, str], content_type: str, generation: int | None
    ) -> None:
        self._session, self._about = files.session, about
        with mapped_errors(*self._about):
            self._address: str = blob.create_resumable_upload_session(
                content_type=content_type,
                client=files.client,
                timeout=clients.TIMEOUT,
                checksum=None,
                if_generation_match=generation,
                retry=clients.RETRY,
            )
        self._checksum = google_crc32c.Checksum()
        self._kept = 0
        self._made: dict[str, Any] | None = None

    def send(self, first: bytes, source: BinaryIO) -> str:
        """Send `first` and then what `source` has; return the generation. What `source` raises passes through."""
        try:
            # All parts use the same memory: new memory would have to be cleared each time.
            memory = bytearray(PART)
            offset, ahead = 0, first
            while self._made is None:
                memory[: len(ahead)] = ahead
                self._add(ahead)
                with memoryview(memory) as view:
                    filled = len(ahead) + fill(view[len(ahead) :], source, _PIECE, self._add)
                    ahead = source.read(1) if filled == PART else b""
                    self._send_part(view[:filled], offset, last=not ahead)
                offset += filled
        except BaseException:
            with contextlib.suppress(Exception):  # the session ends by itself within a week
                self._session.delete(self._address, timeout=_CANCEL_SECONDS)
            raise
        return str(self._made["generation"])

    def _add(self, piece: bytes | memoryview) -> None:
        self._checksum.update(bytes(piece))  # it accepts bytes only

    def _send_part(self, part: memoryview, offset: int, *, last: bool) -> None:
        end = offset + len(part)
        total = str(end) if last else "*"
        pauses = clients.pauses()
        with mapped_errors(*self._about):
            while self._made is None and (self._kept < end or last):
                before = self._kept
                rest = part[before - offset :]
                span = f"bytes {before}-{end - 1}/{total}" if rest else f"bytes */{total}"
                failure = self._try(rest or b"", span, total, last)
                if not offset <= self._kept <= end:
                    raise self._lost() from failure
                if self._kept > before:
                    pauses = clients.pauses()  # it continues, however long it takes
                elif self._made is None:
                    pause = next(pauses, None)
                    if pause is None:
                        raise failure or api.ServiceUnavailable("Cloud Storage does not keep what is sent.")
                    time.sleep(pause)

    def _try(self, body: memoryview | bytes, span: str, total: str, last: bool) -> Exception | None:
        """Send something, and note how much has arrived; return the error if another try may succeed."""
        try:
            self._take(self._put(body, span, last))
        except Exception as error:
            if not is_transient(error):
                raise
            clients.RETRY(lambda: self._take(self._put(b"", f"bytes */{total}")))()
            return error
        return None

    def _put(self, body: memoryview | bytes, span: str, last: bool = False) -> Any:
        headers = {"Content-Range": span}
        if last:
            headers["X-Goog-Hash"] = f"crc32c={base64.b64encode(cast(bytes, self._checksum.digest())).decode()}"
        answer = self._session.put(
            self._address, data=body, headers=headers, timeout=clients.TIMEOUT, allow_redirects=False
        )
        if answer.status_code in _SESSION_GONE:
            raise self._lost() from api.from_http_response(answer)
        return clients.check(answer, 200, 201, _RESUME_INCOMPLETE)

    def _lost(self) -> Unavailable:
        return Unavailable(f"Cloud Storage lost the upload of {self._about[1]!r}.", resource=self._about[1])

    def _take(self, answer: Any) -> None:
        if answer.status_code == _RESUME_INCOMPLETE:
            received = answer.headers.get("Range")
            self._kept = int(received.rpartition("-")[2]) + 1 if received else 0
        else:
            self._made = answer.json()
