"""From a request head to an ASGI scope, an application, or a WebSocket."""

from __future__ import annotations

import asyncio
import socket
from copy import copy
from typing import Any, Final, NamedTuple

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from totoms.http import private_api
from totoms.http.server.request_heads import Head

_MAPPED = "::ffff:"
_UNAVAILABLE: Final = PlainTextResponse("Service Unavailable", 503, {"connection": "close"})


class Application(NamedTuple):
    """The application that uvicorn serves.

    Attributes:
        app: The application with uvicorn's middleware.
        direct: The same without the middleware for a proxy's headers, which costs as much as parsing a head.
        asgi_version: The ASGI version of the application.
        has_websockets: Whether uvicorn has a class for WebSockets.
    """

    app: ASGIApp
    direct: ASGIApp
    asgi_version: str
    has_websockets: bool

    @classmethod
    def of(cls, config: Config) -> Application:
        """Return the application of a loaded configuration."""
        app = private_api.loaded_app(config)
        version, websocket = private_api.asgi_version_of(config), private_api.websocket_protocol(config)
        return cls(app, private_api.without_proxy_headers(app), version, websocket is not None)

    def for_request(self, head: Head, limit: int | None, server_state: ServerState) -> ASGIApp:
        """Return the application for a request; over the limit, one that responds with 503.

        Args:
            head: The head of the request.
            limit: uvicorn's ``limit_concurrency``, for connections and for requests; None for no limit.
            server_state: uvicorn's record of open connections and running requests.
        """
        if limit is not None and (len(server_state.connections) >= limit or len(server_state.tasks) >= limit):
            return _UNAVAILABLE
        return self.app if head.forwarded else self.direct


class Peer(NamedTuple):
    """The addresses of a connection.

    Attributes:
        server: The server's address and port; on a Unix socket its path and None.
        client: The client's address and port; None on a Unix socket.
        scheme: "http" or "https".
    """

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str

    @classmethod
    def of(cls, transport: asyncio.Transport) -> Peer:
        """Return the addresses of a transport."""
        own, other = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        server: tuple[str, int | None] | None = None
        if isinstance(own, (tuple, list)):
            server = (_unmapped(own[0]), int(own[1]))
        elif isinstance(own, str):
            server = (own, None)
        client = (_unmapped(other[0]), int(other[1])) if isinstance(other, (tuple, list)) else None
        return cls(server, client, "https" if transport.get_extra_info("sslcontext") else "http")


def _unmapped(address: str) -> str:
    """Return `address`; the IPv4 address if it is IPv4-mapped (RFC 4291, section 2.5.5.2)."""
    text = str(address)
    if text.startswith(_MAPPED):
        try:
            socket.inet_aton(text[len(_MAPPED) :])
        except OSError:
            return text
        return text[len(_MAPPED) :]
    return text


def http_scope(head: Head, peer: Peer, root: str, asgi_version: str, app_state: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI scope of a request.

    Args:
        head: The head of the request.
        peer: The addresses of the connection.
        root: uvicorn's ``root_path``.
        asgi_version: The ASGI version of the application.
        app_state: The state from the lifespan.
    """
    return {
        "type": "http",
        "asgi": {"version": asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": peer.server,
        "client": peer.client,
        "scheme": peer.scheme,
        "method": head.method,
        "root_path": root,
        "path": root + head.path,
        "raw_path": root.encode("ascii") + head.raw_path if root else head.raw_path,
        "query_string": head.query,
        "headers": head.headers,
        "state": app_state.copy(),
    }


def open_websocket(
    head: Head,
    rest: bytes,
    transport: asyncio.Transport,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
) -> None:
    """Hand a connection over to uvicorn's WebSocket protocol.

    Args:
        head: The handshake.
        rest: The data received after the handshake.
        transport: The transport of the connection.
        config: uvicorn's configuration.
        server_state: uvicorn's record of open connections and running requests.
        app_state: The state from the lifespan.
    """
    target = head.raw_path + (b"?" + head.query if head.query else b"")
    lines = [b"GET %s HTTP/1.1\r\n" % target, *(b"%s: %s\r\n" % header for header in head.headers), b"\r\n"]
    gated: Any = copy(config)
    gated.loaded_app = _resume_on_answer(private_api.loaded_app(config), transport)
    protocol = private_api.websocket_protocol(config)(config=gated, server_state=server_state, app_state=app_state)
    protocol.connection_made(transport)
    transport.set_protocol(protocol)
    protocol.data_received(b"".join(lines) + rest)
    transport.pause_reading()


def _resume_on_answer(app: ASGIApp, transport: asyncio.Transport) -> ASGIApp:
    """Return `app`, resuming the transport once the handshake is answered.

    Until then uvicorn's wsproto class would buffer without limit.
    """

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def answer(message: Message) -> None:
            nonlocal answered
            await send(message)
            if not answered:
                answered = True
                if not transport.is_closing():
                    transport.resume_reading()

        await app(scope, receive, answer)

    return gated
