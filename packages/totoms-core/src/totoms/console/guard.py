"""Authenticate requests to the console.

Only the person who started the console may use it, from a browser or from another service. Requests with a foreign Host
or Origin are refused, so that other sites cannot use it through links, forms or DNS rebinding.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser sends the Origin "null" with a form
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_SAFE: Final = ("GET", "HEAD")


class Guard:
    """Lets a request through if it has the token and is from the console's own pages.

    Args:
        app: What it guards.
        token: The token.
        port: The port of the console.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"totoms_console_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method = Headers(scope=scope), scope["method"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return _refused("The Host header must name this console.")
        origins = headers.getlist("origin")
        if any(origin not in {f"http://{host}" for host in self._hosts} for origin in origins):
            return _refused("The request is from another site.")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refused("The request is from another site.")
        if self._is_process(headers):
            return None
        if scope["path"] == "/" and method == "GET" and (given := _given(scope)):
            return self._enter(given)
        if not self._has_cookie(headers):
            return _refused("Open the address that was printed when the console started: it has the token.")
        if method not in _SAFE and not origins:
            return _refused("A change needs the header Origin.")
        return None

    def _enter(self, given: str) -> Response:
        if not self._matches(given):
            return _refused("The token is not that of this console.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer

    def _is_process(self, headers: Headers) -> bool:
        # A browser cannot send this header to another origin without a preflight, which is refused.
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and self._matches(token)

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            found = SimpleCookie("; ".join(headers.getlist("cookie"))).get(self._cookie)
        except CookieError:
            return False
        return found is not None and self._matches(found.value)

    def _matches(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _given(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _refused(text: str) -> Response:
    return PlainTextResponse(f"{text}\n", 403)
