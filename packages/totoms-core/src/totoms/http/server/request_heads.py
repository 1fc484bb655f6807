"""The head of an HTTP/1.1 request: parsed by llhttp, validated by RFC 9112.

llhttp (through httptools) parses heads only. `request_bodies.py` frames bodies, because httptools skips the body of an
upgrade that the server does not accept, merges trailers into the headers and does not limit chunk extensions.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

_RELEVANT: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"expect",
        b"sec-websocket-key",
        b"proxy-connection",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    )
)
_FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto")
# A loose form of RFC 3986, section 3.2.2, with a port: without white space, user information or a path.
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:\[\]%-]*")
_valid_hosts: Final[set[bytes]] = set()
_END: Final = b"\r\n\r\n"
_ONE_HOST: Final = "A request must have exactly one Host header"
_LINE: Final = re.compile(rb"(?:\r\n)*[A-Z-]+ [^ ]+ HTTP/\d\.\d\r\n")
"""A strict request line (RFC 9112, section 3). llhttp also accepts extra spaces, RTSP and ICE."""
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]+)(.*)", re.DOTALL)


class Rejected(Exception):
    """The server rejects a request.

    Attributes:
        status: The status of the response.
        reason: The reason, for the log and the client. It does not quote the request.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Head(NamedTuple):
    """A request without its body.

    Attributes:
        method: The method.
        version: "1.0" or "1.1".
        raw_path: The path as sent.
        path: The path, percent-decoded.
        query: The query string.
        headers: The headers in order, names in lower case.
        length: The Content-Length; 0 without a body, None for a chunked one.
        size: The size of the head in bytes.
        keep_alive: Whether the client keeps the connection open for another request.
        expects_continue: Whether the client waits for 100 Continue before it sends the body.
        websocket: Whether this is a WebSocket handshake (RFC 6455, section 4.2.1).
        forwarded: Whether there are ``X-Forwarded-For`` or ``X-Forwarded-Proto`` headers.
    """

    method: str
    version: str
    raw_path: bytes
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    length: int | None
    size: int
    keep_alive: bool
    expects_continue: bool
    websocket: bool
    forwarded: bool


