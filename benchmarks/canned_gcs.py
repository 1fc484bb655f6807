"""A server that answers what Cloud Storage would, without doing anything: so that the client is what is measured.

``python -m benchmarks.canned_gcs`` prints its port. Objects have one content, and what is uploaded goes nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Callable
from typing import Final, cast

import google_crc32c
from benchmarks.files import CONTENT_BYTES

_PIECE: Final = b"0123456789abcdef" * 16384  # 256 KiB
_FIELD: Final = re.compile(rb"\r\n(content-length|content-range|range|x-ms-range): *([^\r]*)", re.IGNORECASE)
_RESOURCE: Final = {"kind": "storage#object", "name": "key", "bucket": "bench-files", "generation": "1"}


def _checksum() -> str:
    found = google_crc32c.Checksum()
    for _ in range(CONTENT_BYTES // len(_PIECE)):
        found.update(_PIECE)
    return base64.b64encode(found.digest()).decode()


_CRC32C: Final = _checksum()


class Connection(asyncio.Protocol):
    """One connection; requests one after the other."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._missing = -1  # bytes of the body that are to come; less than 0: in the head
        self._request: tuple[str, str, dict[bytes, bytes]] = ("", "", {})
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = bytes(self._head[:end]), bytes(self._head[end + 4 :])
            self._head.clear()
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            fields = {name.lower(): value for name, value in _FIELD.findall(head)}
            self._request = method, path, fields
            self._missing = int(fields.get(b"content-length", 0))
        self._missing -= len(data)
        if self._missing <= 0:
            self._missing = -1
            self._answer(*self._request)

    def _answer(self, method: str, path: str, fields: dict[bytes, bytes]) -> None:
        if method == "POST" and "uploadType=resumable" in path:
            host = self._transport.get_extra_info("sockname")[1]
            self._send("200 OK", f"location: http://127.0.0.1:{host}/upload/storage/v1/b/x/o?upload_id=1\r\n")
        elif method == "PUT":
            found = re.fullmatch(rb"bytes (?:\d+-(\d+)|\*)/(\d+|\*)", fields[b"content-range"])
            assert found is not None
            if found[2] == b"*":
                self._send("308 Resume Incomplete", f"range: bytes=0-{found[1].decode()}\r\n")
            else:
                self._send("200 OK", "", {**_RESOURCE, "size": found[2].decode(), "crc32c": _CRC32C})
        elif "alt=media" in path:
            self._send_object(fields.get(b"range", b"").decode())
        else:
            self._send("200 OK", "", {**_RESOURCE, "size": str(CONTENT_BYTES), "crc32c": _CRC32C})

    def _send(self, status: str, headers: str, document: object = None) -> None:
        text = "" if document is None else json.dumps(document)
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n{headers}\r\n"
        self._transport.write((head + text).encode())

    def _send_object(self, span: str) -> None:
        self.send_content(span, f"x-goog-generation: 1\r\nx-goog-hash: crc32c={_CRC32C}\r\n")

    def send_content(self, span: str, headers: str) -> None:
        """Send the content, or the part of it that a header asks for."""
        first, last, status = 0, CONTENT_BYTES - 1, "200 OK"
        if span:
            begin, _, end = span.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
            status = f"206 Partial Content\r\ncontent-range: bytes {first}-{last}/{CONTENT_BYTES}"
        length = last - first + 1
        head = f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\ncontent-type: text/plain\r\n{headers}\r\n"
        self._transport.write(head.encode())
        self._sending = asyncio.ensure_future(self._stream(length))

    async def _stream(self, length: int) -> None:
        while length > 0 and not self._transport.is_closing():
            self._transport.write(_PIECE if length >= len(_PIECE) else _PIECE[:length])
            length -= len(_PIECE)
            await self._writable.wait()


async def serve(ready: Callable[[int], None], connection: type[Connection] = Connection) -> None:
    """Serve on a free port until cancelled."""
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    ready(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(lambda port: print(port, flush=True)))
