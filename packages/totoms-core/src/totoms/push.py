"""PUSH, written once: the endpoint a broker delivers to.

The backend verifies the caller and decodes the envelope; what happens then, and what the broker is
answered, is the same for all: 200 settles, 500 and 503 make it deliver again, 401 and 403 are for forgeries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Scope

from totoms.bus import MessageBus
from totoms.context import current_cid
from totoms.describe import where
from totoms.envelope import DeadLetterReason, PushReply, PushRequest, Received
from totoms.errors import BackendError, Forbidden, Undecidable, Unsupported
from totoms.logging import TotoLogger
from totoms.repeats import Repeats
from totoms.routing import Action, MessageRouter, Outcome

EVENTS_PATH: Final = "/events"
_RETRY_AFTER: Final = 1
_SUCCESS: Final = b'{"status":"success"}'
_IGNORED: Final = b'{"status":"ignored"}'


class PushEndpoint:
    """Receives pushed messages.

    Args:
        bus: Verifies and decodes.
        router: Finds and runs handlers.
        max_concurrency: Push requests at a time, and handlers at a time where requests bring several messages. More
            requests are answered 503, and the broker tries again.
        url: The public address of this endpoint, if it is known.
        logger: The service's logger.
    """

    def __init__(
        self, bus: MessageBus, router: MessageRouter, *, max_concurrency: int, url: str | None, logger: TotoLogger
    ) -> None:
        self._bus = bus
        self._router = router
        self._max_concurrency = max_concurrency
        self._url = url
        self._logger = logger
        self._handlers = asyncio.Semaphore(max_concurrency)
        self._repeats = Repeats()
        self._active = 0
        self._idle = asyncio.Event()
        self._draining = False

    async def respond(self, request: Request) -> bytes | Response:
        """Answer one push request; with bytes for JSON.

        Raises:
            Unauthorized, Forbidden: The caller is not the broker. No handler was run.
            Undecidable: Draining, full, or the broker's keys are out of reach: try again.
        """
        if self._draining or self._active >= self._max_concurrency:
            raise Undecidable("No capacity now.", retry_after=_RETRY_AFTER)
        self._active += 1
        try:
            return await self._receive(request)
        finally:
            self._active -= 1
            if self._draining and not self._active:
                self._idle.set()

    async def stop(self, grace: float) -> None:
        """Refuse new requests and wait for those at work, at most `grace` seconds."""
        self._draining = True
        try:
            async with asyncio.timeout(grace):
                while self._active:
                    await self._idle.wait()
        except TimeoutError:
            self._logger.log("shutdown", f"{self._active} push requests were still being handled.", "WARNING")

    async def _receive(self, request: Request) -> bytes | Response:
        headers = _headers(request.scope["headers"])
        body = await request.body()
        try:
            accepted = await self._bus._accept_push(
                PushRequest(headers, body, self._url or _requested(request.scope, headers), request.scope["method"])
            )
        except Unsupported as error:
            raise Forbidden(error.message) from error
        except BackendError as error:
            raise Undecidable("The push cannot be verified now.") from error
        if isinstance(accepted, PushReply):
            return JSONResponse(accepted.body, accepted.status, dict(accepted.headers))
        return await self._handle(accepted)

    async def _handle(self, accepted: Sequence[Received]) -> bytes | Response:
        """Handle each message, whatever becomes of the others; if one must come again, have all come again."""
        if len(accepted) == 1 and not self._repeats:  # nearly all are such, and need none of the bookkeeping
            await self._handlers.acquire()
            try:
                outcome = await self._settle(accepted[0])
            finally:
                self._handlers.release()
            if outcome is None or outcome.action is Action.RETRY:
                return _again(kept=outcome is not None)
            return _IGNORED if outcome.ignored else _SUCCESS
        settled = self._repeats.take(accepted)
        outcomes = await self._outcomes([received for received in accepted if received not in settled])
        failed = {one for one, outcome in outcomes.items() if outcome is None or outcome.action is Action.RETRY}
        if not failed:
            ignored = outcomes and not settled and all(outcome and outcome.ignored for outcome in outcomes.values())
            return _IGNORED if ignored else _SUCCESS
        self._repeats.add((received for received in accepted if received not in failed), failed)
        return _again(kept=None not in outcomes.values())

    async def _outcomes(self, messages: Sequence[Received]) -> dict[Received, Outcome | None]:
        outcomes: dict[Received, Outcome | None] = {}
        waiting, cid = iter(messages), current_cid.get()

        async def work() -> None:
            for received in waiting:
                async with self._handlers:
                    current_cid.set(cid)
                    outcomes[received] = await self._settle(received)

        # As many tasks as may be at work, not as there are messages: others' requests get their turn in between.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(messages), self._max_concurrency)):
                group.create_task(work())
        return outcomes

    async def _settle(self, received: Received) -> Outcome | None:
        """Return what became of a message; None when it was to be dead-lettered and could not be kept."""
        outcome = await self._router.handle(received)
        if outcome.action is Action.DEAD_LETTER:
            try:
                await self._keep(received, outcome.reason or DeadLetterReason("unknown"))
            except Undecidable:
                return None
        return outcome

    async def _keep(self, received: Received, reason: DeadLetterReason) -> None:
        try:
            await self._bus._dead_letter(received, reason)
        except Exception as error:
            # Neither handled nor kept: the broker must not believe that it is rid of it.
            self._logger.log("events", f"Cannot dead-letter message {received.message_id}: {where(error)}", "ERROR")
            raise Undecidable("The message cannot be kept now.") from error


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) < len(raw):  # what is given several times is a list (RFC 9110, section 5.3)
        for wanted in headers:
            headers[wanted] = ", ".join(
                value.decode("latin-1") for name, value in raw if name.decode("latin-1") == wanted
            )
    return headers


def _again(*, kept: bool) -> Response:
    """Return what has the broker deliver again."""
    if not kept:
        raise Undecidable("The message cannot be kept now.")
    content = {"code": 500, "message": "The message was not processed.", "cid": current_cid.get()}
    return JSONResponse(content, 500)


def _requested(scope: Scope, headers: Mapping[str, str]) -> str:
    # What `request.url` would say, without parsing it for each push.
    host = headers.get("host", "")
    query = scope["query_string"].decode("latin-1")
    return f"{scope['scheme']}://{host}{scope['path']}{'?' if query else ''}{query}"
