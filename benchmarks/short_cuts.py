"""What each short cut saves: the CPU time of the same work with it and without it.

``python -m benchmarks.short_cuts`` runs both in turn, many times, and compares the fastest rounds, so that what
else the machine does hardly counts. A short cut that saves less than 2 % of what it speeds up is not worth its lines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from benchmarks import http_services as services

Run = Callable[[int], Awaitable[None]]
"""Does the work a number of times."""
Without = Callable[[], contextlib.AbstractContextManager[Any]]
"""Switches a short cut off."""
BODY = json.dumps(services.ECHO).encode()
EVENT = {
    "id": "7",
    "topic": "/subscriptions/1/topics/posts",
    "subject": "posts",
    "eventType": "post.written",
    "eventTime": "2026-01-01T00:00:00Z",
    "dataVersion": "1",
    "data": {"cid": services.CID, "text": "x" * 300},
}


def make_token(number: int) -> str:
    """Return one of many valid tokens."""
    import jwt

    claims = {"user": f"u{number}@example.com", "authProvider": "toto", "exp": int(time.time()) + 3600}
    return jwt.encode(claims, services.KEY, algorithm="HS256")


async def receive() -> Any:
    """Give a whole body."""
    return {"type": "http.request", "body": BODY, "more_body": False}


async def send(_message: Any) -> None:
    """Take a message."""


class Requests:
    """Requests to an app, without sockets.

    Args:
        app: The app.
        method: GET or POST.
        path: The path.
        tokens: The tokens that they have in turn.
        turn: After how many requests the event loop gets a turn; 0 for never.
    """

    def __init__(self, app: Any, tokens: list[str], method: str = "GET", path: str = "", *, turn: int = 0) -> None:
        self._app, self._tokens, self._method, self._turn = app, tokens, method, turn
        self._path = path or {"GET": services.GET_PATH, "POST": services.POST_PATH}[method]

    async def __call__(self, count: int) -> None:
        """Send them."""
        for number in range(count):
            await self._app(self._scope(self._tokens[number % len(self._tokens)]), receive, send)
            if self._turn and number % self._turn == 0:
                await asyncio.sleep(0)

    def _scope(self, token: str) -> dict[str, Any]:
        headers = [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer " + token.encode())]
        headers.append((b"x-correlation-id", services.CID.encode()))
        if self._method == "POST":
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        return {
            "type": "http",
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 5),
            "scheme": "http",
            "root_path": "",
            "method": self._method,
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "headers": headers,
            "state": {},
        }


async def compare(run: Run, without: Without, *, count: int, rounds: int) -> tuple[float, float]:
    """Return microseconds of CPU for one piece of work, with the short cut and without it."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for place, switch in enumerate((contextlib.nullcontext, without)):
            with switch():
                await run(20)
                begun = time.process_time()
                await run(count)
                best[place] = min(best[place], (time.process_time() - begun) / count * 1e6)
    return best[0], best[1]


def patched(target: str, new: Any) -> Without:
    """Return what replaces an attribute, given as ``module.attribute`` or ``module.Class.attribute``."""
    return lambda: mock.patch(target, new)


@contextlib.contextmanager
def both(*switches: Without) -> Iterator[None]:
    """Switch several off."""
    with contextlib.ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch())
        yield


def http_short_cuts(app: Any) -> Iterator[tuple[str, Run, Without]]:
    """Yield the short cuts of `totoms.http`, `totoms.auth` and `totoms.logging`."""
    from fastapi import Request

    from totoms.auth.authenticator import Authenticator
    from totoms.http import shortcut
    from totoms.http.requests import TotoRequest
    from totoms.http.routes import RouteIndex
    from totoms.http.shortcut import Shortcut
    from totoms.logging.handler import BatchHandler

    one = [make_token(0)]
    get = Requests(app, one)
    check, find, formatted = Shortcut.find, RouteIndex.find, "totoms.logging.formats.JSONFormatter.timestamp"

    def ask_each_time(self: Any, scope: Any) -> Any:
        return None if shortcut.is_traced(app) else check(self, scope)

    def search(self: Any, scope: Any) -> Any:
        self._static.clear()
        return find(self, scope)

    @contextlib.contextmanager
    def searched() -> Iterator[None]:
        with mock.patch.object(RouteIndex, "find", search):
            yield
        app._shortcut._index._seen = []

    def written(_self: Any, created: float) -> str:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S.', time.gmtime(created))}{int(created % 1 * 1_000_000):06d}Z"

    def woken(self: BatchHandler) -> None:
        if self._thread is not None or self._start():
            self._wake.set()

    @contextlib.contextmanager
    def starlettes_body() -> Iterator[None]:
        with mock.patch.multiple(TotoRequest, body=Request.body, stream=Request.stream):
            yield

    def no_user(_self: Authenticator, _header: bytes) -> None:
        return None

    yield "middleware of FastAPI: passed by", get, patched("totoms.http.shortcut.Shortcut.find", lambda *_: None)
    yield "telemetry of FastAPI: asked once a second", get, patched("totoms.http.shortcut.Shortcut.find", ask_each_time)
    yield "routes: found in a dictionary", get, searched
    yield "responses: JSON without checks", get, patched("totoms.http.routes.Sender", type("Nobody", (), {}))
    yield "tokens: remembered", get, patched("totoms.auth.authenticator.Authenticator.cached", no_user)
    yield "log: time formatted once a second", get, patched(formatted, written)
    yield "log: no record for our own handler", get, patched("totoms.logging.logger._sole_handler", lambda *_: None)
    yield "log: lines written in batches", get, patched("totoms.logging.handler.BATCH_LINES", 0)
    yield (
        "log: batches written by the event loop",
        Requests(app, one, turn=20),
        patched("totoms.logging.handler.BatchHandler._schedule", woken),
    )
    yield "bodies: read by our own request", Requests(app, one, "POST"), starlettes_body


