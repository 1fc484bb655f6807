"""Push on the local bus: only requests with the folder's key are accepted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from support.local.bus import TOPIC, make_bus
from totoms.errors import Forbidden, TotoError, Unauthorized
from totoms.local.keys import push_key, signing_key
from totoms.local.messages.bus import LocalMessageBus
from totoms.local.messages.push import AUDIENCE, push_token
from totoms.messages.message import TotoMessage, encode_message
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received

BODY = encode_message(TotoMessage(type="posted", data={"number": 1}))


@pytest.fixture
async def pushed(local_root: str) -> AsyncIterator[LocalMessageBus]:
    bus = make_bus(local_root)
    yield bus
    await bus.close()


def request(authorization: str | None, topic: str | None = TOPIC, **headers: str) -> PushRequest:
    if authorization is not None:
        headers["authorization"] = authorization
    if topic is not None:
        headers["x-totoms-topic"] = topic
    return PushRequest({name.replace("_", "-"): value for name, value in headers.items()}, BODY, "http://svc/events")


def token(key: str | bytes, algorithm: str = "HS256", **claims: Any) -> str:
    made = {"aud": AUDIENCE, "exp": int(time.time()) + 60, **claims}
    made = {name: value for name, value in made.items() if value is not None}
    return f"Bearer {jwt.encode(made, key, algorithm=algorithm)}"


@pytest.mark.parametrize("topic", [TOPIC, "posts"])
async def test_genuine_push_is_received(pushed: LocalMessageBus, local_root: str, topic: str) -> None:
    genuine = request(f"Bearer {push_token(Path(local_root))}", topic, x_totoms_message_id="m-1", x_totoms_attempt="3")
    (received,) = await pushed._accept_push(genuine)  # type: ignore[misc]
    assert isinstance(received, Received)
    assert (received.body, received.message_id, received.attempt, received.lease) == (BODY, "m-1", 3, None)
    assert (received.subscription.topic, received.subscription.logical_name) == (TOPIC, "posts")


async def test_push_without_id_and_attempt_gets_them(pushed: LocalMessageBus, local_root: str) -> None:
    (received,) = await pushed._accept_push(request(f"Bearer {push_token(Path(local_root))}"))  # type: ignore[misc]
    assert isinstance(received, Received)
    assert received.message_id
    assert received.attempt == 1


@pytest.mark.parametrize("name", ["x_totoms_message_id", "x_totoms_attempt"])
@pytest.mark.parametrize("value", ["", "-1", "0", "1e9", "99999999999999999999", "a\nb", "é", "'; DROP", "x" * 1000])
async def test_strange_id_or_attempt_is_replaced(
    pushed: LocalMessageBus, local_root: str, name: str, value: str
) -> None:
    strange = request(f"Bearer {push_token(Path(local_root))}", **{name: value})
    (received,) = await pushed._accept_push(strange)  # type: ignore[misc]
    assert isinstance(received, Received)
    assert received.attempt >= 1
    assert received.message_id.isascii()
    assert 0 < len(received.message_id) <= 128
    assert "\n" not in received.message_id


@pytest.mark.filterwarnings("ignore:The HMAC key is")  # of PyJWT, about the forgeries
@pytest.mark.parametrize(
    "make",
    [
        lambda root: None,
        lambda root: "",
        lambda root: "Bearer",
        lambda root: "Bearer ",
        lambda root: "Bearer not.a.token",
        lambda root: "Bearer \u2603.\u2603.\u2603",
        lambda root: "Basic dXNlcjpwYXNz",
        lambda root: push_token(root),  # no scheme
        lambda root: f"Bearer {push_token(root)}, Bearer {push_token(root)}",  # two headers
        lambda root: f"Bearer {push_token(root)[:-2]}",
        lambda root: token("x" * 64),
        lambda root: token(signing_key(root)),  # a user's API token is signed with this key
        lambda root: token(push_key(root), exp=int(time.time()) - 1),
        lambda root: token(push_key(root), exp=None),
        lambda root: token(push_key(root), exp=str(int(time.time()) + 60)),
        lambda root: token(push_key(root), "HS512"),
        lambda root: token("", "none"),
    ],
)
async def test_push_without_a_genuine_token_is_unauthorized(
    pushed: LocalMessageBus, local_root: str, make: Any
) -> None:
    with pytest.raises(Unauthorized):
        await pushed._accept_push(request(make(Path(local_root))))


@pytest.mark.parametrize("audience", [None, "totoms", [AUDIENCE], "TOTOMS-PUSH", "totoms-push "])
async def test_genuine_token_for_another_audience_is_refused(
    pushed: LocalMessageBus, local_root: str, audience: Any
) -> None:
    with pytest.raises((Forbidden, Unauthorized)):
        await pushed._accept_push(request(token(push_key(Path(local_root)), aud=audience)))


@pytest.mark.parametrize("topic", [None, "", "other-topic", f"{TOPIC}, other-topic", f" {TOPIC}"])
async def test_topic_that_is_not_the_services_own_is_forbidden(
    pushed: LocalMessageBus, local_root: str, topic: str | None
) -> None:
    with pytest.raises(Forbidden):
        await pushed._accept_push(request(f"Bearer {push_token(Path(local_root))}", topic))


async def test_key_of_another_folder_opens_nothing(pushed: LocalMessageBus, tmp_path: Path) -> None:
    with pytest.raises(Unauthorized):
        await pushed._accept_push(request(f"Bearer {push_token(tmp_path / 'other')}"))


async def test_refusal_reveals_nothing_of_the_token_or_the_key(pushed: LocalMessageBus, local_root: str) -> None:
    root = Path(local_root)
    for authorization in (token("x" * 64), token(push_key(root), exp=1), token(push_key(root), aud="canary")):
        with pytest.raises(TotoError) as caught:
            await pushed._accept_push(request(authorization))
        told = f"{caught.value!r} {caught.value.__cause__!r}"
        assert not any(secret in told for secret in (authorization[7:], signing_key(root), push_key(root).hex()))
