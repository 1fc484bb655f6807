"""What ``python -m totoms run`` prints on a terminal once a service answers: its addresses, and how to call it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from totoms.auth.tokens import make_token
from totoms.controller_config import JWT_KEY_SECRET
from totoms.environment import for_development
from totoms.logging.setup import flush_logging
from totoms.secrets.manager import SecretsManager
from totoms.secrets.trimming import strip_ends

if TYPE_CHECKING:
    from totoms.cli.consoles import OpenedConsole
    from totoms.declaration.api import APIEndpoint
    from totoms.declaration.requires import Requires
    from totoms.service import TotoMicroservice

_USER: Final = "me@example.com"
_DOCS: Final = "/docs"
_LIFETIME: Final = 8 * 3600
_LOOK: Final = 0.05
"""Seconds between two looks whether the service has started."""


async def announce(microservice: TotoMicroservice, console: OpenedConsole) -> None:
    """Open the console when the service answers, and print the banner if standard output is a terminal.

    Args:
        microservice: The service.
        console: Its console, which may not be wanted.
    """
    shown = sys.stdout.isatty()
    if not (shown or console.wanted):
        return
    # Polled: an event for this in each service would cost more than it is worth.
    while microservice.state == "starting" or not (url := microservice.url):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
    if microservice.state != "ready":
        return
    address = console.open(microservice)
    text = await banner(microservice, url, address) if shown else f"Console: {address}\n"
    flush_logging()
    sys.stdout.write(text)
    sys.stdout.flush()


async def banner(microservice: TotoMicroservice, url: str, console: str = "") -> str:
    """Return the lines of the banner.

    Args:
        microservice: A service that listens.
        url: Its address.
        console: The address of the console; "" for none.
    """
    configuration = microservice.configuration
    local = for_development(microservice.environment)
    api = configuration.api_configuration
    rows = [("Service", f"{url}{configuration.base_path or ''}")]
    served = any(getattr(route, "path", "") == _DOCS for route in microservice.app.routes)
    if served and (local if api is None or api.docs is None else api.docs):
        rows.append(("Docs", url + _DOCS))
    if console:
        rows.append(("Console", console))
    endpoints = api.api_endpoints if api is not None else []
    if local and endpoints:
        chosen = next((one for one in endpoints if one.method == "GET" and "{" not in one.path), endpoints[0])
        rows.append(("To try it", f"TOKEN={await _token(microservice, endpoints)}"))
        rows.append(("", _curl(chosen, f"{url}{configuration.base_path or ''}{chosen.path}")))
    rows.append(("To stop", "Ctrl-C; what has begun is finished first"))
    return "\n" + "".join(f"  {name:11}{text}\n" for name, text in rows) + "\n"


def _curl(endpoint: APIEndpoint, address: str) -> str:
    method = "" if endpoint.method == "GET" else f"-X {endpoint.method} "
    token = "" if endpoint.public else '-H "Authorization: Bearer $TOKEN" '
    return f"curl {method}{token}{address}"


async def _token(microservice: TotoMicroservice, endpoints: list[APIEndpoint]) -> str:
    """Return a token with every role and scope that an endpoint requires."""
    manager = SecretsManager(microservice.environment)
    key = strip_ends(await manager.get_secret_async(JWT_KEY_SECRET), f"the secret {JWT_KEY_SECRET!r}")
    roles: set[str] = set()
    scopes: set[str] = set()
    for endpoint in endpoints:
        _collect(endpoint.requires, roles, scopes)
    claims: dict[str, Any] = {}
    if roles:
        claims["roles"] = sorted(roles)
    if scopes:
        claims["scope"] = " ".join(sorted(scopes))
    return make_token(key, _USER, _LIFETIME, claims)


def _collect(requires: Requires | None, roles: set[str], scopes: set[str]) -> None:
    if requires is not None:
        roles |= requires.roles
        scopes |= requires.scopes
        for one in requires.any_of:
            _collect(one, roles, scopes)
