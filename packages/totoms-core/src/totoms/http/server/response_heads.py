"""The head of an HTTP/1.1 response: serialization and validation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_WITHOUT_BODY: Final = (204, 304)
_SPECIAL: Final = (b"content-length", b"transfer-encoding", b"connection")
_plain_names: Final[set[bytes]] = set()
_lines: Final[dict[int, bytes]] = {}
_last: tuple[list[tuple[bytes, bytes]], bytes] = [], b""
"""The headers of every response that were joined last, and their lines."""
_EOL: Final = b"\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ResponseHead:
    """The status line and headers of a response.

    Attributes:
        data: The bytes to send.
        left: Bytes of body that must follow; None if unknown.
        chunked: Whether the body is sent in chunks.
        bodiless: Whether the body is left out: for HEAD, 204 and 304.
        close: Whether the connection closes after the response.
    """

    __slots__ = ("bodiless", "chunked", "close", "data", "left")

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        defaults: list[tuple[bytes, bytes]],
        method: str,
        version: str,
        close: bool,
    ) -> None:
        # Join once: joining each line first costs a third more.
        pieces = [_lines.get(status) or _status_line(status), _joined(defaults)]
        self.bodiless = method == "HEAD" or status in _WITHOUT_BODY
        self.left: int | None = None
        self.chunked = False
        announced = False
        for name, value in headers:
            lower = name.lower()
            if lower not in _plain_names:
                if lower == b"content-length":
                    if status == 204:  # RFC 9110, section 8.6
                        continue
                    _check_length(value, first=self.left is None)
                    self.left = int(value)
                elif lower == b"transfer-encoding":
                    continue  # the server decides
                elif lower == b"connection":
                    if b"close" in value.lower():
                        close = announced = True
                    elif close:
                        continue
                else:
                    _check_name(lower)
            pieces += (lower, b": ", value, _EOL)
        if self.left is None and not self.bodiless:
            if version == "1.0":
                close = True  # closing the connection ends the body
            else:
                self.chunked = True
                pieces += (b"transfer-encoding", b": ", b"chunked", _EOL)
        if self.bodiless:
            self.left = 0
        if close and not announced:
            pieces += (b"connection", b": ", b"close", _EOL)
        self.close = close
        count = len(pieces) // 4 + 2 + len(defaults)
        pieces.append(_EOL)
        data = self.data = b"".join(pieces)
        # Cheaper than checking each header, and enough for nearly all responses.
        if data.count(b"\n") != count or data.count(b"\r") != count or b"\0" in data:
            check_headers(headers)


def _joined(defaults: list[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of the headers of every response. uvicorn makes a new list each second, for the date."""
    global _last
    known, lines = _last
    if known is not defaults:
        lines = b"".join(b"%s: %s\r\n" % header for header in defaults)
        _last = defaults, lines
    return lines


def check_status(status: int) -> None:
    """Check the status of a response.

    Raises:
        ValueError: It is not between 200 and 999. After an interim status (RFC 9110, section 15.2) the client would
            take the next response for this one.
    """
    if not 200 <= status <= 999:
        raise ValueError(f"The status of a response must be between 200 and 999, not {status}.")


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check the headers of a response (RFC 9110, section 5).

    Raises:
        ValueError: A name is not a token; a value has a control character such as CR or LF, which would inject a header
            or a response; or the Content-Length is malformed or repeated. The message never quotes a value.
    """
    measured = False
    for name, value in headers:
        _check_name(name)
        if name.lower() == b"content-length":
            _check_length(value, first=not measured)
            measured = True
        if _FORBIDDEN.search(value):
            raise ValueError(f"The response header {name.decode()!r} has a control character, such as CR or LF.")


def _status_line(status: int) -> bytes:
    check_status(status)
    line = _lines[status] = b"HTTP/1.1 %d %s\r\n" % (status, _PHRASES.get(status, b""))
    return line


def _check_length(value: bytes, *, first: bool) -> None:
    # A client and a proxy could each pick a different length (RFC 9112, section 6.3).
    if not first or not value.isdigit():
        raise ValueError("A response must have at most one Content-Length, a decimal number.")


def _check_name(name: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"The response has a malformed header name: {name!r}.")
    if len(_plain_names) < 1000 and name not in _SPECIAL:
        _plain_names.add(name)


def error_response(status: int, text: str, defaults: list[tuple[bytes, bytes]]) -> bytes:
    """Return a complete response with ``Connection: close``.

    Args:
        status: The status.
        text: The body, as plain text.
        defaults: Headers of every response.
    """
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    head = ResponseHead(status, headers, defaults, "GET", "1.1", True)
    return head.data + body
