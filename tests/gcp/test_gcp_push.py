"""Push requests: payloads wrapped and not, and what the contract cannot see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from standins.gcp.pubsub import PubSubStandIn
from support.gcp.push import ACCOUNT, PubSubPushHarness
from support.http.app import KeyServer, rsa_key
from totoms.auth.jwks import COOLDOWN
from totoms.errors import Forbidden, TotoError, Unauthorized, Undecidable
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.testing import Pushed
from totoms_gcp.messages.bus import PubSubMessageBus

BODY = b'{"type":"postCreated"}'


@pytest.fixture(scope="module")
def server() -> Iterator[PubSubStandIn]:
    with PubSubStandIn() as made:
        yield made


@pytest.fixture(scope="module")
def keys() -> tuple[RSAPrivateKey, RSAPrivateKey]:
    return rsa_key(), rsa_key()


@pytest.fixture
async def pusher(server: PubSubStandIn, keys: tuple[RSAPrivateKey, RSAPrivateKey]) -> AsyncIterator[PubSubPushHarness]:
    key_server = KeyServer()
    key_server.keys["one"] = keys[0]
    with key_server.running():
        made = PubSubPushHarness(server, key_server, keys[1])
        yield made
        await made.close()


async def _accept(bus: PubSubMessageBus, pushed: Pushed) -> Received:
    accepted = await bus._accept_push(PushRequest(pushed.headers, pushed.body, PubSubPushHarness.url))
    assert isinstance(accepted, list)
    one: Received = accepted[0]
    return one


def _unwrapped(pusher: PubSubPushHarness, body: bytes, **headers: str) -> Pushed:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Pushed(body, {"authorization": f"Bearer {pusher.token()}", **given})


async def test_wrapped_payload_is_taken_apart(pusher: PubSubPushHarness) -> None:
    bus = await pusher.connect()
    one = await _accept(bus, pusher.request(BODY, pusher.token(), message_id="m-7", attempt=3))
    assert (one.body, one.message_id, one.attempt) == (BODY, "m-7", 3)
    assert (one.subscription.name, one.lease, one.attributes) == ("tested-posts", None, {"messageId": "m-7"})


async def test_unwrapped_payload_is_taken_with_its_metadata(pusher: PubSubPushHarness) -> None:
    bus = await pusher.connect()
    pushed = _unwrapped(
        pusher,
        BODY,
        x_goog_pubsub_subscription_name=pusher.path,
        x_goog_pubsub_message_id="17",
        messageid="m-8",
        messagetype="postCreated",
        traceparent="00-1",
        contenttype="application/json",
        host="shop.example",
    )
    one = await _accept(bus, pushed)
    assert (one.body, one.message_id, one.attempt) == (BODY, "m-8", 1)
    assert one.attributes == {
        "messageId": "m-8",
        "messageType": "postCreated",
        "traceparent": "00-1",
        "contentType": "application/json",
    }


async def test_unwrapped_payload_of_another_program_is_named_by_pubsub(pusher: PubSubPushHarness) -> None:
    pushed = _unwrapped(pusher, BODY, x_goog_pubsub_subscription_name=pusher.path, x_goog_pubsub_message_id="17")
    assert (await _accept(await pusher.connect(), pushed)).message_id == "17"


async def test_unwrapped_payload_that_looks_like_an_envelope_is_a_payload(pusher: PubSubPushHarness) -> None:
    body = json.dumps({"message": {"data": "eA=="}, "subscription": f"{pusher.path}-of-another"}).encode()
    pushed = _unwrapped(pusher, body, x_goog_pubsub_subscription_name=pusher.path)
    assert (await _accept(await pusher.connect(), pushed)).body == body


async def test_unwrapped_payload_without_metadata_is_of_the_only_subscription(pusher: PubSubPushHarness) -> None:
    assert (await _accept(await pusher.connect(), _unwrapped(pusher, BODY))).body == BODY


async def test_unwrapped_payload_of_a_foreign_subscription_is_refused(pusher: PubSubPushHarness) -> None:
    pushed = _unwrapped(pusher, BODY, x_goog_pubsub_subscription_name=f"{pusher.path}-of-another")
    with pytest.raises(Forbidden):
        await _accept(await pusher.connect(), pushed)


@pytest.mark.parametrize("message", [None, 7, [], {"data": 7}, {"data": "no base64!"}, {"data": ["eA=="]}])
async def test_envelope_that_makes_no_sense_is_handed_on_as_it_is(pusher: PubSubPushHarness, message: Any) -> None:
    body = json.dumps({"message": message, "subscription": pusher.path}).encode()
    one = await _accept(await pusher.connect(), _unwrapped(pusher, body))
    assert one.body == body
    assert one.undecodable  # JSON without a type that it is, it would be ignored otherwise


@pytest.mark.parametrize("attempt", [None, 0, -1, True, "x", 1.5, "9" * 5000])
async def test_invalid_attempt_counts_as_the_first(pusher: PubSubPushHarness, attempt: Any) -> None:
    envelope = {"message": {"data": "eA=="}, "subscription": pusher.path, "deliveryAttempt": attempt}
    one = await _accept(await pusher.connect(), _unwrapped(pusher, json.dumps(envelope).encode()))
    assert (one.body, one.attempt) == (b"x", 1)


async def test_both_spellings_of_the_issuer_are_googles(pusher: PubSubPushHarness) -> None:
    bus = await pusher.connect()
    for issuer in ("https://accounts.google.com", "accounts.google.com"):
        await _accept(bus, pusher.request(BODY, pusher.token(iss=issuer)))


_WRONG: Mapping[str, Mapping[str, Any]] = {
    "issuer": {"iss": "https://accounts.google.com.evil.example"},
    "no issuer": {"iss": None},
    "audience in a list": {"aud": [PubSubPushHarness.url]},
    "no audience": {"aud": None},
    "audience with a slash": {"aud": f"{PubSubPushHarness.url}/"},
    "email not verified": {"email_verified": False},
    "email verified in words": {"email_verified": "yes"},
    "no email": {"email": None},
    "email in a list": {"email": [ACCOUNT]},
    "email in capitals": {"email": ACCOUNT.upper()},
    "email with an ending": {"email": f"{ACCOUNT}.evil.example"},
    "never expires": {"exp": None},
    "expires as text": {"exp": "9999999999"},
}


@pytest.mark.parametrize("wrong", _WRONG)
async def test_token_that_is_wrong_in_one_claim_is_refused(pusher: PubSubPushHarness, wrong: str) -> None:
    bus = await pusher.connect()
    with pytest.raises((Unauthorized, Forbidden)):
        await _accept(bus, pusher.request(BODY, pusher.token(**_WRONG[wrong])))
    await _accept(bus, pusher.request(BODY, pusher.token()))


@pytest.mark.parametrize("algorithm", ["HS256", "none", "RS384"])
async def test_token_of_another_algorithm_is_refused(
    pusher: PubSubPushHarness, keys: tuple[RSAPrivateKey, RSAPrivateKey], algorithm: str
) -> None:
    claims = jwt.decode(pusher.token(), options={"verify_signature": False})
    key: Any = {"HS256": "k" * 32, "none": None, "RS384": keys[0]}[algorithm]
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "one"})
    with pytest.raises(Unauthorized):
        await _accept(await pusher.connect(), pusher.request(BODY, token))


async def test_key_that_is_not_known_yet_is_never_final_for_a_message(
    pusher: PubSubPushHarness, keys: tuple[RSAPrivateKey, RSAPrivateKey]
) -> None:
    bus = await pusher.connect()
    await _accept(bus, pusher.request(BODY, pusher.token()))
    claims = jwt.decode(pusher.token(), options={"verify_signature": False})
    rotated = jwt.encode(claims, keys[1], algorithm="RS256", headers={"kid": "two"})
    with pytest.raises(Undecidable) as caught:
        await _accept(bus, pusher.request(BODY, rotated))
    assert 1 <= caught.value.retry_after <= COOLDOWN


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c, Bearer d.e.f", "Bearer ü.b.c"])
async def test_what_is_not_a_token_is_refused(pusher: PubSubPushHarness, value: str) -> None:
    pushed = Pushed(pusher.request(BODY, "").body, {"authorization": value})
    with pytest.raises(Unauthorized):
        await _accept(await pusher.connect(), pushed)


async def test_without_an_account_nothing_is_accepted(pusher: PubSubPushHarness) -> None:
    bus = pusher.bus(push_service_account="", push_audience=pusher.url)
    with pytest.raises(Forbidden, match="GCP_PUSH_SERVICE_ACCOUNT"):
        await _accept(bus, await pusher.genuine(BODY))


async def test_without_a_known_address_the_requested_one_is_not_believed(pusher: PubSubPushHarness) -> None:
    with pytest.raises(Forbidden, match="GCP_PUSH_AUDIENCE"):
        await _accept(pusher.bus(), await pusher.genuine(BODY))


async def test_subscription_that_the_operator_made_is_looked_up_once(
    pusher: PubSubPushHarness, server: PubSubStandIn
) -> None:
    await pusher.connect()  # makes it
    bus = pusher.bus(push_audience=pusher.url)
    server.calls.clear()
    for _ in range(2):
        one = await _accept(bus, await pusher.genuine(BODY))
        assert (one.subscription.name, one.subscription.logical_name) == ("tested-posts", "posts")
    assert server.calls == {"GetSubscription": 1}


async def test_subscription_of_the_operators_to_another_topic_is_refused(
    pusher: PubSubPushHarness, server: PubSubStandIn
) -> None:
    await pusher.connect()
    bus = pusher.bus(push_audience=pusher.url)
    bus.topics["posts"] = "another-topic"
    for path in (pusher.path, f"{pusher.path}-missing", "", "projects/p"):
        with pytest.raises(TotoError):
            await _accept(bus, pusher.request(BODY, pusher.token(), path=path or " "))


async def test_replayed_dead_letter_is_taken(pusher: PubSubPushHarness) -> None:
    bus = await pusher.connect()
    one = await _accept(bus, pusher.request(BODY, pusher.token(), path=f"{pusher.path}-replay"))
    assert one.subscription.name == "tested-posts"


async def test_every_subscription_that_the_operator_made_is_taken(pusher: PubSubPushHarness) -> None:
    await pusher.connect()
    maker = pusher.bus()
    other = Subscription("tested-orders", "orders-topic", "orders", delivery="push", push_url=pusher.url)
    await maker._subscriptions.create_topic(maker._subscriptions.topic(other))
    await maker._subscribe_push(other, create=True)
    bus = pusher.bus(push_audience=pusher.url)
    bus.topics["orders"] = "orders-topic"
    for name in ("posts", "orders", "posts"):
        path = pusher.path.replace("posts", name)
        one = await _accept(bus, pusher.request(BODY, pusher.token(), path=path))
        assert one.subscription.logical_name == name


async def test_replayed_dead_letter_of_a_subscription_that_the_operator_made_is_taken(
    pusher: PubSubPushHarness,
) -> None:
    await (await pusher.connect())._subscriptions.create_replay(pusher.path)
    bus = pusher.bus(push_audience=pusher.url)
    one = await _accept(bus, pusher.request(BODY, pusher.token(), path=f"{pusher.path}-replay"))
    assert one.subscription.name == "tested-posts"
