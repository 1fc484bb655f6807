"""Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol).

Starlette answers preflight requests; the headers of other responses are built once, at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from totoms.http.context import CORRELATION_ID
from totoms.http.responses import problem

if TYPE_CHECKING:
    from totoms.declaration.api import CORSConfiguration

RawHeaders = list[tuple[bytes, bytes]]
_VARY: Final = (b"vary", b"Origin")


class CORS:
    """Answers preflight requests and returns the response headers for an origin.

    Args:
        configuration: The rules.
    """

    def __init__(self, configuration: CORSConfiguration) -> None:
        self._any = "*" in configuration.allow_origins
        exposed = ", ".join(dict.fromkeys([CORRELATION_ID, *configuration.expose_headers]))
        expose = (b"access-control-expose-headers", exposed.encode())
        self._for_any: RawHeaders = [(b"access-control-allow-origin", b"*"), expose]
        self._by_origin: dict[bytes, RawHeaders] = {}
        for origin in configuration.allow_origins:
            name = origin.encode("latin-1")
            self._by_origin[name] = [(b"access-control-allow-origin", name), expose, _VARY]
            if configuration.allow_credentials:
                self._by_origin[name].append((b"access-control-allow-credentials", b"true"))
        self._preflights = CORSMiddleware(
            _nothing,
            allow_origins=configuration.allow_origins,
            allow_methods=configuration.allow_methods,
            allow_headers=configuration.allow_headers,
            allow_credentials=configuration.allow_credentials,
            max_age=configuration.max_age,
        )

    def headers(self, origin: bytes | None) -> RawHeaders:
        """Return the CORS headers of a response.

        Args:
            origin: The ``Origin`` header of the request; None without one.
        """
        if self._any:
            return self._for_any
        return self._by_origin.get(origin or b"", [_VARY])

    def preflight(self, scope: Scope) -> Response:
        """Return the response to a preflight request."""
        response = self._preflights.preflight_response(Headers(scope=scope))
        if response.status_code == 200:
            return response
        kept = {name: value for name, value in response.headers.items() if name == "vary"}
        return problem(response.status_code, bytes(response.body).decode(), headers=kept)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Do nothing: CORSMiddleware requires an app, but only answers preflight requests here."""
