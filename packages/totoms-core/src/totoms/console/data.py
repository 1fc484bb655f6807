"""The JSON API for tools, and the endpoint that receives events from other processes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from totoms.console.model import MOST_LISTED, Console
from totoms.logging.masking import mask
from totoms.messages.dead_letters import DeadLetter

_MOST_EVENTS = 5000


def routes(console: Console) -> list[Route]:
    """Return the routes."""
    recorder = console.recorder

    async def services(request: Request) -> Response:
        return JSONResponse([asdict(one) for one in recorder.services()])

    async def messages(request: Request) -> Response:
        query = request.query_params
        found = recorder.messages(_limit(request), topic=query.get("topic", ""), cid=query.get("cid", ""))
        return JSONResponse([asdict(one) for one in found])

    async def message(request: Request) -> Response:
        found = recorder.message(request.path_params["message"])
        return JSONResponse(None if found is None else asdict(found))

    async def trace(request: Request) -> Response:
        nodes = console.trace(request.path_params["trace"])
        return JSONResponse([{**asdict(node.span), "depth": node.depth} for node in nodes])

    async def logs(request: Request) -> Response:
        query = request.query_params
        found = recorder.logs(_limit(request), cid=query.get("cid", ""), level=query.get("level", ""))
        return JSONResponse([asdict(one) for one in found])

    async def subscriptions(request: Request) -> Response:
        return JSONResponse([asdict(one) for one in await console.subscriptions()])

    async def dead_letters(request: Request) -> Response:
        found = await console.dead_letters(request.path_params["subscription"])
        return JSONResponse([plain(one) for one in found[: _limit(request)]])

    async def join(request: Request) -> Response:
        events = await request.json()
        if not isinstance(events, list) or len(events) > _MOST_EVENTS:
            return JSONResponse({"message": "not a list of events"}, 422)
        for event in events:
            recorder.record(event)
        return JSONResponse(len(events))

    return [
        Route("/data/services", services),
        Route("/data/messages", messages),
        Route("/data/messages/{message:path}", message),
        Route("/data/traces/{trace}", trace),
        Route("/data/logs", logs),
        Route("/data/subscriptions", subscriptions),
        Route("/data/dead-letters/{subscription:path}", dead_letters),
        Route("/join", join, methods=["POST"]),
    ]


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "50")
    return max(1, min(int(text) if text.isdecimal() else 50, MOST_LISTED))


def _data(body: str) -> str:
    """Return the data of a message as JSON; the whole body if it is not a message."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return json.dumps(found.get("data"), indent=2, ensure_ascii=False) if isinstance(found, dict) else body


def plain(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON, with its body as masked text."""
    found = asdict(dead_letter)
    found["body"] = mask(dead_letter.body.decode("utf-8", "backslashreplace"))
    found["data"] = _data(found["body"])
    found["attributes"] = {name: mask(value) for name, value in dead_letter.attributes.items()}
    return found
