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
from typing import Any

import pytest
from fastapi import Request, Response

from local_push_kit import LocalPushHarness
from totoms.bus import PUSH
from totoms.context import new_cid
from totoms.envelope import DeadLetterReason, PushReply, PushRequest, Received, Subscription
from totoms.errors import BackendError, Forbidden, NotFound, Unauthorized
from totoms.local.bus import LocalMessageBus
from totoms.local.keys import push_key, signing_key
from totoms.push import PushEndpoint
from totoms.testing import PushContract, push_service

Accepted = PushReply | Sequence[Received]


def received(request: PushRequest) -> list[Received]:
    """What a backend would decode that believes everything."""
    message_id = request.headers.get("x-totoms-message-id", new_cid())
    return [Received(request.body, message_id, 1, Subscription("push-posts", "posts-topic", "posts"))]


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
        return received(request)


class NeedsNoCredentials(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return await super()._accept_push(request) if "authorization" in request.headers else received(request)


class AcceptsAnyTopic(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return await super()._accept_push(replace(request, headers={**request.headers, "x-totoms-topic": "posts"}))


class AcceptsExpired(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if claims_of(request).get("aud") == "totoms-push" and is_signed(request, push_key(self._root)):
            return received(request)
        return await super()._accept_push(request)


class AcceptsAnyAudience(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if is_signed(request, push_key(self._root)):
            return received(request)
        return await super()._accept_push(request)


class AcceptsUsers(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        if is_signed(request, signing_key(self._root).encode()):
            return received(request)
        return await super()._accept_push(request)


class AcceptsOtherAccounts(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        other = self._root.with_name(f"{self._root.name}-of-another")
        if is_signed(request, push_key(other)):
            return received(request)
        return await super()._accept_push(request)


class AcceptsOtherEnvelopes(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        return received(request) if b'"TopicArn"' in request.body else await super()._accept_push(request)


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
            await self._dead_letter(received(request)[0], DeadLetterReason("forged"))
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
            return received(request)


class GivesNewIds(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        headers = {name: value for name, value in request.headers.items() if name != "x-totoms-message-id"}
        return await super()._accept_push(replace(request, headers=headers))


class ThrowsPoisonAway(LocalMessageBus):
    async def _accept_push(self, request: PushRequest) -> Accepted:
        accepted = await super()._accept_push(request)
        try:
            json.loads(request.body)
        except ValueError:
            return PushReply(200, {"status": "success"})
        return accepted


class LosesDeadLetters(LocalMessageBus):
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


class RunsBeforeVerifying(PushEndpoint):
    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        answer = await self._handle(received(PushRequest(dict(request.headers), body, "")))
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
    async def _keep(self, received: Received, reason: DeadLetterReason) -> None:
        with contextlib.suppress(Exception):
            await super()._keep(received, reason)


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
    from totoms.bus import MessageBus

    class NoPush(ServesPushUndeclared):
        _accept_push = MessageBus._accept_push

    for name in dir(PushContract):
        if name.startswith("test_") and not name.startswith("test_00"):
            arguments = {"test_28": ["FAILED"], "test_29_forgery": ["forged"], "test_31_outcome": ["SUCCESS"]}
            extra = next((given for start, given in arguments.items() if name.startswith(start)), [])
            await getattr(WithoutPush(), name)(make(NoPush), *extra)
