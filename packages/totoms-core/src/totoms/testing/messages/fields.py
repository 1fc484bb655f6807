"""Messages of other publishers, with fields that are not strings or without a type: behaviour 67."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from totoms.errors import NonRetryableError
from totoms.messages.driver import DEAD_LETTERS
from totoms.messages.message import TYPE_ATTRIBUTE, ProcessingResponse, TotoMessage
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.listener import MESSAGE_TYPE
from totoms.testing.messages.topic import POSTS, Topic

_TYPE: Final = f'"type":"{MESSAGE_TYPE}"'
_BODIES: Final[Mapping[str, tuple[str, TotoMessage]]] = {
    "id a number, cid null": (
        f'{{{_TYPE},"id":42,"cid":null,"timestamp":1764504000,"msg":"","data":{{"n":1}}}}',
        TotoMessage("1764504000", "", "42", MESSAGE_TYPE, "", {"n": 1}),
    ),
    "msg an object": (
        f'{{"data": [ null ], {_TYPE}, "msg": {{"text": "Grüße", "n": [1, null]}}, "id": null, "cid": 1.5}}',
        TotoMessage("", "1.5", "", MESSAGE_TYPE, '{"text":"Grüße","n":[1,null]}', [None]),
    ),
    "id a long integer": (
        f'{{{_TYPE},"id":123456789012345678901234567890,"cid":true,"msg":[]}}',
        TotoMessage("", "true", "123456789012345678901234567890", MESSAGE_TYPE, "[]", {}),
    ),
}
_FOREIGN: Final[Mapping[str, bytes]] = {
    "another system's": b'{"detail-type":"order","source":"shop","detail":{}}',
    "no type": b'{"timestamp":"","cid":"c","id":"i","msg":"","data":{}}',
    "type null": b'{"type":null,"id":"i"}',
    "nothing": b"{}",
}


def _refuse(_handled: TotoMessage) -> ProcessingResponse:
    raise NonRetryableError("as the test says")


class Fields(Contract):
    """Behaviour 67."""

    @pytest.mark.parametrize("case", _BODIES)
    @pulled
    async def test_67_fields_that_are_not_strings_arrive_as_text(self, topic: Topic, case: str) -> None:
        """Numbers arrive as their JSON text, null as the empty string, objects and lists as compact JSON."""
        text, wanted = _BODIES[case]
        listener = await topic.listen()
        await topic.harness.publish_raw(topic.identifier, text.encode(), {})
        await listener.until_settled(1)
        assert listener.begun == [wanted]

    @pulled
    async def test_67_fields_that_are_not_strings_are_published_as_given(self, topic: Topic) -> None:
        """Fields that are not strings are published as they are, and arrive as text."""
        listener, bus = await topic.listen(), await topic.bus()
        fields: dict[str, Any] = {
            "timestamp": 1764504000,
            "cid": 7,
            "id": 42,
            "msg": {"text": [1]},
        }  # as 1.5.0 accepted
        published = TotoMessage(type=MESSAGE_TYPE, data={"n": 1}, **fields)
        await bus.publish_message(POSTS, published)
        await listener.until_settled(1)
        assert listener.begun == [TotoMessage("1764504000", "7", "42", MESSAGE_TYPE, '{"text":[1]}', {"n": 1})]
        (received,) = listener.receiver.received
        for written in (b'"timestamp":1764504000', b'"cid":7', b'"id":42', b'"msg":{"text":[1]}'):
            assert written in received.body

    @pulled
    async def test_67_dead_letter_keeps_and_replays_the_original_bytes(self, topic: Topic) -> None:
        """A dead letter and its replay hold the published bytes, not the fields that the handler got."""
        body = _BODIES["msg an object"][0].encode()
        listener = await topic.listen(_refuse)
        await topic.harness.publish_raw(topic.identifier, body, {})
        await listener.until_settled(1, "dead_letter")
        letters = await topic.dead_letters(listener.subscription)
        if DEAD_LETTERS not in topic.capabilities:
            return
        assert [letter.body for letter in letters] == [body]
        await (await topic.bus()).replay_dead_letters(listener.subscription.name)
        await listener.until_settled(2, "dead_letter")
        assert [one.received.body for one in listener.receiver.which("dead_letter")] == [body, body]
        assert listener.begun[0] == listener.begun[1]

    @pulled
    async def test_67_type_that_stands_beside_the_body_is_used(self, topic: Topic) -> None:
        """A message whose type is only in the attribute ``messageType`` is handled by the handler of that type."""
        listener = await topic.listen()
        body = b'{"id":"i","cid":"c","data":{"n":1}}'
        await topic.harness.publish_raw(topic.identifier, body, {TYPE_ATTRIBUTE: MESSAGE_TYPE})
        await listener.until_settled(1)
        assert listener.begun == [TotoMessage("", "c", "i", MESSAGE_TYPE, "", {"n": 1})]

    @pytest.mark.parametrize("case", _FOREIGN)
    @pulled
    async def test_67_object_without_a_type_is_ignored_and_counted(self, topic: Topic, case: str) -> None:
        """A JSON object without a type is counted and acked, not handled and not dead-lettered."""
        listener = await topic.listen()
        await topic.harness.publish_raw(topic.identifier, _FOREIGN[case], {})
        await listener.until_settled(1)
        await topic.publish("known")
        await listener.until_settled(2)
        await topic.barrier()
        assert listener.ids == ["known"]
        assert (listener.counts.ignored, listener.counts.retried, listener.counts.dead_lettered) == (1, 0, 0)
        assert await topic.dead_letters(listener.subscription) == []