async def own_tokens(count: int) -> None:
    """Verify tokens as the service does."""
    from totoms.auth import tokens
    from totoms.auth.verifiers import OwnTokens

    verifier, raw, now = OwnTokens(services.KEY), make_token(0).encode(), time.time()
    for _ in range(count):
        await verifier.verify(tokens.parse_token(raw), now)


def with_pyjwt() -> Any:
    """Have PyJWT parse and verify the token instead."""
    import jwt

    from totoms.auth.user import UserContext

    async def verify(_self: Any, claims: Any, _now: float) -> tuple[UserContext, float]:
        return UserContext(claims["user"], "toto"), claims["exp"]

    def parse(raw: bytes) -> Any:
        return jwt.decode(raw, services.KEY, algorithms=["HS256"], options={"require": ["exp"]})

    return both(
        patched("totoms.auth.tokens.parse_token", parse), patched("totoms.auth.verifiers.OwnTokens.verify", verify)
    )


READER = """
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while peer.recv(65536):
    pass
"""


async def responses(count: int) -> None:
    """Write heads and bodies to a socket, which a process of its own reads."""
    from totoms.http.server import outbox

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = await asyncio.create_subprocess_exec(sys.executable, "-c", READER, str(listener.getsockname()[1]))
        ours, _ = listener.accept()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    box = outbox.Outbox(transport, loop)
    for _ in range(count):
        box.write(b"h" * 200)
        box.write(b"b" * 100)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    transport.close()
    await reader.wait()


def written_at_once() -> Any:
    """Give the transport each piece as it comes."""
    return mock.patch("totoms.http.server.outbox.Outbox.write", lambda self, data: self._transport.write(data))


async def events(count: int) -> None:
    """Parse requests of Event Grid with ten events."""
    from totoms_azure.messages import event_grid

    body = json.dumps([EVENT] * 10).encode()
    for _ in range(count):
        event_grid.parse_events(body)


def with_the_standard_library() -> Any:
    """Parse the array and write each message again, which changes numbers that no float can hold."""

    def parse(body: bytes) -> list[bytes]:
        return [json.dumps(event["data"]).encode() for event in json.loads(body)]

    return mock.patch("totoms_azure.messages.event_grid.parse_events", parse)


async def measure(count: int, rounds: int, table: TextIO) -> None:
    """Measure and print."""
    from totoms import TotoMicroservice

    app = (await TotoMicroservice.create(services._totoms())).app
    print(f"{'':44}{'with':>9}{'without':>10}{'saves':>8}", file=table, flush=True)
    others = [
        ("new tokens: parsed without PyJWT", own_tokens, with_pyjwt),
        ("responses: head and body in one system call", responses, written_at_once),
        ("Event Grid: messages cut out by expressions", events, with_the_standard_library),
    ]
    for name, run, without in (*http_short_cuts(app), *others):
        kept, lost = await compare(run, without, count=count, rounds=rounds)
        print(f"{name:44}{kept:6.1f} µs{lost:7.1f} µs{(lost - kept) / lost:8.1%}", file=table, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="of pieces of work in a round")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    table = sys.stdout
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as log, contextlib.redirect_stdout(log):
        os.environ.update(JWT_SIGNING_KEY=services.KEY, TOTOMS_LOCAL_ROOT=folder)
        asyncio.run(measure(options.count, options.rounds, table))


if __name__ == "__main__":
    main()
