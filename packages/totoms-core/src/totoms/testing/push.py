"""The contract of the push endpoint: behaviours 27 to 32."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from totoms.bus import DEAD_LETTERS, PULL, PUSH
from totoms.envelope import PushRequest, RetryPolicy
from totoms.errors import NonRetryableError, Unavailable, Unsupported
from totoms.messages import ProcessingResponse, ProcessingStatus, TotoMessage, encode_message
from totoms.testing.contract import Contract
from totoms.testing.push_harness import FORGERIES, TOPIC, Pushed, PushHarness
from totoms.testing.push_service import MESSAGE_TYPE, PushedService, pull_one, succeed

DEDUPLICATION: Final = "deduplication"
"""Declared by a backend that handles a message once although it was pushed twice with the same id."""
_NO_EXCUSE: Final = {"no credentials", "forged", "wrong topic", "another cloud's envelope", "a user's API token"}
_RETRY: Final = RetryPolicy(max_attempts=3, min_backoff=0.0, max_backoff=0.0)
_ONCE: Final = RetryPolicy(max_attempts=1, min_backoff=0.0, max_backoff=0.0)
_MESSAGE: Final = TotoMessage("2025.11.23 12:00:00", "c-1", "post-7", MESSAGE_TYPE, "Ein Beitrag: é", {"n": [1, None]})
_BODY: Final = encode_message(_MESSAGE)


def _say(status: ProcessingStatus) -> Callable[[TotoMessage], Any]:
    return lambda _message: ProcessingResponse(status)


def _throw(error: type[BaseException]) -> Callable[[TotoMessage], Any]:
    def process(_message: TotoMessage) -> Any:
        raise error("as the test says")

    return process


@dataclass(frozen=True)
class _Case:
    outcome: str
    process: Callable[[TotoMessage], Any] = succeed
    body: bytes = _BODY
    retry: RetryPolicy = _RETRY
    reason: str = ""
    runs: int = 1


_OUTCOMES: Final[Mapping[str, _Case]] = {
    "SUCCESS": _Case("ack"),
    "IGNORED": _Case("ack", _say(ProcessingStatus.IGNORED)),
    "FAILED": _Case("retry", _say(ProcessingStatus.FAILED)),
    "an exception": _Case("retry", _throw(ValueError)),
    "SystemExit": _Case("retry", _throw(SystemExit)),
    "no answer": _Case("retry", lambda _message: None),
    "FAILED at the last attempt": _Case(
        "dead_letter", _say(ProcessingStatus.FAILED), retry=_ONCE, reason="attempts_exhausted"
    ),
    "non-retryable": _Case("dead_letter", _throw(NonRetryableError), reason="non_retryable"),
    "an unknown type": _Case("ack", body=encode_message(TotoMessage(type="of another")), runs=0),
    "undecodable": _Case("dead_letter", body=b'{"type": 7', reason="undecodable", runs=0),
}
_ANSWERS: Final = {"ack": 200, "retry": 500, "dead_letter": 200}


class PushContract(Contract):
    """What the push endpoint does with a backend. Provide the fixture ``harness``, a `PushHarness`.

    A backend without PUSH leaves it out of `capabilities`: then its endpoint must be closed.
    """

    async def test_27_genuine_delivery_runs_the_handler_once(self, harness: PushHarness) -> None:
        """A genuine delivery runs the handler once, with the message as it was published: 200."""
        service = await self._serve(harness)
        if service is None:
            return
        answer = await service.send(await harness.genuine(_BODY, message_id="m-27"))
        assert answer.status_code == 200
        assert service.handled == [_MESSAGE]
        delivery = service.handled[0].delivery
        assert delivery is not None
        assert (delivery.message_id, delivery.topic, delivery.attempt) == ("m-27", TOPIC, 1)
        assert service.observed.settled == []

    async def test_27_deliveries_at_the_same_time_are_all_handled_once(self, harness: PushHarness) -> None:
        """Several genuine deliveries at the same time are each handled once."""
        service = await self._serve(harness)
        if service is None:
            return
        wanted = [f"post-{number}" for number in range(20)]
        requests = [
            await harness.genuine(encode_message(TotoMessage(type=MESSAGE_TYPE, id=name)), message_id=f"m-{name}")
            for name in wanted
        ]
        answers = await asyncio.gather(*(service.send(request) for request in requests))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(message.id for message in service.handled) == sorted(wanted)

    @pytest.mark.parametrize("case", ["FAILED", "an exception"])
    async def test_28_failure_is_answered_500(self, harness: PushHarness, case: str) -> None:
        """FAILED or an exception: 500, so that the broker delivers again; nothing of the exception is told."""
        service = await self._serve(harness, _OUTCOMES[case].process)
        if service is None:
            return
        answer = await service.send(await harness.genuine(_BODY))
        assert answer.status_code == 500
        assert answer.json().keys() == {"code", "message", "cid"}
        assert len(service.handled) == 1
        assert service.observed.settled == []

    @pytest.mark.parametrize("forgery", FORGERIES)
    async def test_29_forgery_is_refused(self, harness: PushHarness, forgery: str) -> None:
        """A forgery is refused: no handler runs, nothing is fetched, and a genuine request is still taken."""
        service = await self._serve(harness)
        if service is None:
            return
        forged = (await harness.forgeries(_BODY)).get(forgery, "")
        if isinstance(forged, str):
            assert forged.strip(), f"forgeries() has no entry {forgery!r}, not even why there can be none"
            assert forgery not in _NO_EXCUSE, f"{forgery!r} can be tried on every backend"
            return
        # Keys may be fetched for a genuine request; whether they must be shall not depend on the forgery.
        assert (await service.send(await harness.genuine(_BODY))).status_code == 200
        service.handled.clear()
        before = harness.outbound_requests()
        answer = await service.send(forged)
        assert answer.status_code in (401, 403), f"{forgery}: answered {answer.status_code}"
        assert service.handled == [], f"{forgery}: the handler was run"
        assert service.observed.dead == [], f"{forgery}: it was kept"
        assert harness.outbound_requests() == before, f"{forgery}: something was fetched"
        assert answer.json().keys() == {"code", "message", "cid"}
        _, _, credentials = forged.headers.get("authorization", "").rpartition(" ")
        assert not credentials or credentials not in answer.text
        assert (await service.send(await harness.genuine(_BODY, message_id="m-29"))).status_code == 200

    async def test_29_handshake_of_a_stranger_is_refused(self, harness: PushHarness) -> None:
        """Who asks by OPTIONS whether it may push here, and is not the broker, is refused; nothing is fetched."""
        service = await self._serve(harness)
        if service is None:
            return
        before = harness.outbound_requests()
        asked = {"webhook-request-origin": "stranger.example", "webhook-request-callback": "http://127.0.0.1:1/confirm"}
        answer = await service.send(Pushed(b"", asked, "OPTIONS"))
        assert answer.status_code in (401, 403), f"answered {answer.status_code}"
        assert "webhook-allowed-origin" not in answer.headers
        assert service.handled == []
        assert harness.outbound_requests() == before, "something was fetched"

    async def test_30_unreachable_keys_are_answered_503(self, harness: PushHarness) -> None:
        """What cannot be verified now is answered 503 with Retry-After, and taken when the keys are there again."""
        if await self._serve(harness) is None:
            return
        genuine = await harness.genuine(_BODY)
        outage = harness.keys_unreachable()
        if isinstance(outage, str):
            assert outage.strip(), "keys_unreachable() must tell why that cannot be"
            return
        assert isinstance(outage, AbstractAsyncContextManager)
        async with outage:
            service = PushedService(await harness.connect(), harness.url, succeed, _RETRY)
            answer = await service.send(genuine)
            assert answer.status_code == 503, f"answered {answer.status_code}"
            assert answer.headers["retry-after"].isdecimal()
            assert (await service.send(Pushed(_BODY))).status_code in (401, 403, 503)
            assert service.handled == []
        assert (await service.send(genuine)).status_code == 200
        assert len(service.handled) == 1

    @pytest.mark.parametrize("case", _OUTCOMES)
    async def test_31_outcome_is_the_same_by_push_and_by_pull(self, harness: PushHarness, case: str) -> None:
        """The same handler result means the same outcome by PUSH and by PULL."""
        wanted = _OUTCOMES[case]
        service = await self._serve(harness, wanted.process, wanted.retry)
        if service is None:
            return
        answer = await service.send(await harness.genuine(wanted.body))
        assert answer.status_code == _ANSWERS[wanted.outcome]
        assert [reason.reason for _, reason in service.observed.dead] == ([wanted.reason] if wanted.reason else [])
        assert len(service.handled) == wanted.runs
        if service.observed.dead and DEAD_LETTERS in service.bus.capabilities:
            received, _ = service.observed.dead[0]
            letters = await service.bus.list_dead_letters(received.subscription.name)
            assert [letter.body for letter in letters] == [wanted.body]
        if PULL in service.bus.capabilities:
            bus = await harness.connect()
            outcome, reason, handled = await pull_one(bus, wanted.body, wanted.process, wanted.retry, harness.patience)
            assert outcome == wanted.outcome
            assert (reason.reason if reason else "") == wanted.reason
            assert (len(handled) > 0) == (wanted.runs > 0)

    async def test_31_unknown_type_is_answered_ignored(self, harness: PushHarness) -> None:
        """A message that nobody handles is answered ``ignored``."""
        service = await self._serve(harness)
        if service is None:
            return
        answer = await service.send(await harness.genuine(_OUTCOMES["an unknown type"].body))
        assert answer.json() == {"status": "ignored"}

    async def test_31_what_cannot_be_kept_is_answered_503(self, harness: PushHarness) -> None:
        """Poison that the dead-letter store does not take now stays with the broker: 503."""
        service = await self._serve(harness)
        if service is None:
            return

        async def away(*_: Any) -> None:
            raise Unavailable("The store is away.")

        vars(service.bus).update(_dead_letter=away)
        answer = await service.send(await harness.genuine(b"poison"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"].isdecimal()

    async def test_32_same_id_twice(self, harness: PushHarness) -> None:
        """One id twice: handled once where the backend deduplicates, else each time; 200 either way."""
        service = await self._serve(harness)
        if service is None:
            return
        statuses = [
            (await service.send(await harness.genuine(_BODY, message_id="m-32", attempt=attempt))).status_code
            for attempt in (1, 2)
        ]
        assert statuses == [200, 200]
        ids = [message.delivery.message_id for message in service.handled if message.delivery]
        assert ids == ["m-32"] * (1 if DEDUPLICATION in self.capabilities else 2)

    async def _serve(
        self, harness: PushHarness, process: Callable[[TotoMessage], Any] = succeed, retry: RetryPolicy = _RETRY
    ) -> PushedService | None:
        """Return a service on the harness's bus; without PUSH None, after its endpoint was found closed."""
        bus = await harness.connect()
        assert (PUSH in self.capabilities) == (PUSH in bus.capabilities), "the test and the bus do not declare the same"
        service = PushedService(bus, harness.url, process, retry)
        if PUSH in self.capabilities:
            return service
        with pytest.raises(Unsupported):
            await bus._accept_push(PushRequest({}, _BODY, harness.url))
        for request in (Pushed(_BODY), Pushed(_BODY, {"authorization": "Bearer x"})):
            assert (await service.send(request)).status_code == 403
        assert service.handled == []
        return None
