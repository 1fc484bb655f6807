"""What `requires` costs a request: microseconds of this process per call of the app, without sockets.

``python -m benchmarks.requires`` calls three endpoints of one service in turn, round after round, and prints medians,
and the median of the ratios within a round: so what else the machine does meets all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    Requires,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.testing import TestMicroservice

KEY: Final = "a signing key for benchmarks only, long enough"
CALLS, ROUNDS = 50, 1200
GOAL: Final = 1.03


@toto_delegate
async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"item": 1}


NEEDED: Final = {
    "without": None,
    "scopes and a role": Requires(scopes={"posts:read", "posts:write"}, roles={"admin"}),
    "one of two alternatives": Requires(any_of=[Requires(roles={"owner"}), Requires(roles={"admin"})]),
}


def configuration() -> TotoMicroserviceConfiguration:
    endpoints = [
        APIEndpoint(method="GET", path=f"/{place}", delegate=item, requires=requires)
        for place, requires in enumerate(NEEDED.values())
    ]
    return TotoMicroserviceConfiguration(
        service_name="bench", api_configuration=APIConfiguration(api_endpoints=endpoints)
    )


async def call(app: Any, scope: dict[str, Any], statuses: list[int]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    for _ in range(CALLS):
        await app({**scope, "headers": list(scope["headers"])}, receive, send)


async def measure() -> dict[str, list[float]]:
    """Return microseconds per call, by what is required, in each round."""
    claims = {"roles": ["admin"], "scope": "posts:read posts:write"}
    token = make_token(KEY, "me@example.com", claims=claims)
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    spent: dict[str, list[float]] = {name: [] for name in NEEDED}
    async with TestMicroservice(configuration(), secrets={"jwt-signing-key": KEY}) as service:
        for _ in range(ROUNDS):
            for place, name in enumerate(NEEDED):
                path = f"/{place}"
                scope = {
                    "type": "http",
                    "method": "GET",
                    "scheme": "http",
                    "path": path,
                    "raw_path": path.encode(),
                    "query_string": b"",
                    "root_path": "",
                    "headers": headers,
                }
                statuses: list[int] = []
                started = time.process_time()
                await call(service.microservice.app, scope, statuses)
                spent[name].append((time.process_time() - started) / CALLS * 1e6)
                if set(statuses) != {200}:
                    raise SystemExit(f"{name}: {set(statuses)}")
    return spent


def main() -> int:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):  # each request writes its line
        found = asyncio.run(measure())
    for name, spent in found.items():
        ratio = median(one / plain for one, plain in zip(spent, found["without"], strict=True))
        print(f"{name:<26}{median(spent):8.2f} µs per call   {ratio:.3f}")
        if name != "without":
            print(f"GOAL {ratio:.3f} <= {GOAL} a call that requires {name}, of one that requires nothing")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
