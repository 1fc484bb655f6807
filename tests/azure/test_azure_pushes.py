"""Pushes of Event Grid: verification, parsing and topics, beyond what the contract tests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import http.server
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.azure.push import AUDIENCE, RESOURCE, SECRET, SUBSCRIBED, TENANT, TOPIC_ID, AzurePushHarness, EventGrid
from support.http.app import KeyServer, encode, rsa_key, sign
from totoms.auth import jwks
from totoms.errors import ConfigurationError, Forbidden, Unauthorized, Undecidable
from totoms.messages.bus import MessageBus
from totoms.messages.message import ProcessingResponse, ProcessingStatus, TotoMessage, encode_message
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms.testing import Pushed
from totoms.testing.push.service import PushedService, succeed
from totoms_azure.configuration import PUBLIC, AzureConfiguration
from totoms_azure.messages import event_grid
from totoms_azure.messages.event_grid import MOST_EVENTS, Event, parse_events
from totoms_azure.messages.push import PushReceiver

BODY = b'{"type":"postCreated","id":"post-1"}'
ORIGIN = {"webhook-request-origin": "eventgrid.azure.net"}


@pytest.fixture(scope="module")
def keys() -> tuple[RSAPrivateKey, RSAPrivateKey]:
    return rsa_key(), rsa_key()


@pytest.fixture
def key_server(keys: tuple[RSAPrivateKey, RSAPrivateKey], monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    monkeypatch.setattr(jwks, "FAILED_COOLDOWN", 0.0)
    server = KeyServer()
    server.keys["one"] = keys[0]
    with server.running():
        yield server


Harnessed = AsyncIterator[AzurePushHarness]


@pytest.fixture
async def harness(key_server: KeyServer, keys: tuple[RSAPrivateKey, RSAPrivateKey]) -> Harnessed:
    made = AzurePushHarness(EventGrid(key_server), keys[1])
    yield made
    await made.close()


@pytest.fixture
async def cloud(key_server: KeyServer, keys: tuple[RSAPrivateKey, RSAPrivateKey]) -> Harnessed:
    made = AzurePushHarness(EventGrid(key_server, "secret", cloud_events=True), keys[1])
    yield made
    await made.close()


async def _ask(bus: MessageBus, pushed: Pushed) -> Any:
    return await bus._accept_push(PushRequest(pushed.headers, pushed.body, AzurePushHarness.url, pushed.method))


async def _accept(bus: MessageBus, pushed: Pushed) -> list[Received]:
    accepted = await _ask(bus, pushed)
    assert isinstance(accepted, list)
    return accepted


async def _bodies(bus: MessageBus, pushed: Pushed) -> list[bytes]:
    return [received.body for received in await _accept(bus, pushed)]


# --- who is believed ---


@pytest.mark.parametrize("version", ["token", "second_token"])
async def test_tokens_of_both_versions_are_taken(harness: AzurePushHarness, version: str) -> None:
    token = getattr(harness.grid, version)()
    pushed = harness.grid.request(harness.grid.event(BODY), headers={"authorization": f"bearer {token}"})
    assert await _bodies(await harness.connect(), pushed) == [BODY]


V2 = f"https://login.microsoftonline.com/{TENANT}/v2.0"
OTHER = TENANT.replace("0f0f", "1f1f")
_WRONG: Mapping[str, Mapping[str, Any]] = {
    "another tenant": {"iss": f"https://sts.windows.net/{OTHER}/", "tid": OTHER},
    "issuer without its slash": {"iss": f"https://sts.windows.net/{TENANT}"},
    "issuer of version 2 with a slash": {"iss": f"{V2}/", "azp": PUBLIC.event_grid},
    "look-alike issuer": {"iss": f"https://sts.windows.net.evil.example/{TENANT}/"},
    "issuer in capitals": {"iss": f"https://sts.windows.net/{TENANT.upper()}/"},
    "issuer in a list": {"iss": [f"https://sts.windows.net/{TENANT}/"]},
    "no issuer": {"iss": None},
    "another application": {"appid": "00000000-0000-0000-0000-000000000000"},
    "application in capitals": {"appid": PUBLIC.event_grid.upper()},
    "application in a list": {"appid": [PUBLIC.event_grid]},
    "no application": {"appid": None},
    "application in the claim of version 2 only": {"appid": None, "azp": PUBLIC.event_grid},
    "version 2 with the claim of version 1 only": {"iss": V2},
    "audience in a list": {"aud": [AUDIENCE]},
    "audience with a slash": {"aud": f"{AUDIENCE}/"},
    "no audience": {"aud": None},
    "never expires": {"exp": None},
    "expires as text": {"exp": "9999999999"},
    # Not reckoned from the time of import: the test may run any while after it.
    "expired": {"exp": 1_000_000_000},
    "not valid yet": {"nbf": 32_503_680_000},
}


@pytest.mark.parametrize("wrong", _WRONG)
async def test_token_that_is_wrong_in_one_claim_is_refused_and_no_key_is_fetched_for_it(
    harness: AzurePushHarness, wrong: str
) -> None:
    bus = await harness.connect()
    forged = {"authorization": f"Bearer {harness.grid.token(**_WRONG[wrong])}"}
    with pytest.raises((Unauthorized, Forbidden)):
        await _ask(bus, harness.grid.request(harness.grid.event(BODY), headers=forged))
    assert harness.grid.key_server.fetches == 0
    assert await _bodies(bus, await harness.genuine(BODY)) == [BODY]


def _unsigned(harness: AzurePushHarness) -> str:
    claims = jwt.decode(harness.grid.token(), options={"verify_signature": False})
    return jwt.encode(claims, None, algorithm="none", headers={"kid": "one"})


def _signed_with_the_public_key(harness: AzurePushHarness) -> str:
    public = harness.grid.key_server.keys["one"].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    payload = harness.grid.token().split(".")[1]
    header = encode(b'{"alg":"HS256","kid":"one"}').decode()
    return f"{header}.{payload}." + encode(hmac.digest(pem, f"{header}.{payload}".encode(), "sha256")).decode()


def _with_header(**header: Any) -> Any:
    def made(harness: AzurePushHarness) -> str:
        payload = jwt.decode(harness.grid.token(), options={"verify_signature": False})
        head = {"alg": "RS256", "kid": "one", **header}
        return sign(json.dumps(head).encode(), json.dumps(payload).encode(), lambda _signed: b"x" * 256)

    return made


_FORGED: Mapping[str, Any] = {
    "alg none": _unsigned,
    "RS256 to HS256": _signed_with_the_public_key,
    "kid that is a path": _with_header(kid="../../../../dev/null"),
    "kid that is a number": _with_header(kid=1),
    "kid of 1 MB": _with_header(kid="k" * 1_000_000),
    "jku": _with_header(jku="http://127.0.0.1:1/keys"),
    "unknown crit": _with_header(crit=["x"]),
    "no token": lambda _harness: "",
    "no JWT": lambda _harness: "a.b",
    "non-ASCII": lambda _harness: "ü.b.c",
    "20 MB": lambda _harness: "a." * 10_000_000,
    "depth 5,000": lambda _harness: f"{encode(b'[' * 5000).decode()}.e30.e30",
    "two": lambda harness: f"{harness.grid.token()}, Bearer {harness.grid.token()}",
}


@pytest.mark.parametrize("forged", _FORGED)
async def test_forged_token_is_refused(harness: AzurePushHarness, forged: str) -> None:
    bus = await harness.connect()
    headers = {"authorization": f"Bearer {_FORGED[forged](harness)}"}
    with pytest.raises(Unauthorized):
        await _ask(bus, harness.grid.request(harness.grid.event(BODY), headers=headers))
    assert await _bodies(bus, await harness.genuine(BODY)) == [BODY]
    assert harness.grid.key_server.fetches == 1


@pytest.mark.parametrize("value", ["", "Bearer", "Basic abc", PUBLIC.event_grid])
async def test_authorization_that_is_not_a_token_is_refused(harness: AzurePushHarness, value: str) -> None:
    bus = await harness.connect()
    for sent in (value, f"Basic {harness.grid.token()}", harness.grid.token()):
        with pytest.raises(Unauthorized):
            await _ask(bus, harness.grid.request(harness.grid.event(BODY), headers={"authorization": sent}))


_WRONG_SECRETS = {
    "empty": "",
    "a prefix": SECRET[:-1],
    "longer": f"{SECRET}x",
    "in capitals": SECRET.upper(),
    "twice": f"{SECRET}, {SECRET}",
    "non-ASCII": f"{SECRET[:-1]}é",
    "beyond latin-1": f"{SECRET[:-1]}☃",
    "a lone surrogate": f"{SECRET[:-1]}\ud800",
    "another": "x" * 45,
}


@pytest.mark.parametrize("wrong", _WRONG_SECRETS)
async def test_wrong_secret_is_refused(cloud: AzurePushHarness, wrong: str) -> None:
    bus = await cloud.connect()
    headers = {"x-totoms-push-secret": _WRONG_SECRETS[wrong]}
    with pytest.raises(Unauthorized):
        await _ask(bus, cloud.grid.request(cloud.grid.event(BODY), headers=headers))
    assert await _bodies(bus, await cloud.genuine(BODY)) == [BODY]


async def test_secret_that_is_not_ascii_is_compared_by_its_bytes(cloud: AzurePushHarness) -> None:
    secret = "gehéim" * 6
    bus = cloud.bus(push_secret=secret)
    sent = {"x-totoms-push-secret": secret.encode().decode("latin-1")}  # as the core reads the bytes of a header
    assert await _bodies(bus, cloud.grid.request(cloud.grid.event(BODY), headers=sent)) == [BODY]


async def test_either_credential_is_enough_where_both_are_set_and_a_wrong_one_is_never_made_good(
    harness: AzurePushHarness,
) -> None:
    bus = harness.bus(push_secret=SECRET)
    event = harness.grid.event(BODY)
    token, secret = harness.grid.credentials(), {"x-totoms-push-secret": SECRET}
    bad_token, bad_secret = {"authorization": "Bearer a.b.c"}, {"x-totoms-push-secret": "x" * 40}
    for good in (token, secret, {**token, **secret}):
        assert await _bodies(bus, harness.grid.request(event, headers=good)) == [BODY]
    for bad in ({}, {**token, **bad_secret}, {**bad_token, **secret}, bad_token, bad_secret):
        with pytest.raises(Unauthorized):
            await _ask(bus, harness.grid.request(event, headers=bad))


async def test_what_is_not_set_up_is_not_looked_at(harness: AzurePushHarness, cloud: AzurePushHarness) -> None:
    pushed = harness.grid.request(harness.grid.event(BODY))
    both = Pushed(pushed.body, {**pushed.headers, "x-totoms-push-secret": "of old"})
    assert await _bodies(await harness.connect(), both) == [BODY]
    pushed = cloud.grid.request(cloud.grid.event(BODY))
    both = Pushed(pushed.body, {**pushed.headers, "authorization": "Basic of-a-proxy"})
    assert await _bodies(await cloud.connect(), both) == [BODY]


@pytest.mark.parametrize("settings", [{}, {"push_audience": AUDIENCE}, {"push_tenant": TENANT}])
async def test_without_settings_nothing_is_accepted_and_the_error_names_them(
    harness: AzurePushHarness, settings: dict[str, str]
) -> None:
    none = {"push_secret": "", "push_audience": "", "push_tenant": "", **settings}
    bus = harness.bus(**none)
    for pushed in (await harness.genuine(BODY), Pushed(b"", {"x-totoms-push-secret": ""})):
        with pytest.raises(Forbidden, match=r"AZURE_PUSH_SECRET.*AZURE_PUSH_AUDIENCE.*AZURE_PUSH_TENANT_ID"):
            await _ask(bus, pushed)
    with pytest.raises(Forbidden):
        await _ask(bus, Pushed(b"", ORIGIN, "OPTIONS"))


@pytest.mark.parametrize(
    "tenant", ["common", "contoso.onmicrosoft.com", "../x", f"{TENANT}/../y", f"{TENANT}\n{TENANT}", "é"]
)
def test_tenant_that_is_not_an_id_never_comes_into_an_address(tenant: str) -> None:
    settings = AzureConfiguration(push_audience=AUDIENCE, push_tenant=tenant)
    with pytest.raises(ConfigurationError, match="AZURE_PUSH_TENANT_ID"):
        PushReceiver(settings, {"posts": "posts-topic"})


async def test_tenant_in_capitals_is_the_same(harness: AzurePushHarness) -> None:
    assert await _bodies(harness.bus(push_tenant=TENANT.upper()), await harness.genuine(BODY)) == [BODY]


async def test_keys_out_of_reach_leave_it_undecided(harness: AzurePushHarness) -> None:
    bus = await harness.connect()
    harness.grid.key_server.status = 503
    with pytest.raises(Undecidable):
        await _ask(bus, await harness.genuine(BODY))
    harness.grid.key_server.status = 200
    assert await _bodies(bus, await harness.genuine(BODY)) == [BODY]


# --- what is taken apart ---


async def test_event_of_event_grids_schema_is_taken_apart(harness: AzurePushHarness) -> None:
    (one,) = await _accept(await harness.connect(), await harness.genuine(BODY, message_id="m-7", attempt=3))
    assert (one.body, one.message_id, one.attempt, one.lease) == (BODY, "m-7", 3, None)
    assert one.subscription.name == SUBSCRIBED
    assert one.attributes == {"messageType": "postCreated"}


async def test_cloud_event_is_taken_apart(cloud: AzurePushHarness) -> None:
    told = {
        "specversion": "1.0",
        "type": "postCreated",
        "source": TOPIC_ID,
        "id": "m-8",
        "time": "2025-11-23T12:00:00Z",
        "traceparent": "00-1",
        "datacontenttype": "application/json",
        "data": {"type": "postCreated"},
    }
    (one,) = await _accept(await cloud.connect(), cloud.grid.request(json.dumps(told).encode(), attempt=2))
    assert (one.body, one.message_id, one.attempt) == (b'{"type": "postCreated"}', "m-8", 2)
    assert one.attributes == {
        "messageType": "postCreated",
        "traceparent": "00-1",
        "contentType": "application/json",
    }


async def test_several_events_come_in_their_order(harness: AzurePushHarness, cloud: AzurePushHarness) -> None:
    for sender in (harness, cloud):
        events = [sender.grid.event(b'{"n":%d}' % number, message_id=str(number)) for number in range(3)]
        accepted = await _accept(await sender.connect(), sender.grid.request(*events))
        assert [(one.message_id, one.body) for one in accepted] == [(str(n), b'{"n":%d}' % n) for n in range(3)]


_EXACT = {
    "long integers": b'{"n": 123456789012345678901234567890, "m": -9223372036854775809}',
    "floats": b'{"a": 1.10, "b": 1e400, "c": 0.1000000000000000055511151231257827, "d": -0.0}',
    "integers of 5,000 digits": b'{"n": ' + b"9" * 5000 + b"}",
    "NaN": b'{"n": NaN}',
    "depth 5,000": b'{"n": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a lone surrogate": b'{"n": "\\ud800"}',
    "a name twice": b'{"a": 1, "a": 2}',
    "brackets in texts": b'{"a": "]}\\",[{\\\\", "}": "\\\\\\""}',
    "spaces": b'{ "a" :\n1 ,\t"b":[ ] }',
    "not UTF-8": b'{"a": "\xff"}',
}


@pytest.mark.parametrize("case", _EXACT)
async def test_message_comes_out_byte_for_byte(harness: AzurePushHarness, cloud: AzurePushHarness, case: str) -> None:
    for sender in (harness, cloud):
        template = sender.grid.event(b'{"here":0}', message_id="m")
        pushed = sender.grid.request(template.replace(b'{"here":0}', _EXACT[case]), sender.grid.event(BODY))
        accepted = await _accept(await sender.connect(), pushed)
        assert [(one.message_id, one.body) for one in accepted] == [("m", _EXACT[case]), ("m-1", BODY)]


@pytest.mark.parametrize("text", ["", "ein Beitrag: é", '{"type":"postCreated"}', "\x00"])
async def test_text_is_taken_as_utf_8(harness: AzurePushHarness, text: str) -> None:
    event = json.dumps({"id": "m", "topic": TOPIC_ID, "eventType": "x", "data": text}).encode()
    assert await _bodies(await harness.connect(), harness.grid.request(event)) == [text.encode()]


async def test_base64_is_decoded(cloud: AzurePushHarness) -> None:
    every = bytes(range(256))
    told = {"specversion": "1.0", "type": "x", "source": TOPIC_ID, "id": "m", "data_base64": base64.b64encode(every)}
    event = json.dumps(told, default=bytes.decode).encode()
    assert await _bodies(await cloud.connect(), cloud.grid.request(event)) == [every]


TOLD: dict[str, Any] = {"id": "m", "topic": TOPIC_ID, "eventType": "postCreated", "type": "postCreated"}
CLOUD: dict[str, Any] = {"specversion": "1.0", "type": "postCreated", "source": TOPIC_ID, "id": "m"}
_SENSELESS: Mapping[str, Any] = {
    "no data": TOLD,
    "null": {**TOLD, "data": None},
    "a lone surrogate": {**TOLD, "data": "\ud800"},
    "no data, in a CloudEvent": CLOUD,
    "no base64": {**CLOUD, "data_base64": "no base64!"},
    "base64 that is a number": {**CLOUD, "data_base64": 7},
    "an older version": {**CLOUD, "specversion": "0.3", "data": {"type": "postCreated"}},
    "a version in a list": {**CLOUD, "specversion": ["1.0"], "data": {"type": "postCreated"}},
    "no topic": {"id": "m", "type": "postCreated", "eventType": "postCreated", "data": {"type": "postCreated"}},
    "a topic in a list": {**TOLD, "topic": [TOPIC_ID], "data": 7},
    "an empty object": {},
    "a number": 7,
    "a text": "x",
    "a list": [{"type": "postCreated"}],
    "nothing": None,
}


@pytest.mark.parametrize("case", _SENSELESS)
async def test_senseless_event_is_kept_and_never_taken_for_a_message_and_the_good_ones_are_handled(
    harness: AzurePushHarness, case: str
) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    senseless = json.dumps(_SENSELESS[case]).encode()
    good = harness.grid.event(BODY, message_id="good")
    for events, handled in (((senseless,), 0), ((good, senseless, good), 2)):
        service.handled.clear()
        service.dead_lettered.clear()
        answer = await service.send(harness.grid.request(*events))
        assert answer.status_code == 200
        assert len(service.handled) == handled
        ((letter, reason),) = service.dead_lettered
        assert reason.reason == "undecodable"
        assert letter.body == b"[" + senseless + b"]"
        assert letter.subscription.name == SUBSCRIBED


_NO_EVENTS = {
    "empty": b"",
    "a number": b"7",
    "no JSON": b"poison",
    "no end": b'[{"id":"m"',
    "no end of a text": b'["' + b'\\"' * 9,
    "something after it": b"[][]",
    "no end of the outer": b"[[]",
    "another bracket": b"[}",
    "not UTF-8": b"\xff\xfe",
    "brackets": b"[" * 100_000,
    "another bracket at the end": b"[{}}",
}


@pytest.mark.parametrize("case", _NO_EVENTS)
async def test_body_that_makes_no_sense_is_kept_as_it_is(harness: AzurePushHarness, case: str) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    answer = await service.send(Pushed(_NO_EVENTS[case], harness.grid.request().headers))
    assert answer.status_code == 200
    assert [(letter.body, reason.reason) for letter, reason in service.dead_lettered] == [
        (_NO_EVENTS[case], "undecodable")
    ]


async def test_message_in_utf_16_in_place_of_events_is_not_read(harness: AzurePushHarness) -> None:
    # The standard library reads it, and it reads where an integer may be long: nineteen bytes that look like digits.
    body = '{"type":"postCreated","msg":"\u3030\u3030\u3030\u3030\u3030\u3030\u3030\u3030\u3030\u3030"}'
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        await service.send(Pushed(body.encode(encoding), harness.grid.request().headers))
    assert service.handled == []
    assert len(service.dead_lettered) == 4


async def test_large_body_is_taken_apart_in_linear_time(harness: AzurePushHarness) -> None:
    # Each of these takes minutes where a text is looked for again and again.
    for body in (
        b'["' + b'\\"' * 500_000 + b"]",
        b'["' + b"\\" * 999_999 + b"]",
        b'["' * 300_000 + b"]",
        b'{"a":' * 200_000 + b"}",
    ):
        assert await _bodies(await harness.connect(), Pushed(body, harness.grid.request().headers)) == [body]


async def test_empty_array_of_events_has_no_messages(harness: AzurePushHarness) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    for body in (b"[]", b" [ ] ", b"\xef\xbb\xbf[]"):
        answer = await service.send(Pushed(body, harness.grid.request().headers))
        assert (answer.status_code, service.handled, service.dead_lettered) == (200, [], [])


async def test_ids_that_are_too_long_are_distinguished_by_a_digest(harness: AzurePushHarness) -> None:
    ids = ["m" * 128, "m" * 1_000_000, "n" * 1_000_000]
    pushed = harness.grid.request(*(harness.grid.event(BODY, message_id=one) for one in ids))
    found = [one.message_id for one in await _accept(await harness.connect(), pushed)]
    assert found[0] == ids[0]
    assert len(set(found)) == 3
    assert max(len(one) for one in found) == 128


async def test_attributes_that_are_no_texts_or_too_long_are_left_out(cloud: AzurePushHarness) -> None:
    told = {**CLOUD, "type": "t" * 2000, "traceparent": 7, "datacontenttype": None, "id": 7, "data": {}}
    (one,) = await _accept(await cloud.connect(), cloud.grid.request(json.dumps(told).encode()))
    assert (one.attributes, one.message_id) == ({}, "")


@pytest.mark.parametrize(
    ("count", "attempt"), [("0", 1), ("4", 5), ("", 1), ("-1", 1), ("x", 1), ("²", 1), ("9" * 50, 1)]
)
async def test_attempt_is_one_more_than_were_made(harness: AzurePushHarness, count: str, attempt: int) -> None:
    pushed = await harness.genuine(BODY)
    (one,) = await _accept(
        await harness.connect(), Pushed(pushed.body, {**pushed.headers, "aeg-delivery-count": count})
    )
    assert one.attempt == attempt


# --- whose topic it is ---


@pytest.mark.parametrize("identifier", ["posts-topic", "POSTS-topic", TOPIC_ID, TOPIC_ID.upper(), f"{TOPIC_ID}/"])
@pytest.mark.parametrize("told", [TOPIC_ID, TOPIC_ID.upper(), f"{TOPIC_ID}#part"])
async def test_topic_is_named_by_its_id_or_the_end_of_it(
    harness: AzurePushHarness, cloud: AzurePushHarness, identifier: str, told: str
) -> None:
    for sender in (harness, cloud):
        bus = sender.bus({"posts": identifier})
        (one,) = await _accept(bus, sender.grid.request(sender.grid.event(BODY, topic=told)))
        assert (one.subscription.topic, one.subscription.logical_name) == (identifier, "posts")


_FOREIGN = {
    "another": f"{RESOURCE}other-topic",
    "an ending": f"{TOPIC_ID}-x",
    "a beginning": f"{RESOURCE}x-posts-topic",
    "deeper": f"{TOPIC_ID}/eventSubscriptions/x",
    "nothing": "",
    "a slash": "/",
    "after the sign": f"{RESOURCE}x#/posts-topic",
}


@pytest.mark.parametrize("case", _FOREIGN)
async def test_event_of_a_foreign_topic_is_refused(harness: AzurePushHarness, case: str) -> None:
    bus = await harness.connect()
    with pytest.raises(Forbidden):
        await _ask(bus, harness.grid.request(harness.grid.event(BODY, topic=_FOREIGN[case])))


async def test_topic_of_the_same_name_elsewhere_is_foreign_to_a_service_that_knows_its_id(
    harness: AzurePushHarness,
) -> None:
    bus = harness.bus({"posts": TOPIC_ID})
    with pytest.raises(Forbidden):
        await _ask(bus, harness.grid.request(harness.grid.event(BODY, topic=TOPIC_ID.replace("shop", "other"))))


async def test_topic_that_only_looks_alike_is_foreign(harness: AzurePushHarness) -> None:
    bus = harness.bus({"likes": "likes-topic"})
    assert await _bodies(bus, harness.grid.request(harness.grid.event(BODY, topic=f"{RESOURCE}LIKES-topic"))) == [BODY]
    with pytest.raises(Forbidden):  # the sign of Kelvin, of which the small letter is k
        await _ask(bus, harness.grid.request(harness.grid.event(BODY, topic=f"{RESOURCE}li\u212aes-topic")))


async def test_topic_of_a_domain_is_named_by_its_end(harness: AzurePushHarness) -> None:
    told = f"{RESOURCE.replace('/topics/', '/domains/')}shop/topics/posts-topic"
    assert await _bodies(await harness.connect(), harness.grid.request(harness.grid.event(BODY, topic=told))) == [BODY]


async def test_foreign_events_are_left_out_and_those_of_the_service_handled(harness: AzurePushHarness) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    grid = harness.grid
    foreign = grid.event(BODY.replace(b"post-1", b"foreign"), topic=f"{RESOURCE}other")
    answer = await service.send(grid.request(foreign, grid.event(BODY), b"7", foreign, grid.event(b"poison")))
    assert answer.status_code == 200
    assert [message.id for message in service.handled] == ["post-1"]
    assert sorted(letter.body for letter, _ in service.dead_lettered) == [b"[7]", b"poison"]
    answer = await service.send(grid.request(foreign, foreign))
    assert answer.status_code == 403


async def test_event_that_fails_comes_again_and_the_others_are_not_handled_twice(harness: AzurePushHarness) -> None:
    fail = {"bad"}

    def process(message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.FAILED if message.id in fail else ProcessingStatus.SUCCESS)

    service = PushedService(await harness.connect(), harness.url, process, RetryPolicy())
    events = [
        harness.grid.event(encode_message(TotoMessage(type="postCreated", id=name)), message_id=name)
        for name in ("a", "bad", "c")
    ]
    assert (await service.send(harness.grid.request(*events))).status_code == 500
    fail.clear()
    assert (await service.send(harness.grid.request(*events, attempt=2))).status_code == 200
    assert sorted(message.id for message in service.handled) == ["a", "bad", "bad", "c"]
    assert service.handled[-1].delivery is not None
    assert service.handled[-1].delivery.attempt == 2


async def test_source_that_the_publisher_chose_counts_only_with_the_name_of_the_subscription(
    cloud: AzurePushHarness,
) -> None:
    bus = await cloud.connect()
    for source in ("https://shop.example/orders", "posts-topic", "/orders/posts-topic", ""):
        pushed = cloud.grid.request(cloud.grid.event(BODY, topic=source))
        assert await _bodies(bus, pushed) == [BODY]
        for name in ("another", "", f"{SUBSCRIBED}x", "te\u017fted-posts"):
            with pytest.raises(Forbidden):
                await _ask(bus, Pushed(pushed.body, {**pushed.headers, "aeg-subscription-name": name}))
        nameless = {header: value for header, value in pushed.headers.items() if header != "aeg-subscription-name"}
        with pytest.raises(Forbidden):
            await _ask(bus, Pushed(pushed.body, nameless))


async def test_name_of_the_subscription_does_not_make_a_foreign_topic_the_services(cloud: AzurePushHarness) -> None:
    with pytest.raises(Forbidden):
        await _ask(await cloud.connect(), cloud.grid.request(cloud.grid.event(BODY, topic=f"{RESOURCE}other")))


async def test_events_go_to_the_subscription_of_their_topic(harness: AzurePushHarness, cloud: AzurePushHarness) -> None:
    for sender in (harness, cloud):
        bus = sender.bus({"posts": "posts-topic", "likes": "likes-topic"})
        await bus._subscribe_push(Subscription("tested-likes", "likes-topic", "likes", "push"), create=True)
        events = [sender.grid.event(BODY, topic=f"{RESOURCE}{name}-topic") for name in ("likes", "posts")]
        accepted = await _accept(bus, sender.grid.request(*events))
        assert [one.subscription.name for one in accepted] == ["tested-likes", "push-posts"]
    for name, wanted in (("TESTED-LIKES", "tested-likes"), ("other", "push-posts")):  # of what tells no topic
        pushed = harness.grid.request(b"7")
        headers = {**cloud.grid.credentials(), **pushed.headers, "aeg-subscription-name": name}
        (one,) = await _accept(bus, Pushed(pushed.body, headers))
        assert one.subscription.name == wanted


async def test_service_without_topics_accepts_nothing(harness: AzurePushHarness) -> None:
    pushes = PushReceiver(AzureConfiguration(push_secret=SECRET), {})
    request = PushRequest({"x-totoms-push-secret": SECRET}, b"[]", harness.url)
    with pytest.raises(Forbidden):
        await pushes.accept(request, {})


# --- handshakes ---


class _Recorder(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        vars(self.server)["asked"].append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def _recording() -> Iterator[tuple[str, list[str]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Recorder)
    asked: list[str] = []
    vars(server)["asked"] = asked
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/validate", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_subscription_is_confirmed_by_its_code_and_its_address_never_fetched(
    cloud: AzurePushHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cloud.grid.cloud_events = False
    service = PushedService(await cloud.connect(), cloud.url, succeed, RetryPolicy())
    with _recording() as (url, asked):
        pushed = cloud.grid.request(cloud.grid.validation(url), kind="SubscriptionValidation")
        before = cloud.outbound_requests()
        answer = await service.send(pushed)
        assert (answer.status_code, answer.json()) == (200, {"validationResponse": "512d38b6"})
        assert "Confirmed the event subscription" in caplog.text
        refused = await service.send(Pushed(pushed.body, {"aeg-event-type": "SubscriptionValidation"}))
        assert refused.status_code == 401
        assert "neither a secret nor a token" in caplog.text
        foreign = cloud.grid.validation(url, topic=f"{RESOURCE}other")
        assert (await service.send(cloud.grid.request(foreign, kind="SubscriptionValidation"))).status_code == 403
        nothing = cloud.grid.validation(url, data={"validationUrl": url})
        assert (await service.send(cloud.grid.request(nothing, kind="SubscriptionValidation"))).status_code == 403
        assert cloud.outbound_requests() == before
        await asyncio.to_thread(httpx.get, url)
        assert asked == ["/validate"], "the server does not record"
    assert (service.handled, service.dead_lettered) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"eventType": "Microsoft.EventGrid.SubscriptionDeletedEvent"},
        {"eventType": None},
        {"topic": None},
        {"data": None},
        {"data": "x"},
        {"data": ["validationCode"]},
        {"data": {}},
        {"data": {"validationCode": 7}},
        {"data": {"validationCode": ""}},
        {"data": {"validationCode": "x" * 2000}},
        {"topic": "", "specversion": "1.0"},
        {"source": TOPIC_ID, "type": "Microsoft.EventGrid.SubscriptionValidationEvent", "specversion": "1.0"},
    ],
)
async def test_invalid_handshake_is_refused(harness: AzurePushHarness, changes: dict[str, Any]) -> None:
    event = harness.grid.validation(**changes)
    with pytest.raises(Forbidden):
        await _ask(await harness.connect(), harness.grid.request(event, kind="SubscriptionValidation"))


async def test_handshake_brings_one_event_alone(harness: AzurePushHarness) -> None:
    bus = await harness.connect()
    one = harness.grid.validation()
    for events in ((), (one, one), (one, harness.grid.event(BODY)), (b"7",)):
        with pytest.raises(Forbidden):
            await _ask(bus, harness.grid.request(*events, kind="SubscriptionValidation"))


async def test_event_that_only_looks_like_a_handshake_is_an_event(harness: AzurePushHarness) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    answer = await service.send(harness.grid.request(harness.grid.validation()))
    assert answer.json() == {"status": "ignored"}
    assert service.dead_lettered == []


async def test_end_of_a_subscription_is_logged_and_nothing_done(
    harness: AzurePushHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bus = await harness.connect()
    event = harness.grid.validation(eventType="Microsoft.EventGrid.SubscriptionDeletedEvent")
    reply = await _ask(bus, harness.grid.request(event, kind="SubscriptionDeletion"))
    assert reply == PushReply(body={"status": "ignored"})
    assert "was deleted" in caplog.text
    foreign = harness.grid.validation(topic=f"{RESOURCE}other")
    with pytest.raises(Forbidden):
        await _ask(bus, harness.grid.request(foreign, kind="SubscriptionDeletion"))


@pytest.mark.parametrize(
    "origin", ["eventgrid.azure.net", "EventGrid.Azure.net", "eventgrid.azure.us", "eventgrid.azure.cn"]
)
async def test_event_grid_may_push_here_and_the_address_for_a_later_answer_is_never_fetched(
    cloud: AzurePushHarness, origin: str
) -> None:
    service = PushedService(await cloud.connect(), cloud.url, succeed, RetryPolicy())
    with _recording() as (url, asked):
        headers = {"WebHook-Request-Origin": origin, "WebHook-Request-Callback": url, "WebHook-Request-Rate": "120"}
        answer = await service.send(Pushed(b"", headers, "OPTIONS"))
        assert asked == []
    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == origin.lower()
    assert answer.headers["webhook-allowed-rate"] == "*"
    answer = await service.send(Pushed(b"", ORIGIN, "OPTIONS"))
    assert "webhook-allowed-rate" not in answer.headers
    pushed = await cloud.genuine(BODY)
    refused = await service.send(Pushed(pushed.body, ORIGIN))
    assert (refused.status_code, service.handled) == (401, [])


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "*",
        "evil.example",
        "eventgrid.azure.net.evil.example",
        "x.eventgrid.azure.net",
        "eventgrid.azure.net, evil.example",
        "https://eventgrid.azure.net",
        "eventgrid.azure.net\u200b",
    ],
)
async def test_handshake_of_another_origin_is_refused(harness: AzurePushHarness, origin: str) -> None:
    with pytest.raises(Forbidden):
        await _ask(await harness.connect(), Pushed(b"", {"webhook-request-origin": origin}, "OPTIONS"))


async def test_options_never_bring_messages(harness: AzurePushHarness) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    pushed = await harness.genuine(BODY)
    for headers in (pushed.headers, {**pushed.headers, **ORIGIN}):
        await service.send(Pushed(pushed.body, headers, "OPTIONS"))
    assert service.handled == []


async def test_refusals_reveal_nothing_of_what_was_sent(harness: AzurePushHarness) -> None:
    service = PushedService(await harness.connect(), harness.url, succeed, RetryPolicy())
    forged = harness.grid.token(appid="canary-4711")
    pushed = harness.grid.request(harness.grid.event(b'{"canary":4711}'), headers={"authorization": f"Bearer {forged}"})
    answer = await service.send(pushed)
    assert answer.status_code == 403
    assert "4711" not in answer.text
    assert forged not in answer.text


async def test_errors_are_all_of_the_projects_own(harness: AzurePushHarness) -> None:
    bus = await harness.connect()
    for body in (b"[" * 6000, b'{"a":' * 5000, b'["\\ud800"]', b"\x00", b'[{"":""}]', b'[{"a" 1}]', b"[{1:2}]"):
        for kind in ("Notification", "SubscriptionValidation", "SubscriptionDeletion", "else"):
            with contextlib.suppress(Forbidden):
                await _ask(bus, Pushed(body, {**harness.grid.request().headers, "aeg-event-type": kind}))


async def test_more_events_than_event_grid_sends_are_refused_before_any_is_looked_at(
    cloud: AzurePushHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[bytes] = []
    monkeypatch.setattr(event_grid, "_event", lambda text: looked_at.append(text) or Event(text))
    for number in (MOST_EVENTS + 1, 400_000):
        reply = await _ask(await cloud.connect(), cloud.grid.request(*[b"{}"] * number))
        assert isinstance(reply, PushReply)
        assert (reply.status, looked_at) == (413, [])


async def test_as_many_events_as_event_grid_sends_are_taken(cloud: AzurePushHarness) -> None:
    bus = await cloud.connect()
    pushed = cloud.grid.request(*[cloud.grid.event(BODY, message_id=str(number)) for number in range(MOST_EVENTS)])
    assert len(await _accept(bus, pushed)) == MOST_EVENTS


def test_work_for_an_event_grows_as_its_size_does() -> None:
    def steps(members: int) -> int:
        body = b'[{"id": "1", "data": {' + b",".join(b'"%d": [{}]' % number for number in range(members)) + b"}}]"
        counted = 0

        def count(_frame: Any, _event: str, _argument: Any) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            parse_events(body)
        finally:
            sys.setprofile(None)
        return counted

    assert steps(20_000) < 2.2 * steps(10_000)
