"""Bodies of push requests: the largest message, and unfinished bodies of unauthenticated callers."""

from __future__ import annotations

import asyncio

from totoms.messages.message import TotoMessage, encode_message
from totoms.testing.push.base import BODY, PushTests
from totoms.testing.push.harness import Pushed, PushHarness
from totoms.testing.push.service import MESSAGE_TYPE

_STRANGERS = 160
_GENUINE = 25


class PushBodies(PushTests):
    """Bodies that are large or unfinished."""

    async def test_27_largest_message_arrives(self, harness: PushHarness) -> None:
        """The largest message that can be published is accepted, encoded and escaped in its envelope."""
        service = await self._serve(harness)
        if service is None:
            return
        room = service.bus.max_message_bytes - 2000  # minus attributes and the rest of the envelope
        message = TotoMessage(type=MESSAGE_TYPE, id="large", timestamp="now", cid="c", data={"text": ""})
        text = '"\\' * ((room - len(encode_message(message))) // 4)  # each is escaped in the JSON of each envelope
        message.data = {"text": text}
        body = encode_message(message)
        assert room - 100 < len(body) <= room
        answer = await service.send(await harness.genuine(body, message_id="m-large"))
        assert answer.status_code == 200
        assert [one.data == message.data for one in service.handled] == [True]

    async def test_29_unfinished_bodies_of_unknown_senders_block_nothing(self, harness: PushHarness) -> None:
        """Unauthenticated callers that send half a body do not delay genuine pushes or the shutdown."""
        service = await self._serve(harness, body_patience=10_000.0)
        if service is None:
            return
        stranger = (await harness.forgeries(BODY))["no credentials"]
        assert isinstance(stranger, Pushed)
        half = [asyncio.create_task(service.send_half(stranger)) for _ in range(_STRANGERS)]
        async with asyncio.timeout(harness.patience):
            for number in range(_GENUINE):
                answer = await service.send(await harness.genuine(BODY, message_id=f"m-{number}"))
                assert answer.status_code == 200, f"a genuine push was answered {answer.status_code}"
            await service.stop(10_000.0)
            statuses = await asyncio.gather(*half)
        assert set(statuses) <= {401, 403, 503}
        assert len(service.handled) == _GENUINE
