"""Push endpoints that are broken on purpose: the contract must see each, and pass the one that is not."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi import Request, Response

from support.local.push import LocalPushHarness
from support.messages.by_name import ByName
from totoms.context import new_cid
from totoms.errors import BackendError, Forbidden, NotFound, Unauthorized, Undecidable
from totoms.local.keys import push_key, signing_key
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.driver import PUSH
from totoms.messages.push.attempts import Failures, delivery_key
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.testing import PushContract
from totoms.testing.push import service as push_service

Accepted = PushReply | Sequence[Received]


async def received(request: PushRequest) -> list[Received]:
    """What a backend would decode that believes everything."""
    message_id = request.headers.get("x-totoms-message-id", new_cid())
    body = await request.read(verified=True)
    return [Received(body, message_id, 1, Subscription("push-posts", "posts-topic", "posts"))]


def claims_of(request: PushRequest) -> dict[str, Any]:
    parts = request.headers.get("authorization", "").rpartition(" ")[2].split(".")
    if len(parts) != 3:
        raise Unauthorized("no token")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return claims


def is_signed(request: PushRequest, key: bytes) -> bool:
    signed, _, signature = request.headers.get("authorization", "").rpartition(" ")[2].rpartition(".")
    return hmac.compare_digest(
        base64.urlsafe_b64encode(hmac.digest(key, signed.encode(), "sha256")).rstrip(b"=").decode(), signature
    )


class BelievesForgedTokens(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if claims_of(request).get("aud") != "totoms-push" or request.headers.get("x-totoms-topic") != "posts-topic":
            raise Forbidden("not for us")
        return await received(request)


class NeedsNoCredentials(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return await super()._accept_push(request) if "authorization" in request.headers else await received(request)


class AcceptsAnyTopic(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return await super()._accept_push(replace(request, headers={**request.headers, "x-totoms-topic": "posts"}))


class AcceptsExpired(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if claims_of(request).get("aud") == "totoms-push" and is_signed(request, push_key(self._root)):
            return await received(request)
        return await super()._accept_push(request)


class AcceptsAnyAudience(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if is_signed(request, push_key(self._root)):
            return await received(request)
        return await super()._accept_push(request)


class AcceptsUsers(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if is_signed(request, signing_key(self._root).encode()):
            return await received(request)
        return await super()._accept_push(request)


class AcceptsOtherAccounts(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        other = self._root.with_name(f"{self._root.name}-of-another")
        if is_signed(request, push_key(other)):
            return await received(request)
        return await super()._accept_push(request)


class AcceptsOtherEnvelopes(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return await received(request) if b'"TopicArn"' in request.body else await super()._accept_push(request)


class AgreesToBePushedToByAnybody(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        origin = request.headers.get("webhook-request-origin")
        return PushReply(headers={"webhook-allowed-origin": origin}) if origin else await super()._accept_push(request)


class FetchesToVerify(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 1), 0.1):
            pass
        return await super()._accept_push(request)


class KeepsForgeries(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        try:
            return await super()._accept_push(request)
        except (Unauthorized, Forbidden):
            await self._dead_letter((await received(request))[0], DeadLetterReason("forged"))
            raise


class QuotesCredentials(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        try:
            return await super()._accept_push(request)
        except Unauthorized:
            raise Unauthorized(f"not ours: {request.headers.get('authorization')}") from None


class CallsUnreachableKeysAForgery(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        try:
            return await super()._accept_push(request)
        except BackendError:
            raise Unauthorized("cannot verify") from None


class BelievesWhileKeysAreUnreachable(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        try:
            return await super()._accept_push(request)
        except BackendError:
            return await received(request)


class GivesNewIds(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        headers = {name: value for name, value in request.headers.items() if name != "x-totoms-message-id"}
        return await super()._accept_push(replace(request, headers=headers))


class ThrowsPoisonAway(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        body = await request.read(verified=True)
        accepted = await super()._accept_push(replace(request, source=body))
        try:
            json.loads(body)
        except ValueError:
            return PushReply(200, {"status": "success"})
        return accepted


class LosesDeadLetters(ByName, LocalMessageBus):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None: ...


class ForgetsWhatCameTwice(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        seen: set[str] = vars(self).setdefault("seen", set())
        accepted = await super()._accept_push(request)
        message_id = request.headers["x-totoms-message-id"]
        if message_id in seen:
            return PushReply()
        seen.add(message_id)
        return accepted


class ServesPushUndeclared(LocalMessageBus):
    capabilities = LocalMessageBus.capabilities - {PUSH}


class ListsPushSubscriptionsUntested(LocalMessageBus):
    creates_push = True


class RunsBeforeVerifying(PushEndpoint):
    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        answer = await self._handle(await received(PushRequest(dict(request.headers), body, "")))
        await self._bus._accept_push(PushRequest(dict(request.headers), body, ""))
        return answer


class RunsTwice(PushEndpoint):
    async def _handle(self, accepted: Sequence[Received]) -> Response:
        await super()._handle(accepted)
        return await super()._handle(accepted)


class SettlesFailures(PushEndpoint):
    async def _handle(self, accepted: Sequence[Received]) -> Response:
        answer = await super()._handle(accepted)
        return Response(status_code=200) if answer.status_code == 500 else answer


class AnswersThatItKeptWhatItDidNot(PushEndpoint):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        with contextlib.suppress(Exception):
            await super()._dead_letter(received, reason)


class TakesStringsOnly(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        accepted = await super()._accept_push(request)
        assert not isinstance(accepted, PushReply)
        return [replace(one, undecodable="no string" if b'"id":4' in one.body else "") for one in accepted]


class KeepsForeignMessages(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        accepted = await super()._accept_push(request)
        assert not isinstance(accepted, PushReply)
        return [replace(one, undecodable="foreign" if b'"type"' not in one.body else "") for one in accepted]


class HasALimitForBodiesOnly(LocalMessageBus):
    max_push_bytes = 64 * 1024


class ReadsBeforeVerifying(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        body = await request.read(verified=True)
        return await super()._accept_push(replace(request, source=body))


class TakesATurnBeforeVerifying(PushEndpoint):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "slot_patience": 0.0})

    async def _receive(self, request: Request) -> Any:
        await self._slots.take(0, self._slots.until())
        try:
            return await super()._receive(request)
        finally:
            self._slots.give()


class BelievesTheBrokersCount(PushEndpoint):
    async def _settle(self, received: Received, key: Any, until: float) -> Any:
        counted = received.attempt - 1
        vars(self._failures).update(of=lambda _key: counted)
        return await super()._settle(received, key, until)


class CountsFullAsAFailure(PushEndpoint):
    async def _settle(self, received: Received, key: Any, until: float) -> Any:
        ending = await super()._settle(received, key, until)
        if isinstance(ending, Undecidable):
            self._failures.add(key)
        return ending


class SettlesWhileDraining(PushEndpoint):
    async def _receive(self, request: Request) -> Any:
        return b"{}" if self._draining else await super()._receive(request)


class CountsNoFailures(PushEndpoint):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        vars(self._failures).update(add=lambda _key: None)


class CountsForAllProcesses(PushEndpoint):
    shared: ClassVar[Failures] = Failures()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._failures = self.shared


class RunsTheSecondRequestToo(PushEndpoint):
    async def _settle_once(self, received: Received, until: float) -> Any:
        return await self._settle(received, delivery_key(received), until)


@dataclass(frozen=True)
class Mutant:
    test: str
    bus: type[LocalMessageBus] = LocalMessageBus
    endpoint: type[PushEndpoint] = PushEndpoint
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.bus.__name__ if self.bus is not LocalMessageBus else self.endpoint.__name__


FORGERY = "test_29_forgery_is_refused"
MUTANTS = [
    Mutant("test_27_genuine_delivery_runs_the_handler_once", endpoint=RunsTwice),
    Mutant("test_27_genuine_delivery_runs_the_handler_once", GivesNewIds),
    Mutant("test_28_failure_is_answered_500", endpoint=SettlesFailures, arguments=("FAILED",)),
    Mutant(FORGERY, NeedsNoCredentials, arguments=("no credentials",)),
    Mutant(FORGERY, BelievesForgedTokens, arguments=("forged",)),
    Mutant(FORGERY, AcceptsExpired, arguments=("expired",)),
    Mutant(FORGERY, AcceptsAnyAudience, arguments=("wrong audience",)),
    Mutant(FORGERY, AcceptsOtherAccounts, arguments=("wrong account",)),
    Mutant(FORGERY, AcceptsAnyTopic, arguments=("wrong topic",)),
    Mutant(FORGERY, AcceptsOtherEnvelopes, arguments=("another cloud's envelope",)),
    Mutant(FORGERY, AcceptsUsers, arguments=("a user's API token",)),
    Mutant(FORGERY, FetchesToVerify, arguments=("forged",)),
    Mutant(FORGERY, KeepsForgeries, arguments=("forged",)),
    Mutant(FORGERY, QuotesCredentials, arguments=("forged",)),
    Mutant(FORGERY, endpoint=RunsBeforeVerifying, arguments=("forged",)),
    Mutant("test_29_handshake_of_a_stranger_is_refused", AgreesToBePushedToByAnybody),
    Mutant("test_29_handshake_of_a_stranger_is_refused", FetchesToVerify),
    Mutant("test_30_unreachable_keys_are_answered_503", CallsUnreachableKeysAForgery),
    Mutant("test_30_unreachable_keys_are_answered_503", BelievesWhileKeysAreUnreachable),
    Mutant("test_31_outcome_is_the_same_by_push_and_by_pull", ThrowsPoisonAway, arguments=("undecodable",)),
    Mutant("test_31_outcome_is_the_same_by_push_and_by_pull", LosesDeadLetters, arguments=("non-retryable",)),
    Mutant("test_31_what_cannot_be_kept_is_answered_503", endpoint=AnswersThatItKeptWhatItDidNot),
    Mutant("test_32_same_id_twice", ForgetsWhatCameTwice),
    Mutant("test_61_push_subscription_made_by_hand_is_found", ListsPushSubscriptionsUntested),
    Mutant("test_67_fields_that_are_not_strings_arrive_as_text", TakesStringsOnly),
    Mutant("test_67_object_without_a_type_is_answered_ignored", KeepsForeignMessages),
    Mutant("test_27_largest_message_arrives", HasALimitForBodiesOnly),
    Mutant(
        "test_29_unfinished_bodies_of_unknown_senders_block_nothing",
        ReadsBeforeVerifying,
        endpoint=TakesATurnBeforeVerifying,
    ),
    Mutant("test_58_absence_costs_no_message", endpoint=BelievesTheBrokersCount),
    Mutant("test_58_failing_message_is_dead_lettered_after_its_own_failures", endpoint=BelievesTheBrokersCount),
    Mutant("test_58_failing_message_is_dead_lettered_after_its_own_failures", endpoint=CountsNoFailures),
    Mutant("test_58_overload_costs_no_message", endpoint=CountsFullAsAFailure),
    Mutant("test_58_draining_costs_no_message", endpoint=SettlesWhileDraining),
    Mutant("test_58_each_process_counts_for_itself", endpoint=CountsForAllProcesses),
    Mutant(
        "test_58_second_request_for_a_message_waits_for_the_same_result",
        endpoint=RunsTheSecondRequestToo,
        arguments=("SUCCESS",),
    ),
]


class Declared(PushContract):
    __test__ = False
    backend = "local"
    capabilities = LocalMessageBus.capabilities


class WithoutPush(Declared):
    capabilities = LocalMessageBus.capabilities - {PUSH}


class WithDeduplication(Declared):
    capabilities = LocalMessageBus.capabilities | {"deduplication"}


Make = Callable[[type[LocalMessageBus]], LocalPushHarness]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[LocalPushHarness] = []

    def making(bus: type[LocalMessageBus]) -> LocalPushHarness:
        made.append(LocalPushHarness(tmp_path / f"root-{len(made)}", bus))
        return made[-1]

    yield making
    for harness in made:
        await harness.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_contract_sees_the_mutant(mutant: Mutant, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    test = getattr(Declared(), mutant.test)
    await test(make(LocalMessageBus), *mutant.arguments)

    monkeypatch.setattr(push_service, "PushEndpoint", mutant.endpoint)
    with pytest.raises((AssertionError, NotFound)):
        await test(make(mutant.bus), *mutant.arguments)


async def test_contract_sees_push_that_is_served_although_it_is_not_declared(make: Make) -> None:
    test = "test_27_genuine_delivery_runs_the_handler_once"
    with pytest.raises(AssertionError, match="declare"):
        await getattr(WithoutPush(), test)(make(LocalMessageBus))
    with pytest.raises(Unauthorized):  # and not Unsupported
        await getattr(WithoutPush(), test)(make(ServesPushUndeclared))


async def test_contract_sees_deduplication_that_is_declared_and_missing(make: Make) -> None:
    with pytest.raises(AssertionError):
        await WithDeduplication().test_32_same_id_twice(make(LocalMessageBus))
    await WithDeduplication().test_32_same_id_twice(make(ForgetsWhatCameTwice))


@pytest.mark.parametrize(
    ("forgery", "excuse"), [("forged", "it cannot be"), ("expired", "  "), ("wrong account", None)]
)
async def test_forgery_is_left_out_only_where_it_makes_no_sense_and_with_a_reason(
    make: Make, monkeypatch: pytest.MonkeyPatch, forgery: str, excuse: str | None
) -> None:
    harness = make(LocalMessageBus)
    real = await harness.forgeries(b"{}")

    async def given(_body: bytes) -> Any:
        return {
            name: excuse if name == forgery else one for name, one in real.items() if (name, excuse) != (forgery, None)
        }

    monkeypatch.setattr(harness, "forgeries", given)
    with pytest.raises(AssertionError, match=forgery):
        await Declared().test_29_forgery_is_refused(harness, forgery)


async def test_backend_without_push_passes_with_its_endpoint_closed(make: Make) -> None:
    from totoms.messages.bus import MessageBus

    class NoPush(ServesPushUndeclared):
        _accept_push = MessageBus._accept_push

    for name in dir(PushContract):
        if name.startswith("test_") and not name.startswith("test_00"):
            arguments = {
                "test_28": ["FAILED"],
                "test_29_forgery": ["forged"],
                "test_31_outcome": ["SUCCESS"],
                "test_58_second": ["FAILED"],
            }
            extra = next((given for start, given in arguments.items() if name.startswith(start)), [])
            await getattr(WithoutPush(), name)(make(NoPush), *extra)
