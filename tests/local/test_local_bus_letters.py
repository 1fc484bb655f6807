"""Dead letters of the local bus, and pushes to it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest

from totoms.envelope import DeadLetterReason, PushRequest, Received, Subscription
from totoms.errors import Forbidden, NotFound, Unauthorized
from totoms.local.keys import push_key, signing_key
from totoms.local.pushes import push_token
from totoms.tokens import make_token

WHY = DeadLetterReason("non_retryable", "ValueError", "no good", 3)
BOTH = pytest.mark.parametrize("own_writer", [False, True], ids=["shared writer", "own writer"])


async def bury(kit: Any, bus: Any, subscription: Any, number: int) -> list[Received]:
    await kit.publish(bus, *range(number))
    held: list[Received] = await kit.get(bus, subscription, number)
    for one in held:
        await bus._dead_letter(one, WHY)
    return held


async def test_dead_letter_is_kept_with_its_reason_and_not_delivered(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    (held,) = await bury(kit, bus, subscription, 1)
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert (letter.message_id, letter.body, letter.attributes) == (held.message_id, held.body, held.attributes)
    assert (letter.reason, letter.subscription, letter.dead_since) == (WHY, subscription.name, kit.clock.now)
    kit.advance(10_000)
    assert await kit.nothing(bus, subscription)


async def test_dead_letters_are_listed_oldest_first_up_to_a_limit(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    held = await bury(kit, bus, subscription, 5)
    letters = await bus.list_dead_letters(subscription.name, 3)
    assert [letter.message_id for letter in letters] == [one.message_id for one in held[:3]]


@BOTH
async def test_replayed_letter_comes_again_as_new_to_who_waits_already(kit: Any, own_writer: bool) -> None:
    bus, subscription = await kit.consumer()
    first, second = await bury(kit, bus, subscription, 2)
    operator = kit.bus(own_writer=own_writer)
    waiting = asyncio.ensure_future(bus._receive(subscription, 5, 20))
    letters = await operator.list_dead_letters(subscription.name)
    assert await operator.replay_dead_letters(subscription.name, [letters[0].letter_id]) == 1
    (again,) = await waiting
    assert (again.message_id, again.body, again.attempt) == (first.message_id, first.body, 1)
    assert [letter.message_id for letter in await bus.list_dead_letters(subscription.name)] == [second.message_id]
    assert await operator.replay_dead_letters(subscription.name) == 1
    assert (await kit.get(bus, subscription))[0].message_id == second.message_id
    assert await operator.replay_dead_letters(subscription.name) == 0


async def test_replay_and_publishing_in_one_transaction_do_not_collide(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    held = await bury(kit, bus, subscription, 20)
    publishing = [asyncio.ensure_future(kit.publish(bus, number)) for number in range(20)]
    replaying = [asyncio.ensure_future(bus.replay_dead_letters(subscription.name)) for _ in range(3)]
    publishing += [asyncio.ensure_future(kit.publish(bus, number)) for number in range(20)]
    ids = {message_id for each in await asyncio.gather(*publishing) for message_id in each}
    assert sum(await asyncio.gather(*replaying)) == 20
    got = await kit.get(bus, subscription, 60)
    assert {one.message_id for one in got} == ids | {one.message_id for one in held}


async def test_purged_letters_are_gone(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await bury(kit, bus, subscription, 4)
    letters = await bus.list_dead_letters(subscription.name)
    assert await bus.purge_dead_letters(subscription.name, [letters[1].letter_id, "none", ""]) == 1
    assert await bus.purge_dead_letters(subscription.name) == 3
    assert await bus.list_dead_letters(subscription.name) == []
    assert await bus.replay_dead_letters(subscription.name) == 0


async def test_text_of_a_reason_that_is_no_unicode_is_kept_as_well_as_it_can(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, 1, 2)
    one, other = await kit.get(bus, subscription, 2)
    results = await asyncio.gather(
        bus._dead_letter(one, DeadLetterReason("non_retryable", "E\udcff", "file \udcff\0", 1)), bus._ack([other])
    )
    assert results == [None, [None]]
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert letter.reason.description.startswith("file ")


async def test_pushed_message_is_dead_lettered_listed_and_purged(kit: Any) -> None:
    bus = kit.bus()
    pushed = Received(b"{", "pushed-1", 1, Subscription("push-posts", "posts-topic", "posts", delivery="push"))
    await bus._dead_letter(pushed, DeadLetterReason("undecodable"))
    (letter,) = await bus.list_dead_letters("push-posts")
    assert (letter.message_id, letter.body, letter.reason.reason) == ("pushed-1", b"{", "undecodable")
    # Nobody would pull it: it stays where it can be seen.
    with pytest.raises(NotFound, match="push-posts"):  # nobody to deliver it to
        await bus.replay_dead_letters("push-posts")
    assert await bus.purge_dead_letters("push-posts") == 1
    with pytest.raises(NotFound, match="push-posts"):
        await bus.list_dead_letters("push-posts")


# --- pushes ---


def request(token: str | None, topic: str = "posts", **headers: str) -> PushRequest:
    names = {"x-totoms-topic": topic, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token is not None:
        names["authorization"] = f"Bearer {token}"
    return PushRequest(names, b'{"type":"t"}', "http://127.0.0.1/events")


@pytest.mark.parametrize("topic", ["posts", "posts-topic"])
async def test_genuine_push_is_accepted(kit: Any, topic: str) -> None:
    bus = kit.bus()
    token = push_token(bus._root)
    (one,) = await bus._accept_push(request(token, topic, x_totoms_message_id="m-1", x_totoms_attempt="3"))
    assert (one.body, one.message_id, one.attempt, one.lease) == (b'{"type":"t"}', "m-1", 3, None)
    assert (one.subscription.topic, one.subscription.logical_name) == ("posts-topic", "posts")
    (bare,) = await bus._accept_push(request(token, topic, x_totoms_message_id="\n", x_totoms_attempt="-1"))
    assert bare.message_id.strip()
    assert bare.attempt == 1


def forged(kit: Any, claims: dict[str, Any], key: Any = None, **header: Any) -> str:
    made = {"aud": "totoms-push", "exp": int(time.time()) + 60, **claims}
    made = {name: value for name, value in made.items() if value is not None}
    algorithm = header.pop("algorithm", "HS256")
    return jwt.encode(made, push_key(kit.bus()._root) if key is None else key, algorithm=algorithm, headers=header)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(lambda kit: None, Unauthorized, id="none"),
        pytest.param(lambda kit: "", Unauthorized, id="empty"),
        pytest.param(lambda kit: "a.b.c", Unauthorized, id="no token"),
        pytest.param(lambda kit: "é.b.c", Unauthorized, id="no ascii"),
        pytest.param(lambda kit: "☃.b.c", Unauthorized, id="no latin"),
        pytest.param(lambda kit: forged(kit, {}, key=b"x" * 32), Unauthorized, id="another key"),
        pytest.param(lambda kit: forged(kit, {"exp": int(time.time()) - 1}), Unauthorized, id="expired"),
        pytest.param(lambda kit: forged(kit, {"exp": None}), Unauthorized, id="never expires"),
        pytest.param(lambda kit: forged(kit, {"aud": "totoms"}), Forbidden, id="audience"),
        pytest.param(lambda kit: forged(kit, {"aud": None}), Forbidden, id="no audience"),
        pytest.param(lambda kit: forged(kit, {"aud": ["totoms-push"]}), Forbidden, id="list of audiences"),
        pytest.param(
            lambda kit: forged(kit, {}, key=b"x" * 64, algorithm="HS512"), Unauthorized, id="another algorithm"
        ),
        pytest.param(lambda kit: forged(kit, {}, key="", algorithm="none"), Unauthorized, id="alg none"),
        pytest.param(lambda kit: forged(kit, {}, key="", algorithm="none") + "AA", Unauthorized, id="alg none, signed"),
        pytest.param(lambda kit: make_token(signing_key(kit.bus()._root), "me"), Unauthorized, id="a user's token"),
        pytest.param(
            lambda kit: forged(kit, {}, key=signing_key(kit.bus()._root)), Unauthorized, id="signed with the users' key"
        ),
    ],
)
async def test_forged_push_is_refused(kit: Any, make: Any, error: type[Exception]) -> None:
    bus = kit.bus()
    signing_key(bus._root)
    with pytest.raises(error):
        await bus._accept_push(request(make(kit)))
    assert len(await bus._accept_push(request(push_token(bus._root)))) == 1


@pytest.mark.parametrize("topic", ["nowhere", "", "posts-topic-2", "POSTS"])
async def test_push_for_a_topic_of_somebody_else_is_refused(kit: Any, topic: str) -> None:
    bus = kit.bus()
    with pytest.raises(Forbidden):
        await bus._accept_push(request(push_token(bus._root), topic))
