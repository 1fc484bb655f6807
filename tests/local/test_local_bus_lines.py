"""The lines in which messages of one ordering key wait on the local bus, kept by triggers of its database."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any


async def test_next_of_a_key_follows_when_the_first_lost_its_key_to_damage(kit: Any) -> None:
    bus, subscription = await kit.consumer(ordered=True)
    ids = await kit.publish(bus, 1, 2, 3, ordering_key="a")
    with contextlib.closing(sqlite3.connect(kit.root / "bus.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE deliveries SET ordering_key = 'b' WHERE message_id = ?", (ids[0],))
    for message_id in ids[1:]:
        (one,) = await kit.get(bus, subscription)
        assert one.message_id == message_id
        await bus._ack([one])
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert letter.message_id == ids[0]


async def test_lines_are_formed_and_dissolved_when_the_subscription_changes_its_mind(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    ids = await kit.publish(bus, 1, 2, 3, ordering_key="a")
    ordered = kit.subscription(ordered=True)
    await bus._subscribe(ordered, create=True)
    (first,) = await kit.get(bus, ordered)
    assert first.message_id == ids[0]
    assert await kit.nothing(bus, ordered)
    await bus._subscribe(subscription, create=True)
    assert [one.message_id for one in await kit.get(bus, subscription, 2)] == ids[1:]
