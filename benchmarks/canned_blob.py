"""A server that answers what Blob Storage would, without doing anything: so that the client is what is measured.

``python -m benchmarks.canned_blob`` prints its port. Blobs have one content, and what is uploaded goes nowhere.
"""

from __future__ import annotations

import contextlib
from typing import Final

from benchmarks.canned_gcs import Connection, serve

_ABOUT: Final = (
    'etag: "0x1"\r\nlast-modified: Sat, 28 Nov 2026 12:00:00 GMT\r\nx-ms-blob-type: BlockBlob\r\nx-ms-request-id: 1\r\n'
)


class BlobConnection(Connection):
    """One connection; requests one after the other."""

    def _answer(self, method: str, path: str, fields: dict[bytes, bytes]) -> None:
        if method == "PUT":
            self._transport.write(f"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n{_ABOUT}\r\n".encode())
        else:
            self.send_content(fields.get(b"x-ms-range", b"").decode(), _ABOUT)


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(lambda port: print(port, flush=True), BlobConnection))
