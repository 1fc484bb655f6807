"""A deadline for a whole HTTP exchange by urllib, whose own time-out restarts with every byte.

At the deadline the connection is shut down, which ends the exchange.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib.request


class Deadline:
    """Ends an exchange some seconds after the context is entered.

    ::

        with Deadline(5) as deadline:
            urllib.request.build_opener(*deadline.handlers()).open(uri, timeout=5).read()

    Args:
        seconds: The limit for everything: connecting, TLS, sending, the headers and the body.

    Raises:
        TimeoutError: The deadline has passed. It replaces what the exchange raised.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._over = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        """Start the timer."""
        self._until = time.monotonic() + self._seconds
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the timer."""
        self._timer.cancel()
        with self._lock:
            self._sockets.clear()
        if self._over:
            raise TimeoutError("The exchange timed out.") from None

    def handlers(self, trusted: str | None = None) -> list[urllib.request.BaseHandler]:
        """Return handlers for urllib that observe the deadline.

        Args:
            trusted: A file or folder with further certificates to trust.
        """
        deadline = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                self.timeout = deadline.left()
                super().connect()
                deadline.watch(self.sock)

        class Encrypted(http.client.HTTPSConnection):
            def connect(self) -> None:
                self.timeout = deadline.left()
                super().connect()
                deadline.watch(self.sock)

            def _tunnel(self) -> None:  # reads the proxy's answer, before TLS
                deadline.watch(self.sock)
                super()._tunnel()  # type: ignore[misc]
                self.sock.settimeout(deadline.left())

        import urllib.request  # late: it takes longer to load than most of totoms

        class PlainHandler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> Any:
                return self.do_open(Plain, req)

        class EncryptedHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> Any:
                return self.do_open(Encrypted, req, context=context_of(trusted))

        return [PlainHandler(), EncryptedHandler()]

    def left(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            TimeoutError: It has passed.
        """
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("The exchange timed out.")
        return seconds

    def watch(self, connection: socket.socket) -> None:
        """Shut `connection` down at the deadline."""
        with self._lock:
            self._sockets.append(connection)
            if self._over:
                _shut_down(connection)

    def _end(self) -> None:
        with self._lock:
            self._over = True
            for connection in self._sockets:
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown, which would drop the TLS state while a thread reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def context_of(trusted: str | None = None) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificates and those of ``REQUESTS_CA_BUNDLE``.

    ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` replace the system's.

    Args:
        trusted: A file or folder with further certificates.

    Raises:
        OSError: A file does not exist, or has no certificate.
    """
    context = ssl.create_default_context()  # OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR
    for path in (os.environ.get("REQUESTS_CA_BUNDLE"), trusted):
        if path and Path(path).is_dir():
            context.load_verify_locations(capath=path)
        elif path:
            context.load_verify_locations(cafile=path)
    return context
