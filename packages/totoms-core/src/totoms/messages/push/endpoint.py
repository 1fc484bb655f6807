"""The push endpoint: verify and decode with the backend, handle, and answer.

200 settles a message, 500 and 503 make the broker deliver again, 401 and 403 reject forgeries. Only failures of the
handler count as attempts; see :mod:`totoms.messages.push.attempts`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Scope

from totoms.context import current_cid
from totoms.errors import BackendError, Forbidden, TotoError, Unauthorized, Undecidable, Unsupported
from totoms.logging.describe import describe_error, printable
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letter_log import dead_letter
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.outcome import Action, Outcome
from totoms.messages.push.attempts import DeliveryKey, Failures, HandledMessages, delivery_key
from totoms.messages.push.bodies import PATIENCE, Intake
from totoms.messages.push.slots import Slots
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.router import MessageRouter

_LONGEST_WAIT: Final = 60.0
_SUCCESS: Final = b'{"status":"success"}'
_IGNORED: Final = b'{"status":"ignored"}'

_Result = Outcome | Undecidable
"""The outcome of a message, or why it could not be handled or dead-lettered now."""


class PushEndpoint:
    """Receives pushed messages.

    Args:
        bus: Verifies and decodes.
        router: Finds and runs handlers.
        max_concurrency: How many messages are handled at the same time. Others wait for a slot; one that waits too
            long, or for which there is no memory, is answered 503, and the broker tries again.
        url: The public address of this endpoint; None if it is unknown.
        logger: The service's logger.
        on_push: Called with the logical name of a topic when a verified push or handshake of it arrives.
        body_patience: Seconds in which an unverified body must be complete.
        slot_patience: Seconds that a message waits for a slot; by default a third of the broker's patience, at most a
            minute.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        bus: MessageBus,
        router: MessageRouter,
        *,
        max_concurrency: int,
        url: str | None,
        logger: TotoLogger,
        body_patience: float = PATIENCE,
        slot_patience: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_push: Callable[[str], None] = lambda _topic: None,
    ) -> None:
        self.max_body_bytes = bus.max_push_bytes
        self._on_push = on_push
        self._bus = bus
        self._router = router
        self._max_concurrency = max_concurrency
        self._url = url
        self._logger = logger
        self._clock = clock
        self._intake = Intake(bus.max_push_bytes, bus.push_patience, patience=body_patience, clock=clock)
        if slot_patience is None:
            slot_patience = min(bus.push_patience / 3, _LONGEST_WAIT)
        self._slots = Slots(max_concurrency, slot_patience, self._intake.waiting, logger, clock)
        self._failures = Failures()
        self._handled = HandledMessages()
        self._running: dict[DeliveryKey, asyncio.Future[_Result]] = {}
        self._active = 0
        self._idle = asyncio.Event()
        self._draining = False

    async def respond(self, request: Request) -> bytes | Response:
        """Answer one push request; bytes are JSON.

        Raises:
            Unauthorized, Forbidden: The caller is not the broker. No handler was run.
            Undecidable: Stopping, full, or the broker's keys are unavailable: try again.
        """
        try:
            return await self._receive(request)
        except (Unauthorized, Forbidden, Undecidable) as error:
            call = request.scope.get("totoms")
            if call is not None:
                call.note = _reason(error)  # for the request's log line
            raise

    async def stop(self, grace: float) -> None:
        """Refuse further messages, and wait at most `grace` seconds for running handlers."""
        self._draining = True
        self._intake.stop()
        self._slots.stop()
        try:
            async with asyncio.timeout(grace):
                while self._active:
                    await self._idle.wait()
        except TimeoutError:
            self._logger.log("shutdown", f"{self._active} push requests were still being handled.", "WARNING")

    async def _receive(self, request: Request) -> bytes | Response:
        if self._draining:
            raise Undecidable("The service is shutting down.")
        scope = request.scope
        headers = _headers(scope["headers"])
        pushed = PushRequest(
            headers, partial(self._read, request), self._url or _requested(scope, headers), scope["method"]
        )
        try:
            accepted = await self._bus._accept_push(pushed)
        except Unsupported as error:
            raise Forbidden(error.message) from error
        except BackendError as error:
            raise Undecidable("The push cannot be verified now.") from error
        if isinstance(accepted, PushReply):
            if accepted.subscribed is not None:
                self._on_push(accepted.subscribed)
            return JSONResponse(accepted.body, accepted.status, dict(accepted.headers))
        for topic in {received.subscription.logical_name for received in accepted}:
            self._on_push(topic)
        self._active += 1
        try:
            return await self._handle(accepted)
        finally:
            self._active -= 1
            if self._draining and not self._active:
                self._idle.set()

    async def _read(self, request: Request, verified: bool) -> bytes:
        return await self._intake.read(request.receive, verified=verified)

    async def _handle(self, accepted: Sequence[Received]) -> bytes | Response:
        """Handle all messages of a request. If one must be delivered again, the broker delivers all again."""
        until, begun = self._slots.until(), self._clock()
        if len(accepted) == 1 and not self._handled:  # the common case
            result = await self._settle_once(accepted[0], until)
            in_time = self._clock() - begun < self._bus.push_patience
            if in_time and isinstance(result, Outcome) and result.action is not Action.RETRY:
                return _IGNORED if result.ignored else _SUCCESS
            skipped: set[Received] = set()
            results = {accepted[0]: result}
        else:
            skipped = self._handled.take(accepted)
            results = await self._settle_all([received for received in accepted if received not in skipped], until)
        failed = {received for received, result in results.items() if _needs_redelivery(result)}
        # The broker delivers all again if one failed, or if it has stopped waiting for the answer.
        if failed or self._clock() - begun >= self._bus.push_patience:
            self._handled.add((received for received in accepted if received not in failed), failed)
        for result in results.values():
            if isinstance(result, Undecidable):
                raise _copy(result)
        if failed:
            return _failure()
        outcomes = [result for result in results.values() if isinstance(result, Outcome)]
        ignored = outcomes and not skipped and all(outcome.ignored for outcome in outcomes)
        return _IGNORED if ignored else _SUCCESS

    async def _settle_all(self, messages: Sequence[Received], until: float) -> dict[Received, _Result]:
        results: dict[Received, _Result] = {}
        waiting, cid = iter(messages), current_cid.get()

        async def work() -> None:
            for received in waiting:
                current_cid.set(cid)
                results[received] = await self._settle_once(received, until)

        # One task for each slot, not for each message: so messages of other requests get slots in between.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(messages), self._max_concurrency)):
                group.create_task(work())
        return results

    async def _settle_once(self, received: Received, until: float) -> _Result:
        """Settle a message, or wait for the result if another request is handling it."""
        key = delivery_key(received)
        if not received.message_id and not received.delivery_id:  # without an id, duplicates cannot be recognized
            return await self._settle(received, key, until)
        running = self._running.get(key)
        if running is not None:
            try:
                async with asyncio.timeout(self._bus.push_patience):
                    return await asyncio.shield(running)
            except TimeoutError:
                return Undecidable("The message is still being handled.")
        running = self._running[key] = asyncio.get_running_loop().create_future()
        result: _Result = Undecidable("The request ended before the message was handled.")
        try:
            result = await self._settle(received, key, until)
            return result
        finally:
            del self._running[key]
            running.set_result(result)

    async def _settle(self, received: Received, key: DeliveryKey, until: float) -> _Result:
        """Run the handler of a message in a slot, and dead-letter the message if the outcome says so."""
        pause = self._failures.pause(key, self._clock())
        if pause:  # brokers choose the time of a redelivery themselves
            return Undecidable("The message waits for a newer version of the service.", retry_after=math.ceil(pause))
        try:
            await self._slots.take(len(received.body), until)
            try:
                received.attempt = self._failures.of(key) + 1
                outcome = await self._router.handle(received)
                if outcome.action is Action.RETRY:
                    self._failures.add(key, 0.0 if outcome.delay is None else self._clock() + outcome.delay)
                    return outcome
                if outcome.action is Action.DEAD_LETTER:
                    await self._dead_letter(received, outcome)
                self._failures.forget(key)
                return outcome
            finally:
                self._slots.give()
        except Undecidable as error:
            return error

    async def _dead_letter(self, received: Received, outcome: Outcome) -> None:
        async def keep(received: Received, reason: DeadLetterReason) -> str | None:
            return await self._bus._dead_letters(received.subscription.name).keep(received, reason)

        failure = await dead_letter(keep, received, outcome, self._logger, self._router.system)
        if failure is not None:  # neither handled nor stored, so the broker must deliver it again
            raise Undecidable("The message cannot be dead-lettered now.") from failure


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) < len(raw):  # a repeated header is a list (RFC 9110, section 5.3)
        for wanted in headers:
            headers[wanted] = ", ".join(
                value.decode("latin-1") for name, value in raw if name.decode("latin-1") == wanted
            )
    return headers


def _needs_redelivery(result: _Result) -> bool:
    return isinstance(result, Undecidable) or result.action is Action.RETRY


def _copy(error: Undecidable) -> Undecidable:
    # Several requests may wait for the same message, and an exception has one traceback.
    copied = Undecidable(error.message, resource=error.resource, retry_after=error.retry_after)
    copied.__cause__ = error.__cause__
    return copied


def _reason(error: TotoError) -> str:
    """Return why a request is refused, with the backend's own error, for the log."""
    cause = error.__cause__
    return printable(error.message + (f" ({describe_error(cause)})" if cause is not None else ""))


def _failure() -> Response:
    """Return the answer that makes the broker deliver again."""
    message = "The message was not processed."
    content = {"code": 500, "message": message, "cid": current_cid.get(), "detail": message}
    return JSONResponse(content, 500)


def _requested(scope: Scope, headers: Mapping[str, str]) -> str:
    # The same as `request.url`, without parsing it for each push.
    host = headers.get("host", "")
    query = scope["query_string"].decode("latin-1")
    return f"{scope['scheme']}://{host}{scope['path']}{'?' if query else ''}{query}"
