"""Where SNS's certificates come from, on this machine: a server with TLS for SNS's name, and a proxy that leads there.

The SDK's own variables lead there: ``HTTPS_PROXY`` names the proxy, and ``AWS_CA_BUNDLE`` the test's certificate
authority. So what is tested is what runs, down to the sockets.
"""

from __future__ import annotations

import contextlib
import http.server
import select
import socket
import ssl
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme


class CertificateServer:
    """Answers ``https://{host}/...`` with what `pages` says. Use it as a context manager.

    Args:
        host: SNS's name.
        folder: For the certificate of the authority.
        certified: To whom its own certificate, that of the connection, is made out, if not to `host`.
        until: When that one ends, if not in years.

    Attributes:
        pages: From a path to a status and a body; others are 404.
        asked: The paths that were asked for.
        tunnels: Where the proxy was asked to lead.
        arrived: Set when something was asked for.
        hold: Cleared, answers are kept back until it is set.
        away: Connections are refused, in so far as the proxy closes them.
        variables: With which the SDK finds its way here.
    """

    def __init__(self, host: str, folder: Path, *, certified: str = "", until: datetime | None = None) -> None:
        self.host = host
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.tunnels: list[str] = []
        self.arrived = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.away = False
        authority = trustme.CA()
        bundle = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(bundle))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified or host, not_after=until).configure_cert(context)
        standin = self

        class Handler(_Pages):
            server_of = standin

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._proxy = socket.create_server(("127.0.0.1", 0))
        self.variables = {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._proxy.getsockname()[1]}",
            "NO_PROXY": "127.0.0.1",
            "AWS_CA_BUNDLE": str(bundle),
        }

    def __enter__(self) -> CertificateServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hold.set()
        with contextlib.suppress(OSError):
            self._proxy.shutdown(socket.SHUT_RDWR)
        self._proxy.close()
        self._server.shutdown()
        self._server.server_close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._proxy.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            target = head.split(b" ")[1].decode()
            self.tunnels.append(target)
            if self.away or target != f"{self.host}:443":
                return
            with socket.create_connection(self._server.server_address[:2]) as upstream:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _copy(connection, upstream)


def _copy(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [])[0]:
            piece = ready.recv(65536)
            if not piece:
                return
            (other if ready is one else one).sendall(piece)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Pages(http.server.BaseHTTPRequestHandler):
    server_of: CertificateServer

    def do_GET(self) -> None:
        """Answer as `pages` says."""
        self.server_of.asked.append(self.path)
        self.server_of.arrived.set()
        self.server_of.hold.wait(120)
        status, body = self.server_of.pages.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if status in (301, 302, 307):
            self.send_header("location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
