"""What stand-ins over HTTP share: a server in threads that stops and starts on its port."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standins.ports import reserve


class HTTPStandIn:
    """Use it with ``with``.

    Args:
        port: Where to listen; 0 for one that is free.
        context: For TLS.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._context = context
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the port it had."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, content = stand_in.answer(self, self.command, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if stand_in._server is None:
                    self.send_header("Connection", "close")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _answer  # noqa: N815

            def log_message(self, *_arguments: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                connections.add(request)
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    connections.discard(request)

        connections: set[Any] = set()
        server = Server(("127.0.0.1", self.port), Handler)
        if self._context is not None:
            server.socket = self._context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_port
        self._server, self._connections = server, connections
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go away: connections end too."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            reserve(self.port)  # or another process may get it before this starts again
            for connection in list(self._connections):
                server.shutdown_request(connection)
            self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content for a request."""
        raise NotImplementedError
