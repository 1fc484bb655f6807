"""The contract of the push endpoint: behaviours 27 to 32, 58, 61, and 67."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from totoms.errors import NonRetryableError, Unavailable
from totoms.messages.dead_letters import DeadLetterStore
from totoms.messages.delivery import choose_delivery
from totoms.messages.driver import DEAD_LETTERS, PULL
from totoms.messages.message import TYPE_ATTRIBUTE, ProcessingResponse, ProcessingStatus, TotoMessage, encode_message
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms.testing.push.attempts import PushAttempts
from totoms.testing.push.base import BODY, MESSAGE, RETRY
from totoms.testing.push.bodies import PushBodies
from totoms.testing.push.harness import FORGERIES, TOPIC, Pushed, PushHarness
from totoms.testing.push.service import MESSAGE_TYPE, PushedService, pull_one, succeed

DEDUPLICATION: Final = "deduplication"
"""The capability of a backend that handles a message once if it is pushed twice with the same id."""
_REQUIRED_FORGERIES: Final = {
    "no credentials",
    "forged",
    "wrong topic",
    "another cloud's envelope",
    "a user's API token",
}
_ONCE: Final = RetryPolicy(max_attempts=1, min_backoff=0.0, max_backoff=0.0)


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
    body: bytes = BODY
    retry: RetryPolicy = RETRY
    reason: str = ""
    runs: int = 1


_OUTCOMES: Final[Mapping[str, _Case]] = {
    "SUCCESS": _Case("ack"),
    "IGNORED": _Case("ack", _say(ProcessingStatus.IGNORED)),
    "FAILED": _Case("nack", _say(ProcessingStatus.FAILED)),
    "an exception": _Case("nack", _throw(ValueError)),
    "SystemExit": _Case("nack", _throw(SystemExit)),
    "no answer": _Case("nack", lambda _message: None),
    "FAILED at the last attempt": _Case(
        "dead_letter", _say(ProcessingStatus.FAILED), retry=_ONCE, reason="attempts_exhausted"
    ),
    "non-retryable": _Case("dead_letter", _throw(NonRetryableError), reason="non_retryable"),
    "an unknown type": _Case("ack", body=encode_message(TotoMessage(type="of another")), runs=0),
    "undecodable": _Case("dead_letter", body=b'{"type": 7', reason="undecodable", runs=0),
}
_ANSWERS: Final = {"ack": 200, "nack": 500, "dead_letter": 200}


class PushContract(PushBodies, PushAttempts):
    """The push endpoint on a backend. Provide the fixture ``harness``, a `PushHarness`.

    A backend without PUSH leaves it out of `capabilities`; then its endpoint must be closed.
    """

    async def test_27_genuine_delivery_runs_the_handler_once(self, harness: PushHarness) -> None:
        """A genuine push runs the handler once, with the message as published, and is answered 200."""
        service = await self._serve(harness)
        if service is None:
            return
        answer = await service.send(await harness.genuine(BODY, message_id="m-27"))
        assert answer.status_code == 200
        assert service.handled == [MESSAGE]
        delivery = service.handled[0].delivery
        assert delivery is not None
        assert (delivery.message_id, delivery.topic, delivery.attempt) == ("m-27", TOPIC, 1)
        assert service.dead_lettered == []

    async def test_27_deliveries_at_the_same_time_are_all_handled_once(self, harness: PushHarness) -> None:
        """Concurrent genuine pushes are each handled once."""
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
        """FAILED or an exception is answered 500, without the exception; the broker then delivers again."""
        service = await self._serve(harness, _OUTCOMES[case].process)
        if service is None:
            return
        answer = await service.send(await harness.genuine(BODY))
        assert answer.status_code == 500
        assert answer.json().keys() == {"code", "message", "cid", "detail"}
        assert len(service.handled) == 1
        assert service.dead_lettered == []

    @pytest.mark.parametrize("forgery", FORGERIES)
    async def test_29_forgery_is_refused(self, harness: PushHarness, forgery: str) -> None:
        """A forgery is refused without running a handler or fetching anything; a genuine push still works."""
        service = await self._serve(harness)
        if service is None:
            return
        forged = (await harness.forgeries(BODY)).get(forgery, "")
        if isinstance(forged, str):
            assert forged.strip(), f"forgeries() has neither a request nor a reason for {forgery!r}"
            assert forgery not in _REQUIRED_FORGERIES, f"{forgery!r} is possible on every backend"
            return
        # A genuine request first: its keys may be fetched, and then a forgery must not cause another fetch.
        assert (await service.send(await harness.genuine(BODY))).status_code == 200
        service.handled.clear()
        before = harness.outbound_requests()
        answer = await service.send(forged)
        assert answer.status_code in (401, 403), f"{forgery}: answered {answer.status_code}"
        assert service.handled == [], f"{forgery}: the handler was run"
        assert service.dead_lettered == [], f"{forgery}: it was dead-lettered"
        assert harness.outbound_requests() == before, f"{forgery}: something was fetched"
        assert answer.json().keys() == {"code", "message", "cid", "detail"}
        _, _, credentials = forged.headers.get("authorization", "").rpartition(" ")
        assert not credentials or credentials not in answer.text
        assert (await service.send(await harness.genuine(BODY, message_id="m-29"))).status_code == 200

    async def test_29_handshake_of_a_stranger_is_refused(self, harness: PushHarness) -> None:
        """An OPTIONS handshake that is not the broker's is refused without fetching anything."""
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
        """Without the keys a push is answered 503 with Retry-After; when they are back it is accepted."""
        if await self._serve(harness) is None:
            return
        genuine = await harness.genuine(BODY)
        outage = harness.keys_unreachable()
        if isinstance(outage, str):
            assert outage.strip(), "keys_unreachable() must return a context manager or a reason"
            return
        assert isinstance(outage, AbstractAsyncContextManager)
        async with outage:
            service = PushedService(await harness.connect(), harness.url, succeed, RETRY)
            answer = await service.send(genuine)
            assert answer.status_code == 503, f"answered {answer.status_code}"
            assert answer.headers["retry-after"].isdecimal()
            assert (await service.send(Pushed(BODY))).status_code in (401, 403, 503)
            assert service.handled == []
        assert (await service.send(genuine)).status_code == 200
        assert len(service.handled) == 1

    @pytest.mark.parametrize("case", _OUTCOMES)
    async def test_31_outcome_is_the_same_by_push_and_by_pull(self, harness: PushHarness, case: str) -> None:
        """A result of the handler has the same outcome by push as by pull."""
        wanted = _OUTCOMES[case]
        service = await self._serve(harness, wanted.process, wanted.retry)
        if service is None:
            return
        answer = await service.send(await harness.genuine(wanted.body))
        assert answer.status_code == _ANSWERS[wanted.outcome]
        assert [reason.reason for _, reason in service.dead_lettered] == ([wanted.reason] if wanted.reason else [])
        assert len(service.handled) == wanted.runs
        if service.dead_lettered and DEAD_LETTERS in service.bus.capabilities:
            received, _ = service.dead_lettered[0]
            letters = await service.bus.list_dead_letters(received.subscription.name)
            assert [letter.body for letter in letters] == [wanted.body]
        if PULL in service.bus.capabilities:
            bus = await harness.connect()
            outcome, reason, handled = await pull_one(bus, wanted.body, wanted.process, wanted.retry, harness.patience)
            assert outcome == wanted.outcome
            assert (reason.reason if reason else "") == wanted.reason
            assert (len(handled) > 0) == (wanted.runs > 0)

    async def test_31_unknown_type_is_answered_ignored(self, harness: PushHarness) -> None:
        """A message of a type without a handler is answered ``ignored``."""
        service = await self._serve(harness)
        if service is None:
            return
        answer = await service.send(await harness.genuine(_OUTCOMES["an unknown type"].body))
        assert answer.json() == {"status": "ignored"}

    async def test_31_what_cannot_be_kept_is_answered_503(self, harness: PushHarness) -> None:
        """If the dead-letter store is down, an undecodable message is answered 503 and stays with the broker."""
        service = await self._serve(harness)
        if service is None:
            return

        def down(_subscription: str) -> DeadLetterStore:
            raise Unavailable("The store is down.")

        vars(service.bus).update(_dead_letters=down)
        answer = await service.send(await harness.genuine(b"poison"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"].isdecimal()

    async def test_32_same_id_twice(self, harness: PushHarness) -> None:
        """A message pushed twice is handled once if the backend deduplicates, else twice, and answered 200."""
        service = await self._serve(harness)
        if service is None:
            return
        statuses = [
            (await service.send(await harness.genuine(BODY, message_id="m-32", attempt=attempt))).status_code
            for attempt in (1, 2)
        ]
        assert statuses == [200, 200]
        ids = [message.delivery.message_id for message in service.handled if message.delivery]
        assert ids == ["m-32"] * (1 if DEDUPLICATION in self.capabilities else 2)

    async def test_61_push_subscription_made_by_hand_is_found(self, harness: PushHarness) -> None:
        """Without `delivery`, a push subscription to the service's own path means push; any other means pull."""
        bus, url = await harness.connect(), "https://by-hand.example/tested/events"
        ours = Subscription("tested-by-hand", bus.topics[TOPIC], TOPIC)
        if not await harness.subscribe_by_hand(url):
            assert not bus.creates_push, "the backend lists push subscriptions: override subscribe_by_hand"
            return
        assert bus.creates_push
        delivery, existing = await choose_delivery(bus, ours, events_path="/tested/events", base_url="")
        assert delivery == "push"
        assert existing is not None
        assert url in existing.push
        for path in ("/events/tested", "/other/events", "/v2/tested/events"):
            assert (await choose_delivery(bus, ours, events_path=path, base_url=""))[0] == "pull", path

    async def test_67_fields_that_are_not_strings_arrive_as_text(self, harness: PushHarness) -> None:
        """Numbers arrive as their JSON text, null as the empty string, objects and lists as compact JSON."""
        service = await self._serve(harness)
        if service is None:
            return
        body = f'{{"type":"{MESSAGE_TYPE}","id":42,"cid":null,"timestamp":1.5,"msg":{{"a": [1]}},"data":null}}'
        answer = await service.send(await harness.genuine(body.encode()))
        assert answer.json() == {"status": "success"}
        assert service.handled == [TotoMessage("1.5", "", "42", MESSAGE_TYPE, '{"a":[1]}', None)]

    async def test_67_object_without_a_type_is_answered_ignored(self, harness: PushHarness) -> None:
        """A JSON object without a type is ignored: not handled and not dead-lettered.

        Event Grid sends a type with each event. If the harness does, the message has that type.
        """
        service = await self._serve(harness)
        if service is None:
            return
        answer = await service.send(await harness.genuine(b'{"detail-type":"order","detail":{}}'))
        types = [one.delivery.attributes[TYPE_ATTRIBUTE] for one in service.handled if one.delivery]
        assert types in ([], [MESSAGE_TYPE])
        assert answer.json() == {"status": "success" if types else "ignored"}
        assert service.dead_lettered == []
