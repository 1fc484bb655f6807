"""HTTP/1.1 on a socket, for uvicorn's server.

The protocol handles one request at a time: it parses the head, frames the body and runs the application; pipelined
requests wait. A connection is in one `State`, which has a deadline (`states.py`).
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from totoms.http.server.channel import Channel
from totoms.http.server.exchange import Exchange
from totoms.http.server.request_bodies import ChunkedBody, sized_body
from totoms.http.server.request_heads import Head, HeadReader, Rejected
from totoms.http.server.response_heads import error_response
from totoms.http.server.scopes import Application, Peer, http_scope, open_websocket
from totoms.http.server.states import BLOCKED, BODY, CLOSED, DISCARD, HEAD, IDLE, UPGRADED, WORK

_HIGH_WATER: Final = 64 * 1024
"""Unread bytes, of a body or of pipelined requests, over which reading pauses."""
_LINGER: Final = 2.0
"""Seconds that a client has to read the response once the limit for discarding is reached."""
_logger = logging.getLogger("uvicorn.error")


class HTTPProtocol(Channel, asyncio.Protocol):
    """A connection. uvicorn's server creates it and calls `shutdown`.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's record of open connections and running requests.
        app_state: The state from the lifespan.
        _loop: The event loop; its clock is used for deadlines.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        super().__init__(_loop or asyncio.get_running_loop(), server_state)
        self._config = config
        self._app_state = app_state
        self._application = Application.of(config)
        self._peer: Peer
        self._context = copy_context()  # each request starts with the server's context variables
        self._heads = HeadReader(self.shared.limits.max_header_bytes)
        self._data, self._at = b"", 0
        self._discardable = 0
        # The current request.
        self._exchange: Exchange | None = None
        self._length: int | None = 0
        self._keep_alive = True

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection; reject it with 503 if there are too many."""
        self._open(transport)  # type: ignore[arg-type]
        self._peer = Peer.of(self._transport)
        connections = self._server_state.connections
        room = len(connections) < self.shared.max_connections or self.shared.make_room(connections, self.since)
        connections.add(self)  # type: ignore[arg-type]
        self._enter(HEAD)
        if not room:
            self._reject(Rejected(503, "Too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that the client disconnected."""
        self._server_state.connections.discard(self)
        self.shared.discard_ends(self)
        self._enter(CLOSED)
        self._stop_timer()
        self._outbox.drop()
        self._outbox.unblock()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        self._data = b""

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._outbox.block()
        self._update_state()

    def resume_writing(self) -> None:
        """Write again."""
        self._outbox.unblock()
        if self._exchange is not None and self._exchange.complete:
            self._after_response()
        else:
            self._update_state()

    def data_received(self, data: bytes) -> None:
        """Process what the client sent."""
        if self.state is DISCARD and self._exchange is None:
            self._discard(len(data))
            return
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        self._advance()

    def shutdown(self) -> None:
        """Close after the current response. uvicorn's server calls it."""
        if self._exchange is None or self.state is DISCARD:
            self.close()
        else:
            self._keep_alive = False

    # --- reading ---

    def _advance(self) -> None:
        """Process the received data: heads and bodies, until a pipelined request has to wait."""
        try:
            while self._at < len(self._data):
                exchange = self._exchange
                if self._ended:
                    self._at = len(self._data)
                elif exchange is None:
                    self._read_head()
                elif not exchange.body.complete:
                    self._read_body(exchange)
                else:
                    # A pipelined request waits. Keep reading, or the client's disconnect goes unnoticed.
                    if len(self._data) - self._at > _HIGH_WATER:
                        self._pause()
                    return
            self._data, self._at = b"", 0  # free the memory of an idle connection
        except Rejected as rejection:
            _logger.warning("%s.", rejection.reason)
            self._reject(rejection)

    def _read_head(self) -> None:
        head, self._at = self._heads.read(self._data, self._at)
        if head is not None:
            self._begin(head)
        elif self.state is not HEAD:
            self._enter(HEAD)

    def _begin(self, head: Head) -> None:
        """Start the application on a request."""
        if head.websocket and self._application.has_websockets:
            self._upgrade(head)
            return
        length = self._length = head.length
        self._keep_alive = head.keep_alive
        body = ChunkedBody(self.shared.limits.max_header_bytes - head.size) if length is None else sized_body(length)
        root, version = self._config.root_path, self._application.asgi_version
        scope = http_scope(head, self._peer, root, version, self._app_state)
        piece = b""
        if length and length <= _HIGH_WATER and len(self._data) - self._at >= length:
            # Most bodies arrive with their head; another round of the loop would cost 3 % of a request.
            piece, self._at = body.feed(self._data, self._at)
        expects = head.expects_continue and not body.complete
        exchange = self._exchange = Exchange(self, self._outbox, scope, body, piece, expects)
        if self._left:
            self._restore_deadlines()
        self._enter(BLOCKED if self._outbox.blocked else WORK)  # the last response may still be pending
        tasks = self._server_state.tasks
        app = self._application.for_request(head, self._config.limit_concurrency, self._server_state)
        tasks.add(task := self._loop.create_task(exchange.run(app), context=self._context.copy()))
        task.add_done_callback(tasks.discard)

    def _upgrade(self, head: Head) -> None:
        self._enter(UPGRADED)
        self._stop_timer()
        self._outbox.flush()
        self._server_state.connections.discard(self)
        rest, self._data, self._at = self._data[self._at :], b"", 0
        around = (self._transport, self._config, self._server_state, self._app_state)
        self._context.run(open_websocket, head, rest, *around)

    def _read_body(self, exchange: Exchange) -> None:
        at = self._at
        piece, self._at = exchange.body.feed(self._data, at)
        exchange.expects_continue = False
        if self.state is DISCARD:
            self._discard(self._at - at)
            if exchange.body.complete:
                self._after_response()
        elif not exchange.complete:
            if not exchange.body.complete:
                self._extend(BODY, self._at - at)
            exchange.add(piece)
            if exchange.size > _HIGH_WATER:
                self._pause()
            if self.state is BODY:
                self._update_state()

    def _discard(self, count: int) -> None:
        """Count discarded bytes. At the limit, stop reading and give the client a moment to read the response."""
        self._discardable -= count
        if self._discardable < 0 and self._reading:
            self._pause()
            assert self._due is not None
            self._set_deadline(min(self._due, self._loop.time() + _LINGER))

    # --- called by the exchange ---

    def on_demand(self) -> None:
        """Read more: the application has read something, or has started or stopped waiting for the body."""
        if self.state is not DISCARD and not self._ended:
            self._resume()
            self._update_state()

    def response_options(self) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Return whether the connection closes after this response, and the headers of every response.

        It closes if the rest of the request may never arrive: a chunked body has no known length, and a client that
        waits for 100 Continue need not send its body after a final response (RFC 9110, section 10.1.1).
        """
        exchange = self._exchange
        if exchange is not None and not exchange.body.complete:
            length = self._length
            if length is None or exchange.expects_continue or length > self.shared.max_body_bytes:
                self._keep_alive = False
        return not self._keep_alive or self.shared.winding_down, self._server_state.default_headers

    def on_complete(self) -> None:
        """Continue after a complete response: with the rest of the body, the next request, or the close."""
        self._server_state.total_requests += 1
        # Do not flush: at the end of the turn, the responses of all connections go out together, and clients wake once
        # instead of one by one (10 % of a request's CPU).
        if self._outbox.blocked:
            self._pause()
            self._update_state()
        else:
            self._after_response()

    def abort(self, *, detectable: bool) -> None:
        """Close the connection in the middle of a response; reset it if the client could not tell."""
        self._exchange = None
        self.close() if detectable else self.reset()

    # --- state transitions ---

    def _update_state(self) -> None:
        """Enter the state of the current request: `BLOCKED`, `BODY` or `WORK`."""
        exchange = self._exchange
        if exchange is None or self._ended or self.state is DISCARD:
            return
        state = BLOCKED if self._outbox.blocked else BODY if exchange.waits_for_body else WORK
        if state is not self.state:
            self._enter(state)

    def _after_response(self) -> None:
        exchange = self._exchange
        if exchange is None or self._ended:
            return
        keep = self._keep_alive and not exchange.close
        if exchange.body.complete:
            if self.state is DISCARD:
                self.shared.discard_ends(self)
            self._exchange = None
            if keep:
                self._enter(IDLE)
                if not self._reading:
                    self._resume()
                if self._at < len(self._data):
                    self._advance()
            else:
                self.close()
        elif self.state is not DISCARD:
            self._begin_to_discard(self._length, keep=keep)

    def _begin_to_discard(self, length: int | None, *, keep: bool) -> None:
        if not keep:
            # No request follows, so the rest is counted and not parsed.
            self._exchange = None
            self._data, self._at = b"", 0
            self._outbox.flush()
            if self._transport.can_write_eof():
                self._transport.write_eof()
        self._discardable = self.shared.discardable(length)
        self._enter(DISCARD)
        self._resume()
        self.shared.discard_begins(self)
        if keep:
            self._advance()

    def _reject(self, rejection: Rejected) -> None:
        """Send an error response, and close once the client has had time to read it."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        if self._ended or (exchange is not None and exchange.started):
            self.close()  # an error response would become part of the response that has started
            return
        self._outbox.write(error_response(rejection.status, rejection.reason, self._server_state.default_headers))
        self._begin_to_discard(None, keep=False)
