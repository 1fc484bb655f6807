"""A proxy before Azurite that fails on command: it refuses requests, loses answers, damages bodies; and it counts."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Fault:
    """What becomes of the next requests that it is about.

    Attributes:
        method: Theirs.
        has: What is in their path and query, such as ``comp=blocklist``; ``!`` before it for what is not.
        times: How many of them are left.
        status: Answered with in the server's place, with `code` as the storage's own code.
        drop: The connection is closed, and the server is not asked.
        lose: The server is asked, and its answer is lost with the connection.
        cut: Bytes of the answer's body that come before the connection is closed.
        before: Called before the server is asked.
    """

    method: str
    has: str = ""
    times: int = 1
    status: int = 0
    code: str = ""
    drop: bool = False
    lose: bool = False
    cut: int = -1
    before: Callable[[], object] | None = None

    def is_about(self, method: str, path: str) -> bool:
        wanted = self.has.removeprefix("!")
        return self.times > 0 and method == self.method and (wanted in path) != (wanted != self.has)


class BlobProxy:
    """Use it with ``with``.

    Args:
        target: The server's port.

    Attributes:
        port: Where it listens.
        faults: What is to go wrong; the first that is about a request is it.
        asked: Method and path of each request, as they came.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.pass_on(self, body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

            def log_message(self, *_arguments: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, method: str, has: str = "") -> int:
        """Return how many requests came with that method, and `has` in their path or query."""
        return sum(asked == method and has in path for asked, path in self.asked)

    def pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer a request."""
        with self._guard:
            self.asked.append((request.command, request.path))
            fault = next((one for one in self.faults if one.is_about(request.command, request.path)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None and fault.before is not None:
            fault.before()
        if fault is not None and fault.drop:
            raise ConnectionAbortedError
        if fault is not None and fault.status:
            content = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>x</Message></Error>".encode()
            headers = [("x-ms-error-code", fault.code), ("Content-Type", "application/xml")]
            self._write(request, fault.status, headers, content, -1)
            return
        status, headers, content = self._ask(request, body)
        if fault is not None and fault.lose:
            raise ConnectionAbortedError
        self._write(request, status, headers, content, -1 if fault is None else fault.cut)

    def _ask(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        try:
            server.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def _write(
        self, request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes, cut: int
    ) -> None:
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "keep-alive"):
                request.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", "0")
        request.send_header("Content-Length", length if request.command == "HEAD" else str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content if cut < 0 else content[:cut])
        if cut >= 0:
            raise ConnectionAbortedError
