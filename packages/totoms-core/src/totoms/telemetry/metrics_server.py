"""The HTTP server that Prometheus reads metrics from. It has a port of its own, and runs in threads."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Protocol

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 16
"""When one more is opened, the oldest is closed: clients that connect and send nothing must not block Prometheus."""
MAX_THREADS: Final = 2 * MAX_CONNECTIONS
"""Connections beyond these are closed at once: those that were closed to make room may still wait for their metrics."""
_TIMEOUT: Final = 10.0
_PAUSE: Final = 0.1
"""Seconds without accepting when the process has no file descriptor left: otherwise a thread would try without end."""


class Source(Protocol):
    """What has metrics."""

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of now."""
        ...


class MetricsServer(socketserver.ThreadingTCPServer):
    """Serves the metrics of a source at `PATH`.

    On a loopback address it answers only requests whose Host header is an address or a local name: a web page can make
    its own name resolve to 127.0.0.1 (DNS rebinding).

    Args:
        host: The address to listen on.
        port: The port.
        source: Has the metrics.
        on_error: Called with an error of the source.

    Raises:
        OSError: The address cannot be listened on, for example because the port is in use.
    """

    allow_reuse_address = True  # connections of a worker that has died do not keep the next one from listening
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, source: Source, on_error: Callable[[Exception], None]) -> None:
        self.source = source
        self._on_error = on_error
        self._open: list[socket.socket] = []
        self._guard = threading.Lock()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, address = found[0][0], found[0][4]
        self.is_loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        super().__init__((str(address[0]), port), _Handler)

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.1,), name="totoms metrics server", daemon=True).start()

    def stop(self) -> None:
        """Stop listening. Blocks for up to 0.1 s."""
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread."""
        with self._guard:
            self._open.append(request)
            surplus = self._open[:-MAX_CONNECTIONS]
            full = len(self._open) > MAX_THREADS
        for connection in surplus:
            _cut(connection)
        if full:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._guard:
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless the client has disconnected or was too slow."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self._on_error(error)


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        assert isinstance(self.server, MetricsServer)
        if self.server.is_loopback and not all(map(_is_local, self.headers.get_all("Host", []))):
            self.send_error(403, explain="The Host header must name this machine.")
            return
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, explain=f"The metrics are at {PATH}.")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.source)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "totoms"

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: Prometheus asks every few seconds."""


def _is_local(host: str) -> bool:
    # As `totoms.http.hosts`: a web page needs a public name, so names with a dot are refused.
    name = re.sub(r":\d*$", "", host.strip()).strip("[]").lower()
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client has disconnected
        connection.shutdown(socket.SHUT_RDWR)  # its thread closes it