class HeadReader:
    """Reads heads from a stream of bytes.

    Args:
        limit: The maximum size of a head in bytes.
    """

    __slots__ = ("_complete", "_headers", "_limit", "_line", "_parser", "_relevant", "_size", "_tail", "_target")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parser: HttpRequestParser | None = None
        self._start()

    def _start(self) -> None:
        self._size = 0
        self._tail = b""
        self._line = b""
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._relevant: list[tuple[bytes, bytes]] = []
        self._complete = False

    # --- called by httptools ---

    def on_url(self, piece: bytes) -> None:
        """Append to the request target."""
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        name = name.lower()
        header = (name, value)
        self._headers.append(header)
        if name in _RELEVANT:
            self._relevant.append(header)

    def on_headers_complete(self) -> None:
        """Mark the head as complete."""
        self._complete = True

    def read(self, data: bytes, at: int) -> tuple[Head | None, int]:
        """Parse `data` from `at` to the end of the head, or of `data`.

        Returns:
            The head, or None if it is incomplete; and the position after the last byte that was parsed.

        Raises:
            Rejected: The head is malformed, ambiguous, too large or not supported.
        """
        tail = self._tail
        across = (tail + data[at : at + 3]).find(_END) if tail else -1  # the end may lie across two pieces
        end = at - len(tail) + across if across >= 0 else data.find(_END, at)
        whole = across >= 0 or end >= 0
        end = end + 4 if whole else len(data)
        piece = data[at:end] if at or end < len(data) else data
        self._size += len(piece)
        if self._size > self._limit:
            raise Rejected(431, "The head of the request is too large")
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpRequestParser(self)
        begun = bool(self._headers)
        try:
            parser.feed_data(piece)
        except HttpParserUpgrade:  # an upgrade or CONNECT: httptools cannot parse the next request
            self._parser = None
        except HttpParserError as error:
            raise Rejected(400, f"Invalid HTTP request: {error}") from None
        if not self._complete:
            self._tail = b"" if whole else (tail + piece[-3:])[-3:]
            if not begun:
                self._line += piece
            return None, end
        if not whole:  # llhttp and the search above disagree on where the head ends
            raise Rejected(400, "The end of the head is ambiguous")
        line = self._line + piece if self._line else piece
        # Compare first: nearly all lines are in this form, and the regular expression costs more.
        method = parser.get_method()
        if not line.startswith(b"%s %s HTTP/1.1\r\n" % (method, self._target)) and not _LINE.match(line):
            if parser.get_http_version() == "0.9":
                raise Rejected(505, "The HTTP version is not supported")
            raise Rejected(400, "The request line is malformed")
        head = self._validate(parser, method.decode("ascii"))
        if head.length != 0:
            self._parser = None  # it would parse the body next
        self._start()
        return head, end

    def _validate(self, parser: HttpRequestParser, method: str) -> Head:
        version = parser.get_http_version()
        if version != "1.1" and version != "1.0":
            raise Rejected(505, "The HTTP version is not supported")
        if method == "CONNECT":
            raise Rejected(501, "CONNECT is not supported: this server is not a proxy")
        raw_path, query = self._split_target(method)
        path = raw_path.decode("ascii")
        if b"%" in raw_path:
            path = unquote(path)
        modern = version == "1.1"
        host = length_given = None
        lengths, others, forwarded = 0, False, False
        for name, value in self._relevant:
            if name == b"host":
                if host is not None:  # RFC 9112, section 3.2
                    raise Rejected(400, _ONE_HOST)
                host = value
            elif name == b"content-length":
                length_given = value
                lengths += 1
            elif name == b"proxy-connection":  # llhttp mistakes it for Connection
                self._parser = None
            elif name in _FORWARDED:
                forwarded = True
            else:
                others = True
        if host is not None:
            if host not in _valid_hosts:
                _check_host(host)
        elif modern:
            raise Rejected(400, _ONE_HOST)
        length: int | None = 0 if length_given is None else _length(length_given, lengths)
        keep_alive, expects, websocket = modern, False, False
        if others:
            if codings := [value for name, value in self._relevant if name == b"transfer-encoding"]:
                _check_codings(codings, alone=modern and not lengths)
                length = None
            connection = self._items(b"connection")
            keep_alive = modern and b"close" not in connection
            expects = modern and b"100-continue" in self._items(b"expect")
            websocket = (
                method == "GET"
                and modern
                and length == 0
                and b"upgrade" in connection
                and b"websocket" in self._items(b"upgrade")
                and bool(self._items(b"sec-websocket-key"))
            )
        return Head(
            method,
            version,
            raw_path,
            path,
            query,
            self._headers,
            length,
            self._size,
            keep_alive,
            expects,
            websocket,
            forwarded,
        )

    def _items(self, wanted: bytes) -> list[bytes]:
        """Return the items of a list header, in lower case (RFC 9110, section 5.6.1)."""
        values = [value for name, value in self._relevant if name == wanted]
        return [item for value in values for part in value.split(b",") if (item := part.strip(b" \t").lower())]

    def _split_target(self, method: str) -> tuple[bytes, bytes]:
        """Return path and query of the request target (RFC 9112, section 3.2)."""
        target = self._target
        if not target.isascii() or b"#" in target:
            raise Rejected(400, "The request target is malformed")
        if not target.startswith(b"/"):
            if target == b"*" and method == "OPTIONS":
                return target, b""
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is None or not _HOST.fullmatch(absolute[1]):
                raise Rejected(400, "The request target is malformed")
            # The host of the target replaces the Host header (RFC 9112, section 3.2.2).
            self._headers = [header for header in self._headers if header[0] != b"host"]
            self._headers.insert(0, (b"host", absolute[1]))
            target = absolute[2]
            if not target.startswith(b"/"):
                target = b"/" + target
        path, _, query = target.partition(b"?")
        return path, query


def _check_host(value: bytes) -> None:
    if not _HOST.fullmatch(value.strip(b" \t")):
        raise Rejected(400, "The Host header is malformed")
    if len(_valid_hosts) < 1000 and len(value) < 300:
        _valid_hosts.add(value)


def _length(value: bytes, count: int) -> int:
    """Return the Content-Length; reject more than one (RFC 9112, section 6.3)."""
    value = value.strip(b" \t")
    if count != 1 or not value.isdigit() or len(value) > 20:
        raise Rejected(400, "The Content-Length is malformed")
    return int(value)


def _check_codings(values: list[bytes], *, alone: bool) -> None:
    """Reject every Transfer-Encoding except ``chunked`` (RFC 9112, sections 6.1 to 6.3).

    Args:
        values: The values of the Transfer-Encoding headers.
        alone: Whether this is an HTTP/1.1 request without a Content-Length.
    """
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    # RFC 9110 allows empty items, but some proxies read them differently.
    if not alone or not all(codings) or codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
        raise Rejected(400, "The length of the body is ambiguous")
    if codings != [b"chunked"]:
        raise Rejected(501, "chunked is the only supported transfer coding")
