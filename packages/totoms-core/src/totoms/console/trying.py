"""Call an endpoint of a service from the console, on development backends only."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from totoms.auth.tokens import make_token
from totoms.console.model import Console
from totoms.console.views import Service
from totoms.controller_config import JWT_KEY_SECRET
from totoms.errors import NotFound, Unsupported
from totoms.secrets.manager import SecretsManager
from totoms.secrets.trimming import strip_ends

_MOST_SHOWN: Final = 64 * 1024
_PATIENCE: Final = 30.0
_LIFETIME: Final = 300


@dataclass(frozen=True)
class Answer:
    """The answer to a call.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        headers: The headers.
        text: The beginning of the body.
    """

    status: int
    headers: list[tuple[str, str]]
    text: str


async def call(
    console: Console,
    service: Service,
    method: str,
    path: str,
    *,
    values: dict[str, str],
    query: str,
    body: str,
    user: str,
) -> Answer:
    """Call an endpoint of a service and return its answer.

    Args:
        console: The console.
        service: The service.
        method: The method of a declared endpoint.
        path: Its path, as it is declared.
        values: The values of the parameters in the path.
        query: The query, without the question mark.
        body: The body; JSON.
        user: Who calls; "" for a call without a token.

    Raises:
        NotFound: There is no such endpoint.
        Unsupported: The backend is not one for development, or the console may only show.
    """
    if not console.development or not service.development:
        raise Unsupported("Calls can be tried on a backend for development only.")
    if method != "GET" and not console.write:
        raise Unsupported("The console only shows: start it with --write to try calls that may change something.")
    endpoint = next(
        (one for one in service.manifest["endpoints"] if (one["method"], one["path"]) == (method, path)), None
    )
    if endpoint is None:
        raise NotFound(f"{service.name} has no endpoint {method} {path}.")
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", quote(value, safe="")).replace(f"{{{name}:path}}", quote(value))
    url = f"{service.url}{path}{f'?{query}' if query else ''}"
    headers = {"Content-Type": "application/json"} if body else {}
    if user:
        headers["Authorization"] = f"Bearer {await _token(console, endpoint, user)}"
    return await asyncio.to_thread(_send, method, url, headers, body.encode() if body else None)


async def _token(console: Console, endpoint: dict[str, Any], user: str) -> str:
    manager = SecretsManager(console.environment)
    key = strip_ends(await manager.get_secret_async(JWT_KEY_SECRET), f"the secret {JWT_KEY_SECRET!r}")
    requires = endpoint["requires"] or {}
    first = requires.get("any_of", [{}])[0]
    roles = [*requires.get("roles", []), *first.get("roles", [])]
    scopes = [*requires.get("scopes", []), *first.get("scopes", [])]
    claims: dict[str, Any] = {**({"roles": roles} if roles else {}), **({"scope": " ".join(scopes)} if scopes else {})}
    return make_token(key, user, _LIFETIME, claims)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow no redirect: it could lead the token elsewhere."""


def _send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the service's own address
    opener = urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            return Answer(answer.status, answer.getheaders(), _text(answer.read(_MOST_SHOWN)))
    except urllib.error.HTTPError as error:
        return Answer(error.code, list(error.headers.items()), _text(error.read(_MOST_SHOWN)))
    except (OSError, ValueError) as error:
        return Answer(0, [], f"The service does not answer: {error}")


def _text(body: bytes) -> str:
    text = body.decode("utf-8", "backslashreplace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
