"""What masking secrets costs a request: one that is logged, app-only, with eight secrets read.

``python -m benchmarks.masking`` prints the CPU time of a request with masking and without it, in turn, the least of
many rounds; and of masking single lines.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import time
from collections.abc import Callable
from typing import Any

from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.http import request_log
from totoms.logging.formats import JSONFormatter
from totoms.logging.handler import BatchHandler
from totoms.logging.masking import mask, mask_again, remember_secret
from totoms.testing import TestMicroservice

LINES = {
    "a line of a request": "GET /blog/posts 200 0.4 ms",
    "a line of a service": "Stored the post 'A day in spring' for me@example.com: 3 tags, 1,204 characters",
    "a line with an address": "Calling https://api.example.com/v1/items?page=3&size=50 took 12 ms",
}


@toto_delegate
async def read_posts(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, int]:
    return {"posts": 3}


async def measure(requests: int, rounds: int) -> dict[str, float]:
    """Return the least CPU time of a request in µs, with and without masking."""
    api = APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/posts", delegate=read_posts)])
    configuration = TotoMicroserviceConfiguration(service_name="blog", base_path="/blog", api_configuration=api)
    ways: dict[str, Callable[[str], str]] = {"with": mask_again, "without": lambda text: text}
    best = dict.fromkeys(ways, float("inf"))
    async with TestMicroservice(configuration) as service:
        for number in range(8):
            remember_secret(("benchmark", number), f"secret-value-{number}-of-a-service".encode())
        key = service.microservice.config.jwt_key
        assert key is not None
        headers = [(b"authorization", b"Bearer " + make_token(key, "me").encode()), (b"host", b"localhost")]

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None: ...

        async def ask() -> None:
            scope = {"type": "http", "method": "GET", "path": "/blog/posts", "headers": headers, "query_string": b""}
            await service.microservice.app(scope, receive, send)

        for _ in range(rounds):
            for name, way in ways.items():
                request_log.mask_again = way
                began = time.process_time()
                for _ in range(requests):
                    await ask()
                best[name] = min(best[name], (time.process_time() - began) / requests * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=20)
    parsed = parser.parse_args()
    handler = BatchHandler(io.StringIO())
    handler.setFormatter(JSONFormatter())
    logging.getLogger().addHandler(handler)
    logging.getLogger("totoms").setLevel(logging.INFO)
    best = asyncio.run(measure(parsed.requests, parsed.rounds))
    share = (best["with"] / best["without"] - 1) * 100
    print(f"a request, logged: {best['with']:.2f} µs; without masking: {best['without']:.2f} µs ({share:+.1f} %)")
    for name, line in LINES.items():
        least = float("inf")
        for _ in range(parsed.rounds):
            began = time.process_time()
            for _ in range(1000):
                mask(line)
            least = min(least, (time.process_time() - began) * 1e3)
        print(f"{name}: {least:.2f} µs")


if __name__ == "__main__":
    main()
